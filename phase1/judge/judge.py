"""The judge: a program and a problem's tests in, a verdict out (contract 6).

    python -m phase1.judge --probe                                    # what the sandbox here holds and what it does not
    python -m phase1.judge --raw data/raw/humaneval_raw.jsonl --solutions answers.jsonl --out verdicts.jsonl
    python -m phase1.judge --raw RAW.jsonl.gz --solutions outputs/eval_final/results/humaneval.jsonl --out again.jsonl

What the local judge covers. One bubblewrap a program (phase1/judge/launcher.py), in it a fork-server that forks once a
test (phase1/judge/inside/fork_server.py); expected outputs and comparison stay outside. A program sees /usr, the
interpreter, numpy and scipy where the judge has them, an empty /tmp and /dev/shm, and nothing else: no host files,
network, environment, other processes, nor the fork-server's memory; no new namespaces, tracing, memory files or System
V segments (seccomp). Bounded: CPU time and waiting a test, memory (resident with a cgroup, where one may be made; else
the address space of a process and samples of all together), 64 processes, 80 MiB of files, output. After each test
every process of it is killed. Root drops to uid 65534 before bubblewrap. `--probe` tries each of these here; run.json
records what held. docs/judge.md says how each is tried.

What it does not. A hole in the kernel is a hole in the sandbox. Assert tasks (humaneval, mbpp) run their asserts in the
program's own process: an unguessable end marker, builtins and modules as before the program, and the refusal of results
that decide their own comparisons stop shortcuts, not an attacker who searches that process. Samples of memory come
every 0.1 s, so without a cgroup several processes can overshoot for that long. Tests of one program share its sandbox:
files in /tmp are removed between tests, and a new sandbox is started where that is not plain. Problems that accept any
of several answers cannot be judged by comparison. Without /proc (docker masks it) the waiting limit is a looser wall
clock, and only a cgroup bounds all processes together. Kernel memory (buffers of sockets and pipes) only a cgroup
bounds. With --unsafe and no bubblewrap there are limits, no isolation.

Rules where contract 6 leaves room. Three timeouts *one after another* end a problem; the tests behind them count as
failed and are not run. Any AssertionError of an assert task is wrong_answer, any other exception (SystemExit too) a
runtime_error. Too much output is a runtime_error with detail `output_limit`. The asserts of an mbpp problem run in one
process, as published; when one ends it, the next process goes on behind it. `test_setup_code` runs before the program,
and after it where it needs the program's names. Hash order is fixed (PYTHONHASHSEED=0). Standard modules that a program
imports (zygote_script.USUAL) are imported once for all its tests, before them.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from phase1.contract.extraction import EXTRACTIONS, program_of
from phase1.contract.problems import read_raw, wrong_in
from phase1.contract.records import MODEL_ERRORS, NO_ANSWER
from phase1.files import BadInput, finite, read_jsonl, replacing, run_stamp, write_json
from phase1.judge.compare import MODES, same_output
from phase1.judge.outcomes import Task, TestRun
from phase1.judge.probes import ESSENTIAL, MEANING, probe
from phase1.judge.sandbox import CompileFailed, LocalSandbox, SandboxFailed

REMEMBERED = 20_000  # verdicts kept for programs that come again; a reward asks for millions in one process
HEAD = 2048  # bytes of input, output and expected output kept of the first failing test


@dataclass(frozen=True)
class JudgeConfig:
    """How to judge. `workers` 0 = all cores but `reserve_cores`; `run_timeout` CPU seconds and memory a test."""

    judge: str = "local"  # local | sandbox_fusion
    compare: str = "tokens"  # tokens | verl | sandboxfusion | exact
    workers: int = 0
    reserve_cores: int = 0
    run_timeout: float = 30.0
    memory_limit_mb: int = 1024
    sandbox_urls: tuple[str, ...] = ()
    unsafe: bool = False
    extraction: str = "contract"  # contract | reader: whose program of an answer is measured

    @property
    def parallel(self) -> int:
        return self.workers or max(1, len(os.sched_getaffinity(0)) - self.reserve_cores)


@dataclass
class Verdict:
    """What the judge says of a program. `judge_time`: wall seconds spent executing its tests.

    `test_verdicts` has an entry a test, in order: a MODEL_ERRORS word, or `not_run` behind three timeouts in a row
    (which counts as failed). `first_failed_case`: index, verdict, detail, cpu, wall (s), peak_rss (bytes), input,
    expected, output (the first 2 kB of each), stderr (the last 2 kB).
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
    first_failed_case: dict[str, Any] | None = None


