"""From a program and its problem's tests to a task, and from what its tests did to a verdict (contract 6)."""

from __future__ import annotations

import ast
import contextlib
import sys
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple

from pydantic import JsonValue

from phase1.contract.problems import TestCases, wrong_in
from phase1.contract.records import MODEL_ERRORS, NOT_RUN, tested
from phase1.files import BadInput
from phase1.judge.compare import same_output
from phase1.judge.config import JudgeConfig
from phase1.judge.outcomes import CompileFailed, Sandbox, SandboxFailed, Task, TestRun

HEAD = 2048  # bytes of input, output and expected output kept of the first failing test


@dataclass
class Verdict:
    """What the judge says of a program.

    Attributes:
        error_type: `success`, or the worst of its tests' errors, or why there are none (docs/judge.md, "Verdicts").
        accepted: whether every test passed.
        pass_ratio: tests passed over tests in all.
        judge_time: wall seconds spent executing its tests.
        detail: the reason in words, where there is one.
        test_verdicts: an entry a test, in order: a word of MODEL_ERRORS, or `not_run` behind three timeouts one after
            another, which counts as failed.
        first_failed_case: index, verdict, detail, cpu and wall (seconds), peak_rss (bytes), input, expected and output
            (the first 2 kB of each), stderr (the last 2 kB).
        tests_silent: tests on which a program that reads and writes standard streams wrote nothing but white space;
            None where asserts call it, or no test ran.
    """

    error_type: str
    accepted: bool = False
    pass_ratio: float = 0.0
    tests_total: int = 0
    tests_run: int = 0
    tests_passed: int = 0
    judge_time: float = 0.0
    detail: str = ""
    test_verdicts: list[str] = field(default_factory=list)
    first_failed_case: dict[str, JsonValue] | None = None
    tests_silent: int | None = None


# -------------------------------------------------------------------------------------------------------- the tests
def make_task(program: str, cases: TestCases, config: JudgeConfig) -> Task:
    """The task for a program and its problem's `test_cases` (contract 4).

    Raises:
        BadInput: when `cases` breaks the contract.
    """
    if problem := wrong_in(cases):
        raise BadInput(problem)
    limit = float(cases.get("time_limit") or config.run_timeout)
    memory = int((cases.get("memory_limit_mb") or config.memory_limit_mb) * (1 << 20))
    if cases["type"] == "codecontests":
        tests = cases["tests"]
        return Task(
            program=program,
            kind="stdin",
            count=len(tests),
            limit=limit,
            memory=memory,
            inputs=[t["input"] for t in tests],
            longest_output=max(len(t["output"]) for t in tests),
        )
    entry = cases["entry_point"]
    if cases["type"] == "humaneval":
        sources, setup = [f"{cases['test_code']}\n\ncheck({entry})\n"], ""
    else:
        sources, setup = list(cases["test_list"]), cases.get("test_setup_code") or ""
    guarded = [_guard(source) for source in sources]
    return Task(
        program=program,
        kind="assert",
        count=len(sources),
        limit=limit,
        memory=memory,
        setup=setup,
        tests=[test.code for test in guarded],
        entry_point=entry,
        modules=sorted({name for test in guarded for name in test.modules}),
    )


class _Guard(ast.NodeTransformer):
    """Wrap both sides of every comparison of the test code in `__plain__`, which refuses a value whose class decides
    its own comparisons (phase1/judge/inside/asserts.py)."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        sides = [node.left, *node.comparators]
        guarded: list[ast.expr] = [
            n if isinstance(n, ast.Constant) else ast.Call(ast.Name("__plain__", ast.Load()), [n], []) for n in sides
        ]
        node.left, *node.comparators = guarded
        return node


class _Guarded(NamedTuple):
    """Test code with guarded comparisons."""

    code: str
    modules: set[str]  # of the standard library, that the code names


def _guard(source: str) -> _Guarded:
    """Guard the comparisons of test code. Code that cannot be parsed stays as it is: its compilation in the sandbox
    will say what is wrong, as the judge's failure."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return _Guarded(source, set())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    guarded = ast.fix_missing_locations(_Guard().visit(tree))
    return _Guarded(ast.unparse(guarded), names & sys.stdlib_module_names)


# ---------------------------------------------------------------------------------------------------------- verdicts
async def verdict_of(sandbox: Sandbox, task: Task, cases: TestCases, mode: str) -> Verdict:
    """Run a task and judge its tests: the worst error counts, and `accepted` is all or nothing (contract 6).

    Args:
        cases: the `test_cases` that `task` was made of; they hold the expected outputs.
        mode: the rule for outputs, one of `phase1.judge.compare.MODES`.
    """
    verdict, silent = Verdict("success", tests_total=task.count), 0
    expected = [t["output"] for t in cases["tests"]] if task.kind == "stdin" else []
    worst = len(MODEL_ERRORS)
    try:
        async with contextlib.aclosing(sandbox.run(task)) as runs:
            async for run in runs:
                index = verdict.tests_run
                want = expected[index].encode("utf-8", "surrogatepass") if expected else b""
                if not run.verdict:
                    run.verdict = "success" if same_output(want, run.output, mode) else "wrong_answer"
                verdict.tests_run += 1
                silent += not run.output or run.output.isspace()
                verdict.judge_time += run.wall
                verdict.test_verdicts.append(run.verdict)
                if run.verdict != "success" and verdict.first_failed_case is None:
                    verdict.first_failed_case = _case(index, run, want, task)
                if MODEL_ERRORS.index(run.verdict) < worst:
                    worst = MODEL_ERRORS.index(run.verdict)
                    verdict.error_type, verdict.detail = run.verdict, run.detail
    except CompileFailed as e:
        return Verdict("syntax_error", tests_total=task.count, detail=str(e)[:300])
    except SandboxFailed as e:
        return Verdict("sandbox_error", tests_total=task.count, detail=str(e)[:300])
    verdict.test_verdicts += [NOT_RUN] * (task.count - verdict.tests_run)
    verdict.tests_silent = silent if task.kind == "stdin" else None
    return replace(verdict, **asdict(tested(verdict.test_verdicts)))


def _case(index: int, run: TestRun, want: bytes, task: Task) -> dict[str, JsonValue]:
    def head(data: bytes) -> str:
        return data[:HEAD].decode("utf-8", "backslashreplace")

    given = task.inputs[index][:HEAD] if task.inputs else task.tests[index][:HEAD]
    return {
        "index": index,
        "verdict": run.verdict,
        "detail": run.detail,
        "cpu": run.cpu,
        "wall": run.wall,
        "peak_rss": run.peak_rss,
        "input": given,
        "expected": head(want),
        "output": head(run.output),
        "stderr": head(run.stderr),
    }
