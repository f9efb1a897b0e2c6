"""An assert task on a SandboxFusion server, where there is no fork-server: the script is the tests' process, and starts
the program's as a new interpreter.

It imports the standard library and its neighbours only. The script is deleted before the program starts, and the
script's memory is closed to it, unless it runs as root.
"""

import os
import signal
import sys

from phase1.judge.inside.asserts import compile_quietly
from phase1.judge.inside.processes import PR_SET_DUMPABLE, libc_function
from phase1.judge.inside.program_process import run_program
from phase1.judge.inside.tests_process import Link, Report, run_tests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from phase1.judge.inside.asserts import Job, Tests

PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Gives a process the modules of the judge's inside/ from their sources; annotations are not evaluated, for the server's
# Python may be too old for the types in them.
LOAD = """
import __future__, builtins, sys
for name, source in sources:
    module = type(sys)(name)
    module.__dict__["__builtins__"] = dict(vars(builtins))
    sys.modules[name] = module
    exec(compile(source, name, "exec", __future__.annotations.compiler_flag), module.__dict__)
"""
PROGRAM_BOOT = f"""
import ast, sys
sources, job, inlet, outlet = ast.literal_eval(sys.stdin.buffer.read().decode("utf-8", "surrogatepass"))
{LOAD}
sys.modules["phase1.judge.inside.remote"].be_program(job, inlet, outlet)
"""


def be_tests(job: "Job", tests: "Tests", sources: "list[tuple[str, str]]") -> "NoReturn":
    """Be the tests' process; reports go to stdout. `sources`: name and text of the modules that both processes use."""
    import subprocess

    if sys.argv and os.path.isfile(sys.argv[0]):
        try:  # noqa: SIM105 as its neighbours
            os.unlink(sys.argv[0])
        except OSError:
            pass
    if prctl := libc_function("prctl"):
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    report = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    requests, answers = os.pipe(), os.pipe()
    ends = (requests[0], answers[1])
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM_BOOT], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=ends
    )
    for fd in ends:
        os.close(fd)
    assert program.stdin is not None
    program.stdin.write(repr((sources, job, *ends)).encode("utf-8", "surrogatepass"))
    program.stdin.close()

    def gone() -> "NoReturn":
        code = program.wait()
        if code < 0:
            os.kill(os.getpid(), -code)
        os._exit(code)

    run_tests(tests, Link(answers[0], requests[1], gone), Report(tests["marker"], program.pid, report))


def be_program(job: "Job", inlet: int, outlet: int) -> "NoReturn":
    """Be the program's process."""
    if prctl := libc_function("prctl"):
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code, problem = compile_quietly(job["program"].encode("utf-8", "surrogatepass"), "main.py")
    if code is None:
        code = compile(f"raise SyntaxError({problem!r})", "main.py", "exec")
    run_program(job, code, inlet, outlet)
