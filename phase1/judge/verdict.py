"""From a program and its problem's tests to a task, and from what its tests did to a verdict (contract 6)."""

from __future__ import annotations

import ast
import builtins
import contextlib
import sys
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, dataclass, field, replace

from pydantic import JsonValue

from phase1.contract.comparison import PLAIN, Comparison, comparison_of
from phase1.contract.problems import TestCases, wrong_in
from phase1.contract.records import EXEC_SUCCESS, MODEL_ERRORS, NOT_RUN, tested
from phase1.files import BadInput
from phase1.judge.checkers import HOLD, Checkers, Question
from phase1.judge.compare import PROBLEM, SHOWN, narrow, same_output
from phase1.judge.config import JudgeConfig
from phase1.judge.outcomes import AssertTests, CompileFailed, Sandbox, SandboxFailed, Task, TestRun

# What tests use without importing it, and where it is then taken from. A program that defines a `numpy` or an `isclose`
# could find all things equal; other functions of the standard library may well be the program's to write.
USUAL = {
    "np": "numpy",
    "numpy": "numpy",
    "pd": "pandas",
    "scipy": "scipy",
    "pytest": "pytest",
    "isclose": "math.isclose",
    "inf": "math.inf",
    "nan": "math.nan",
    "deepcopy": "copy.deepcopy",
    "Counter": "collections.Counter",
    "OrderedDict": "collections.OrderedDict",
    "defaultdict": "collections.defaultdict",
    "deque": "collections.deque",
    "namedtuple": "collections.namedtuple",
    "Decimal": "decimal.Decimal",
    "Fraction": "fractions.Fraction",
}
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
        tests_unread: tests on which it read nothing, though there was an input; None as well where the servers of
            SandboxFusion ran it.
        compared_by: the problem's own rule for outputs by which they were compared, in words; "" for the plain one.
        accepted_under: whether every test would have passed under each mode of `phase1.judge.compare.SHOWN`; None where
            there are no outputs to compare.
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
    tests_unread: int | None = None
    compared_by: str = ""
    accepted_under: dict[str, bool] | None = None


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
    tests = assert_tests(cases)
    return Task(program=program, kind="assert", count=len(tests.tests), limit=limit, memory=memory, asserts=tests)


def assert_tests(cases: TestCases) -> AssertTests:
    """The tests in `test_cases` of the types humaneval and mbpp, and what they say of the names that they use.

    A test or a set-up that does not compile stays as it is: the sandbox will say what is wrong, as the judge's failure.
    """
    entry = cases["entry_point"]
    if cases["type"] == "humaneval":
        tests, setup = [f"{cases['test_code']}\n\ncheck({entry})\n"], ""
    else:
        tests, setup = list(cases["test_list"]), cases.get("test_setup_code") or ""
    used: set[str] = set()
    asked: set[str] = set()  # names of which an attribute is used
    for source in (setup, *tests):
        for node in ast.walk(_parsed(source)):
            if isinstance(node, ast.Name):
                used.add(node.id)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                asked.add(node.value.id)
    used -= {*vars(builtins), entry}
    # A module's name stands before a dot; a function of the same name may be the program's.
    standard = {name: name for name in used & asked & sys.stdlib_module_names}
    standard |= {name: origin for name, origin in USUAL.items() if name in used}
    shared = [node for node in _parsed(setup).body if isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef)]
    prompt = cases.get("prompt") or ""
    of_both = [node for node in (*shared, *_parsed(prompt).body) if isinstance(node, ast.ClassDef)]
    return AssertTests(
        tests=tests,
        entry_point=entry,
        setup=setup,
        prompt=prompt,
        names=sorted(used - standard.keys() | {entry}),
        standard=standard,
        shared="\n".join(ast.unparse(node) for node in shared),
        classes=[node.name for node in of_both],
    )


def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return ast.Module([], [])