# -------------------------------------------------------------------------------------------------------- the tests
def make_task(program: str, cases: dict, config: JudgeConfig) -> Task:
    """The task for a program and its problem's `test_cases` (contract 4)."""
    if problem := wrong_in(cases):
        raise BadInput(problem)
    limit = float(cases.get("time_limit") or config.run_timeout)
    memory = int((cases.get("memory_limit_mb") or config.memory_limit_mb) * (1 << 20))
    if cases["type"] == "codecontests":
        tests = cases["tests"]
        longest = max(len(t["output"]) for t in tests)
        return Task(
            program, "stdin", len(tests), limit, memory, inputs=[t["input"] for t in tests], longest_output=longest
        )
    entry = cases["entry_point"]
    if cases["type"] == "humaneval":
        sources, setup = [f"{cases['test_code']}\n\ncheck({entry})\n"], ""
    else:
        sources, setup = list(cases["test_list"]), cases.get("test_setup_code") or ""
    guarded, modules = zip(*map(_guard, sources), strict=True)
    names = sorted(set().union(*modules))
    return Task(
        program,
        "assert",
        len(sources),
        limit,
        memory,
        setup=setup,
        tests=list(guarded),
        entry_point=entry,
        modules=names,
    )


class _Guard(ast.NodeTransformer):
    """Wrap both sides of every comparison of the test code in `__plain__`, which refuses what compares as it likes."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        sides = [node.left, *node.comparators]
        guarded: list[ast.expr] = [
            n if isinstance(n, ast.Constant) else ast.Call(ast.Name("__plain__", ast.Load()), [n], []) for n in sides
        ]
        node.left, *node.comparators = guarded
        return node


def _guard(source: str) -> tuple[str, set[str]]:
    """(test code with guarded comparisons, modules of the standard library that it names). Unparsable code stays as it
    is."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return source, set()  # its compilation in the sandbox will say what is wrong, as the judge's failure
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return ast.unparse(ast.fix_missing_locations(_Guard().visit(tree))), names & sys.stdlib_module_names


# ---------------------------------------------------------------------------------------------------------- verdicts
async def _verdict(backend: Any, task: Task, cases: dict, mode: str) -> Verdict:
    """Run a task and put its tests together: worst error first, all or nothing for `accepted` (contract 6)."""
    verdict = Verdict("success", tests_total=task.count)
    expected = [t["output"] for t in cases["tests"]] if task.kind == "stdin" else []
    worst = len(MODEL_ERRORS)
    try:
        async with contextlib.aclosing(backend.run(task)) as runs:
            async for run in runs:
                index = verdict.tests_run
                want = expected[index].encode("utf-8", "surrogatepass") if expected else b""
                if not run.verdict:
                    run.verdict = "success" if same_output(want, run.output, mode) else "wrong_answer"
                verdict.tests_run += 1
                verdict.tests_passed += run.verdict == "success"
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
    verdict.test_verdicts += ["not_run"] * (task.count - verdict.tests_run)
    verdict.pass_ratio = verdict.tests_passed / task.count
    verdict.accepted = verdict.tests_passed == task.count
    return verdict


def _case(index: int, run: TestRun, want: bytes, task: Task) -> dict[str, Any]:
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


class Judge:
    """What `open_judge` yields."""

    def __init__(self, config: JudgeConfig, backend: Any):
        self.config, self.backend = config, backend
        self.judged: dict[bytes, asyncio.Future[Verdict]] = {}

    @property
    def info(self) -> dict[str, Any]:
        """What goes into run.json: settings, what the backend is, and how many sandboxes were lost until now (0 is the
        only good figure)."""
        return {
            "judge": self.config.judge,
            "compare": self.config.compare,
            "workers": self.config.parallel,
            "run_timeout": self.config.run_timeout,
            "memory_limit_mb": self.config.memory_limit_mb,
            **self.backend.info,
            "lost_sandboxes": self.backend.lost,
        }

    async def judge(self, program: str, test_cases: dict) -> Verdict:
        """The verdict on a program; waits for a worker. The same program on the same tests is run once."""
        total = len(test_cases.get("tests") or test_cases.get("test_list") or [None])
        if not program.strip():
            return Verdict("empty_output", tests_total=total, detail="the answer holds no code")
        task = make_task(program, test_cases, self.config)
        key = await asyncio.to_thread(_key, task, test_cases)
        known = self.judged.get(key)
        if known is None or known.cancelled():
            known = self.judged[key] = asyncio.ensure_future(
                _verdict(self.backend, task, test_cases, self.config.compare)
            )
            if len(self.judged) > REMEMBERED:
                del self.judged[next(iter(self.judged))]
        verdict = await asyncio.shield(known)
        if verdict.error_type == "sandbox_error":
            self.judged.pop(key, None)
        return replace(verdict, test_verdicts=list(verdict.test_verdicts))


