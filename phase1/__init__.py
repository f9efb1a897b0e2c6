"""What the scripts of the Phase 1 toolkit share: small modules with one job each.

docs/files_and_environments.md has the tree.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

NEEDED = ("numpy", "pydantic")  # by every part, the reward in Phase 3's environment too
NEEDED_BY = {  # besides, by a script of the root before it has read its command line
    "generate_report.py": ("pyarrow", "matplotlib", "jinja2", "scipy", "statsmodels"),
    "phase1_eval.py": ("aiohttp", "rich"),
    "prepare_eval_data.py": ("pyarrow", "rich"),
    "prepare_sft_data.py": ("pyarrow", "rich", "aiohttp"),
}
ROOT = Path(__file__).resolve().parent.parent


def our_script() -> str:
    """The name of the script of the root that was started, "" for another program."""
    try:
        started = Path(sys.argv[0] if sys.argv else "").resolve()
    except (AttributeError, OSError):  # an interpreter within another program; a current folder that is gone
        return ""
    return started.name if started.parent == ROOT else ""


def refuse_bare_interpreter() -> None:
    """End with one line where this Python is too old or lacks the packages: it is not the environment's.

    Here because every script imports this first, in a syntax that older Pythons read too. Who starts a Python with -S,
    as the sandbox's launcher is started, wants none of the packages.
    """
    if sys.flags.no_site:
        return
    needed = NEEDED + NEEDED_BY.get(our_script(), ())
    lacks = [name for name in needed if find_spec(name) is None]
    if sys.version_info >= (3, 11) and not lacks:
        return
    what = f"has no {lacks[0]}" if lacks else "is Python {}.{}, not 3.11 or later".format(*sys.version_info)
    made = ROOT / ".venv" / "bin" / "python"
    fix = f"run it with {made}" if made.exists() else "bash setup_cpu.sh makes .venv (elsewhere with VENV)"
    line = "error: {} {}: not the Python of the environment; {}, or set PYTHON to your own for the shell scripts"
    print(line.format(sys.executable, what, fix), file=sys.stderr)
    raise SystemExit(2)


def is_ours(file: str) -> bool:
    """Whether a file is one of this project's, and none of an environment within it."""
    path = Path(file)
    return path.parent == ROOT or ROOT / "phase1" in path.parents or ROOT / "patches" in path.parents


def broken_package(error: BaseException, trace: TracebackType | None) -> str:
    """The file, or the name, of a package that could not be imported by us; "" where something else went wrong."""
    frames = []
    while trace is not None:
        frames.append(trace.tb_frame.f_code)
        trace = trace.tb_next
    own = max((number for number, code in enumerate(frames) if is_ours(code.co_filename)), default=len(frames))
    beyond = [code for code in frames[own + 1 :] if not code.co_filename.startswith("<frozen ")]
    if isinstance(error, SyntaxError):
        file = error.filename or ""
    elif beyond and beyond[0].co_name == "<module>":  # an import of ours led there
        file = beyond[-1].co_filename
    elif not beyond and isinstance(error, ImportError):
        file = error.path or error.name or ""
    else:
        return ""
    return "" if is_ours(file) or file.startswith(("phase1", "<")) else file


def say_what_ended(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What `sys.excepthook` calls: one word for Ctrl-C while a script still imports, one line and exit code 2 for a
    package that does not load, the traceback for all else."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    elif broken := broken_package(error, trace):
        why = (str(error).splitlines() or [""])[0]
        fix = "see whether PYTHONPATH leads to another environment's packages, else install the requirements again"
        print(f"error: {broken}: cannot be imported ({kind.__name__}: {why}); {fix}", file=sys.stderr)
        raise SystemExit(2)
    else:
        sys.__excepthook__(kind, error, trace)


refuse_bare_interpreter()
if our_script() or sys.argv[:1] == ["-m"]:  # python -m phase1.name, before its module is found
    sys.excepthook = say_what_ended
