"""What the scripts of the Phase 1 toolkit share: small modules with one job each.

docs/files_and_environments.md has the tree.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

NEEDED = ("numpy", "pydantic")  # by every part, the reward in Phase 3's environment too


def refuse_bare_interpreter() -> None:
    """End with one line where this Python is too old or lacks the packages: it is not the environment's.

    Here because every script imports this first, in a syntax that older Pythons read too. Who starts a Python with -S,
    as the sandbox's launcher is started, wants none of the packages.
    """
    if sys.flags.no_site:
        return
    lacks = [name for name in NEEDED if find_spec(name) is None]
    if sys.version_info >= (3, 11) and not lacks:
        return
    what = f"has no {lacks[0]}" if lacks else "is Python {}.{}, not 3.11 or later".format(*sys.version_info)
    made = Path(__file__).resolve().parent.parent / ".venv" / "bin" / "python"
    fix = f"run it with {made}" if made.exists() else "bash setup_cpu.sh makes .venv (elsewhere with VENV)"
    line = "error: {} {}: not the Python of the environment; {}, or set PYTHON to your own for the shell scripts"
    print(line.format(sys.executable, what, fix), file=sys.stderr)
    raise SystemExit(2)


refuse_bare_interpreter()