def _key(task: Task, cases: dict) -> bytes:
    """Digest of a program with its tests, piecewise: the tests of one problem may be gigabytes."""
    digest = hashlib.blake2b(digest_size=16)
    parts = [task.program, json.dumps({k: v for k, v in cases.items() if k != "tests"}, sort_keys=True)]
    for part in parts:
        digest.update(b"%d:" % len(part) + part.encode("utf-8", "surrogatepass"))
    for test in cases.get("tests", ()):
        for part in (test["input"], test["output"]):
            digest.update(b"%d:" % len(part))
            digest.update(part.encode("utf-8", "surrogatepass"))
    return digest.digest()


@contextlib.asynccontextmanager
async def open_judge(config: JudgeConfig) -> AsyncIterator[Judge]:
    """A judge to `await judge(program, test_cases)` on; closed on leaving, with every process it started."""
    if config.compare not in MODES:
        raise BadInput(f"--compare {config.compare}: expected one of {', '.join(MODES)}")
    if config.judge == "sandbox_fusion":
        from phase1.judge.sandbox_fusion import FusionSandbox

        backend: Any = FusionSandbox(config.sandbox_urls, config.parallel)
    else:
        backend = LocalSandbox(config.parallel, config.unsafe)
    try:
        await backend.open()
        if config.judge == "local":
            leaks = await probe(backend)
            backend.info |= {
                "probes": {name: not seen for name, seen in leaks.items()},
                "leaks": {n: s for n, s in leaks.items() if s},
            }
            if not config.unsafe and (failed := [n for n in ESSENTIAL if leaks[n]]):
                raise BadInput(
                    f"the sandbox here does not hold: {failed[0]} ({leaks[failed[0]][:200]}); "
                    "see python -m phase1.judge --probe, or judge with --judge sandbox_fusion or, knowing the "
                    "risk, --unsafe"
                )
        yield Judge(config, backend)
    finally:
        await backend.close()


