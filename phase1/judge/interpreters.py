"""Which interpreter runs the programs, what it needs to see in the sandbox, and what runs inside compiled for it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from phase1.judge.inside import (
    asserts,
    ending,
    fork_server,
    group,
    plain,
    processes,
    program_process,
    protocol,
    stage,
    talk,
    tests_process,
    traces,
)

PROJECT = Path(__file__).resolve().parents[2]
# Optional packages that contest programs use; each is shown to them where the judge's own environment has it.
PROGRAM_PACKAGES = ("numpy", "scipy", "sortedcontainers")
# What runs inside, in the order of its imports: always, and of an assert task as well.
_INSIDE = (asserts, ending, protocol, group, processes, stage, traces, fork_server)
_OF_ASSERT_TASKS = (plain, talk, program_process, tests_process)
# Annotations are not evaluated: an older interpreter may not know the types in them.
_INSPECT = """
import __future__, json, marshal, os, site, sys
flags = __future__.annotations.compiler_flag
sources = json.load(sys.stdin)
def compiled(group):
    return marshal.dumps([(name, compile(source, name, "exec", flags)) for name, source in group])
first, rest = map(compiled, sources)
code = len(first).to_bytes(4, "little") + first + rest
executable = os.path.realpath(sys.executable)
print(json.dumps({"version": sys.version.split()[0], "executable": executable, "prefix": sys.base_prefix,
                  "path": [p for p in sys.path if p], "site": site.getsitepackages(), "code": code.hex()}))
"""


@dataclass(frozen=True)
class Interpreter:
    """An interpreter as it describes itself."""

    version: str  # as in `3.11.7`
    executable: str  # path without links
    prefix: str  # of its installation
    path: list[str]  # sys.path without packages
    site: list[str]  # where its packages are
    code: str  # the modules of phase1/judge/inside/, as launcher.BOOT takes them, in hexadecimal digits


@dataclass(frozen=True)
class Shown:
    """What programs see beside the system's folders."""

    mounts: list[list[str]]  # (source, target) each
    packages: dict[str, str]  # name: version


def candidates() -> list[str]:
    """Paths of interpreters to try, best first: the judge's own, then the system's."""
    names = [os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"]
    return list(dict.fromkeys(name for name in names if os.access(name, os.X_OK)))


def inspect(executable: str) -> Interpreter | None:
    """Ask an interpreter what it is and have it compile what runs inside; None where it cannot do that."""
    sources = [[(_name(module), _source(module)) for module in group] for group in (_INSIDE, _OF_ASSERT_TASKS)]
    try:
        answer = subprocess.run(
            [executable, "-I", "-S", "-c", _INSPECT],
            input=json.dumps(sources),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return Interpreter(**json.loads(answer.stdout))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _name(module: ModuleType) -> str:
    """The name by which the others import it."""
    return "__main__" if module is fork_server else module.__name__


def _source(module: ModuleType) -> str:
    return Path(str(module.__file__)).read_text(encoding="utf-8")


def hidden_from_programs(interpreter: Interpreter) -> list[str]:
    """The project and the current folder, wherever they lie, unless the interpreter itself lies in them."""
    needed = [interpreter.executable, interpreter.prefix, *interpreter.path, *interpreter.site]
    folders = [str(PROJECT), os.path.realpath(os.curdir)]
    return [folder for folder in folders if not any(f"{path}/".startswith(f"{folder}/") for path in needed)]


def shown_to_programs(interpreter: Interpreter) -> Shown:
    """The interpreter's installation, where it is not the system's, and PROGRAM_PACKAGES, where the judge has them for
    the same version of Python."""
    mounts = []
    prefix = os.path.realpath(interpreter.prefix)
    if prefix not in ("/usr", "/usr/local"):
        mounts.append([prefix, prefix])
    packages = {}
    same = interpreter.version.rsplit(".", 1)[0] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    for name in PROGRAM_PACKAGES if same else ():
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            continue
        folder = os.path.realpath(spec.submodule_search_locations[0])
        packages[name] = importlib.metadata.version(name)
        for path in (folder, folder + ".libs"):
            if os.path.isdir(path):
                mounts.append([path, f"/packages/{os.path.basename(path)}"])
    return Shown(mounts, packages)