# ---------------------------------------------------------------------------------------------------------- verdicts
async def verdict_of(sandbox: Sandbox, task: Task, cases: TestCases, mode: str, checkers: Checkers) -> Verdict:
    """Run a task and judge its tests: the worst error counts, and `accepted` is all or nothing (contract 6).

    Args:
        cases: the `test_cases` that `task` was made of; they hold the expected outputs.
        mode: the rule for outputs, one of `phase1.judge.compare.MODES`.
        checkers: what a problem's checker is run with, in the mode that follows problems' own rules.
    """
    rule = comparison_of(cases) if mode == PROBLEM else PLAIN
    verdict, silent = Verdict("success", tests_total=task.count), 0
    unread: int | None = 0
    verdict.compared_by = rule.words
    expected = [t["output"] for t in cases["tests"]] if task.kind == "stdin" else []
    under = dict.fromkeys(SHOWN, True)
    worst = len(MODEL_ERRORS)
    try:
        async with contextlib.aclosing(_decided(sandbox, task, expected, mode, rule, checkers)) as runs:
            async for run in runs:
                index = verdict.tests_run
                want = _bytes(expected[index]) if expected else b""
                if run.verdict in EXEC_SUCCESS:
                    narrow(under, want, run.output)
                else:
                    under = dict.fromkeys(SHOWN, False)
                verdict.tests_run += 1
                silent += not run.output or run.output.isspace()
                if run.read is None:
                    unread = None
                elif unread is not None:
                    unread += bool(task.inputs[index]) and not run.read
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
        return Verdict("sandbox_error", tests_total=task.count, detail=str(e)[:300], compared_by=rule.words)
    verdict.test_verdicts += [NOT_RUN] * (task.count - verdict.tests_run)
    if task.kind == "stdin":
        verdict.tests_silent, verdict.tests_unread, verdict.accepted_under = silent, unread, under
    return replace(verdict, **asdict(tested(verdict.test_verdicts)))


async def _decided(
    sandbox: Sandbox, task: Task, expected: Sequence[str], mode: str, rule: Comparison, checkers: Checkers
) -> AsyncGenerator[TestRun, None]:
    """The runs of a task, each with its verdict.

    A checker is asked once all tests are run: it needs a sandbox as well, and there may be only one at a time.
    """
    held: list[TestRun] = []
    room = max(HOLD, 2 * sum(map(len, expected)))
    async with contextlib.aclosing(sandbox.run(task)) as runs:
        number = 0
        async for run in runs:
            if rule.checker:
                room -= len(run.output)
                if not run.verdict and room < 0:
                    run.verdict, run.detail = "runtime_error", "output_limit: more than the judge holds for a checker"
                if room < 0:
                    run.output = b""
                held.append(run)
                continue
            if not run.verdict:
                right = same_output(_bytes(expected[number]), run.output, mode, rule)
                run.verdict = "success" if right else "wrong_answer"
            number += 1
            yield run
    if rule.checker:
        asked = [number for number, run in enumerate(held) if not run.verdict]
        questions = [Question(task.inputs[n], expected[n], held[n].output) for n in asked]
        answers = await checkers.decide(rule.checker, questions)
        for n, right in zip(asked, answers, strict=True):
            held[n].verdict = "success" if right else "wrong_answer"
    for run in held:
        yield run


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _case(index: int, run: TestRun, want: bytes, task: Task) -> dict[str, JsonValue]:
    def head(data: bytes) -> str:
        return data[:HEAD].decode("utf-8", "backslashreplace")

    tests = task.inputs if task.asserts is None else task.asserts.tests
    return {
        "index": index,
        "verdict": run.verdict,
        "detail": run.detail,
        "cpu": run.cpu,
        "wall": run.wall,
        "peak_rss": run.peak_rss,
        "input": tests[index][:HEAD],
        "expected": head(want),
        "output": head(run.output),
        "stderr": head(run.stderr),
    }