def judge_all(items: Iterable[tuple[str, str, dict]], config: JudgeConfig) -> Iterator[tuple[str, Verdict]]:
    """(key, program, test_cases) in, (key, verdict) out as they finish; takes items only as fast as it judges them."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        judge = runner.run(stack.enter_async_context(open_judge(config)))
        try:
            todo, running = iter(items), dict[asyncio.Task[Verdict], str]()
            while True:
                while len(running) < 2 * config.parallel and (item := next(todo, None)) is not None:
                    key, program, cases = item

                    async def start(program: str = program, cases: dict = cases) -> asyncio.Task[Verdict]:
                        return asyncio.ensure_future(judge.judge(program, cases))

                    running[runner.run(start())] = key
                if not running:
                    break
                done, _ = runner.run(asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED))
                for finished in done:
                    yield running.pop(finished), finished.result()
        finally:
            runner.run(stack.aclose())


# ------------------------------------------------------------------------------------------------------ command line
def add_judge_arguments(parser: argparse._ActionsContainer, answers: bool = True) -> None:
    """The judge's flags, the same in every script that judges. `answers`: it takes programs from a model's answers."""
    parser.add_argument("--judge", choices=("local", "sandbox_fusion"), default="local", help="where programs run")
    parser.add_argument("--compare", choices=MODES, default="tokens", help="rule for outputs (phase1/judge/compare.py)")
    parser.add_argument(
        "--workers", type=int, default=0, help="programs judged at a time; 0: all cores less --reserve_cores"
    )
    parser.add_argument("--reserve_cores", type=int, default=0, help="cores left to others, such as vLLM")
    parser.add_argument(
        "--run_timeout", type=float, default=30.0, help="CPU seconds a test; a problem's time_limit goes first"
    )
    parser.add_argument(
        "--memory_limit_mb", type=int, default=1024, help="MiB a test; a problem's memory_limit_mb goes first"
    )
    parser.add_argument(
        "--sandbox_url", action="append", default=[], metavar="URL", help="a SandboxFusion server; repeatable"
    )
    parser.set_defaults(extraction="contract")
    if answers:
        parser.add_argument(
            "--extraction",
            choices=EXTRACTIONS,
            default="contract",
            help="which program of an answer is measured (docs/judge.md)",
        )
    parser.add_argument("--unsafe", action="store_true", help="judge even where isolation does not hold")


def config_from(args: argparse.Namespace) -> JudgeConfig:
    """The JudgeConfig of parsed `add_judge_arguments`."""
    if not 0 < args.run_timeout < 1e9 or args.memory_limit_mb <= 0 or args.workers < 0 or args.reserve_cores < 0:
        raise BadInput(
            "--run_timeout and --memory_limit_mb must be positive, --workers and --reserve_cores not negative"
        )
    return JudgeConfig(
        args.judge,
        args.compare,
        args.workers,
        args.reserve_cores,
        args.run_timeout,
        args.memory_limit_mb,
        tuple(args.sandbox_url),
        args.unsafe,
        args.extraction,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--probe",
        action="store_true",
        help="try the sandbox's guarantees, print them, exit 1 where one that matters fails",
    )
    parser.add_argument("--raw", help="raw file of an evaluation set: problems with their tests (.jsonl or .jsonl.gz)")
    parser.add_argument("--solutions", help="a line a solution: {problem_id, code} or {problem_id, completion}")
    parser.add_argument("--out", help="where to write the verdicts, a line each; OUT.run.json says how they were made")
    add_judge_arguments(parser)
    args = parser.parse_args()
    config = config_from(args)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds as Ctrl-C does, so that no temporary file stays
    if args.probe:
        return asyncio.run(print_probes(config))
    if not (args.raw and args.solutions and args.out):
        raise BadInput("give --raw, --solutions and --out, or --probe")
    return judge_file(args, config)


async def print_probes(config: JudgeConfig) -> int:
    """Open the judge without asking more of it than --unsafe does, and print what its probes saw."""
    async with open_judge(replace(config, unsafe=True)) as judge:
        info = judge.info
    if config.judge != "local":
        print(
            f"mode         {info['mode']}: {info['healthy']} of {len(config.sandbox_urls)} servers run "
            "programs; what they isolate cannot be tried from here"
        )
        return 0
    interpreter = info.get("interpreter", {})
    print(f"mode         {info['mode']}\ninterpreter  {interpreter.get('version')} {interpreter.get('path')}")
    print("packages     " + (", ".join(f"{k} {v}" for k, v in info.get("packages", {}).items()) or "none") + "\n")
    for name, held in info.get("probes", {}).items():
        print(
            f"{name:16} {'holds' if held else 'FAILS'}  {MEANING[name]}"
            + (f": {info['leaks'][name]}" if not held else "")
        )
    failed = [name for name in ESSENTIAL if not info.get("probes", {}).get(name)]
    return 0 if config.unsafe or not failed else 1


def judge_file(args: argparse.Namespace, config: JudgeConfig) -> int:
    """Judge a file of solutions; verdicts in the order of the solutions, the file written whole or not at all."""
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)  # before hours of judging, not after
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise BadInput(
            f"{out}: {'is a directory' if out.is_dir() else 'its folder cannot be written to'}; give --out a file"
        )
    problems = read_raw(args.raw)
    items, rows, verdicts = [], {}, {}
    for number, row in read_jsonl(args.solutions):
        key, where, problem = str(number), f"{args.solutions}:{number}", problems.get(str(row.get("problem_id")))
        if problem is None:
            raise BadInput(f"{where}: problem_id {row.get('problem_id')!r} is not in {args.raw}")
        rows[key] = {"problem_id": problem.problem_id, **({"sample": row["sample"]} if "sample" in row else {})}
        if (
            row.get("finish_reason") in NO_ANSWER
        ):  # a line of an evaluation whose generation failed: nothing to blame on a program
            verdicts[key] = Verdict("api_error", detail=str(row.get("error") or ""))
            continue
        if isinstance(row.get("completion"), str):
            code = program_of(row["completion"], config.extraction)
        elif isinstance(row.get("code"), str):
            code = row["code"]
        else:
            raise BadInput(f"{where}: needs `code` or `completion`, a string")
        items.append((key, problem.program(code), problem.test_cases))
    if not rows:
        raise BadInput(
            f"{args.solutions}: holds no solution; expected a line each, {{problem_id, code}} or {{problem_id, "
            f"completion}}"
        )
    started = time.time()
    with tqdm(total=len(items), unit="program", disable=None) as bar:
        for key, verdict in judge_all(items, config):
            verdicts[key] = verdict
            bar.update()
    with replacing(args.out) as temp, open(temp, "w", encoding="ascii") as f:
        for key, row in rows.items():
            f.write(json.dumps(finite({**row, **asdict(verdicts[key])}), allow_nan=False) + "\n")
    counts = Counter(v.error_type for v in verdicts.values())
    accepted = sum(v.accepted for v in verdicts.values())
    write_json(
        f"{args.out}.run.json",
        {"stamp": run_stamp(vars(args)), "verdicts": counts, "accepted": accepted, "seconds": time.time() - started},
    )
    print(
        f"{accepted} of {len(rows)} accepted; "
        + ", ".join(f"{n} {k}" for k, n in counts.most_common())
        + f"; {args.out}"
    )
    return 1 if counts["sandbox_error"] else 0
