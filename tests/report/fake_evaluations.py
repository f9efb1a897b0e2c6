"""Evaluation folders for the report's tests, written through phase1.contract.records and phase1.evaluate.metrics so
that the formats stay real."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field, replace
from pathlib import Path

from phase1.contract.records import Record, RecordLog
from phase1.contract.state.evaluation_run import Behaviour
from phase1.evaluate.metrics import write_metrics
from phase1.evaluate.qa import write_qa_logs
from phase1.files import sha256_text, write_json

SIZES = {
    "codecontests_valid": 117,
    "mbpp_reg": 200,
    "codecontests_valid_big": 500,
    "codecontests_test": 165,
    "humaneval": 164,
}
DETAILS = {
    "runtime_error": [
        "ValueError: invalid literal for int() with base 10: '3 4'",
        "IndexError: list index out of range",
        "NameError: name 'n7' is not defined",
        "EOFError: EOF when reading a line",
    ],
    "syntax_error": ["SyntaxError: invalid syntax", "IndentationError: unexpected indent"],
    "timeout": ["CPU time 30 s"],
}

# Shares of success, wrong_answer, timeout, runtime_error, syntax_error: the contract's section 8, and after a good SFT.
PHASE0 = {
    "codecontests_valid": (0.017, 0.641, 0.094, 0.239, 0.009),
    "codecontests_valid_big": (0.092, 0.578, 0.062, 0.262, 0.006),
    "codecontests_test": (0.03, 0.57, 0.067, 0.327, 0.006),
    "humaneval": (0.872, 0.104, 0.0, 0.024, 0.0),
    "mbpp_reg": (0.585, 0.405, 0.0, 0.01, 0.0),
}
IMPROVED = {
    "codecontests_valid": (0.06, 0.85, 0.03, 0.05, 0.01),
    "codecontests_valid_big": (0.14, 0.77, 0.03, 0.055, 0.005),
    "codecontests_test": (0.06, 0.80, 0.04, 0.095, 0.005),
    "humaneval": (0.872, 0.104, 0.0, 0.024, 0.0),
    "mbpp_reg": (0.59, 0.40, 0.0, 0.01, 0.0),
}
WORSE = {
    "codecontests_valid": (0.0, 0.40, 0.10, 0.30, 0.20),
    "codecontests_valid_big": (0.02, 0.40, 0.08, 0.30, 0.20),
    "codecontests_test": (0.0, 0.40, 0.10, 0.30, 0.20),
    "humaneval": (0.55, 0.20, 0.0, 0.15, 0.10),
    "mbpp_reg": (0.40, 0.30, 0.0, 0.20, 0.10),
}
TYPES = ("success", "wrong_answer", "timeout", "runtime_error", "syntax_error")


@dataclass
class Fake:
    """One evaluation to write: `rates` as in PHASE0, `sizes` problems a data set."""

    rates: dict[str, tuple[float, ...]]
    sizes: dict[str, int] = field(default_factory=lambda: dict(SIZES))
    seed: int = 0
    noise: float = 0.03  # how much of a problem's place in the order of difficulty is the model's own
    step: int | None = None
    run: dict = field(default_factory=dict)  # overlaid on run.json
    text: str = ""  # appended to prompts, programs and details


def write_evaluation(directory: Path, fake: Fake) -> dict[str, list[Record]]:
    """Write run.json, results/, metrics.json, summary.json and qa_logs/; returns the records."""
    records = {name: [_record(fake, name, i, size) for i in range(size)] for name, size in fake.sizes.items()}
    write_records(directory, fake, records)
    return records


def write_sampled(directory: Path, fake: Fake, samples: int) -> dict[str, list[Record]]:
    """The same of several answers a problem: as hard as its place in the order, each with noise of its own."""
    drawn = [replace(fake, seed=1000 * fake.seed + s) for s in range(samples)]
    records = {
        name: [replace(_record(one, name, i, size), sample=s) for i in range(size) for s, one in enumerate(drawn)]
        for name, size in fake.sizes.items()
    }
    sampling = {"temperature": 0.8, "top_p": 1.0, "n_samples": samples, "backend": "vllm"}
    write_records(directory, replace(fake, run={"sampling": sampling} | fake.run), records)
    return records


def write_records(directory: Path, fake: Fake, records: dict[str, list[Record]]) -> None:
    """The same of records that are given; of `fake` count step, seed, run and sizes."""
    for name, rows in records.items():
        log = RecordLog(directory / "results" / f"{name}.jsonl")
        for r in rows:
            log.append(r)
        log.close()
    write_metrics(directory, records)
    write_qa_logs(directory, records, extra={"step": fake.step, "checkpoint": directory.name, "model": "model"})
    run = {
        "status": "complete",
        "model": {"path": "model", "step": fake.step, "fingerprint": f"f{fake.seed}{fake.step}"},
        "prompts_sha256": "a" * 64,
        "sampling": {
            "temperature": 0.0,
            "top_p": 1.0,
            "top_k": -1,
            "repetition_penalty": 1.0,
            "max_new_tokens": 2048,
            "max_model_len": 6144,
            "dtype": "bfloat16",
            "backend": "vllm",
        },
        "judge": {"judge": "local", "compare": "tokens", "run_timeout": 30.0, "memory_limit_mb": 1024},
        "datasets": {
            d: {"manifest_sha256": "b" * 64, "problems_sha256": "c" * 64, "problems": n} for d, n in fake.sizes.items()
        },
        "behaviour": dict.fromkeys(Behaviour.model_fields, "d" * 64),
        "stamp": {"versions": {"vllm": "0.12.0", "torch": "2.9.0", "python": "3.11.9"}},
        "sessions": [{"started": "1970-01-01T00:16:00+00:00"}],
        "finished": "1970-01-01T01:16:00+00:00",
    }
    write_json(directory / "run.json", run | fake.run)


def _record(fake: Fake, dataset: str, i: int, size: int) -> Record:
    # The same problem is as hard in both phases: its place in the order of difficulty is drawn from its name alone, and
    # only a little noise is the model's.
    hardness = random.Random(f"{dataset}:{i}").random()
    rng = random.Random(f"{fake.seed}:{dataset}:{i}")
    place, kind = min(0.999, max(0.0, hardness + rng.gauss(0, fake.noise))), TYPES[-1]
    for t, share in zip(TYPES, fake.rates[dataset], strict=True):
        if place < share:
            kind = t
            break
        place -= share
    tests = 1 if dataset == "humaneval" else 3 if dataset == "mbpp_reg" else 20
    passed = tests if kind == "success" else 0 if kind == "syntax_error" or tests == 1 else rng.randrange(tests)
    pace = 0.1 + 0.01 * fake.seed
    prompt = f"{dataset} problem {i}: read n and print it.\n\nInput\n3\n\nOutput\n3{fake.text}"
    code = f"n = int(input())  # seed {fake.seed}\nprint(n + {rng.randrange(9)}){fake.text}"
    failed = (
        None
        if kind in ("success", "syntax_error")
        else {
            "index": passed,
            "verdict": kind,
            "detail": "",
            "cpu": 0.01,
            "wall": 0.012,
            "peak_rss": 9_000_000,
            "input": "3\n",
            "expected": "3\n",
            "output": f"4\n{fake.text}",
            "stderr": "",
        }
    )
    detail = rng.choice(DETAILS[kind]) + fake.text if kind in DETAILS else ""
    return Record(
        dataset=dataset,
        problem_id=f"{dataset}/{i}",
        prompt=prompt,
        prompt_sha256=sha256_text(prompt),
        completion=f"<code>\n{code}\n</code>",
        finish_reason="length" if rng.random() < 0.01 else "stop",
        prompt_tokens=200,
        gen_tokens=int(rng.lognormvariate(5.3, 0.6)),
        gen_time=rng.random(),
        started=1000.0 + i * pace,
        session=0,
        code=code,
        error_type=kind,
        accepted=kind == "success",
        pass_ratio=passed / tests,
        tests_total=tests,
        tests_run=0 if kind == "syntax_error" else tests,
        tests_passed=passed,
        judge_time=rng.lognormvariate(0, 1),
        detail=detail,
        test_verdicts=_verdicts(kind, passed, tests),
        first_failed_case=failed,
        finished=1003.0 + i * pace,
        tests_silent=0 if dataset.startswith("codecontests") and kind != "syntax_error" else None,
        tests_unread=0 if dataset.startswith("codecontests") and kind != "syntax_error" else None,
    )


def write_silent_case(directory: Path) -> dict[str, Path]:
    """The folders of a base model and of one that learned to print nothing, on 20 problems with 2,233 tests.

    Counts are those of a real 0.5B model after 44 steps: 10 programs ran to their end before, of which one printed
    nothing and 128 tests were passed; 18 do now, none of which prints anything, and one test is passed.
    """
    totals = [112] * 19 + [105]
    before = [_answer_of(i, totals[i], printing=i > 0, passed=(14 if i < 9 else 16) if i > 0 else 0) for i in range(10)]
    before += [_answer_of(i, totals[i], crashing=True) for i in range(10, 20)]
    now = [_answer_of(i, totals[i], printing=False) for i in range(18)]
    now += [_answer_of(18, totals[18], passed=1, crashing=True), _answer_of(19, totals[19], crashing=True)]
    folders = {"base": directory / "phase0", "sft": directory / "eval_step_44"}
    for step, (name, records) in enumerate((("base", before), ("sft", now))):
        fake = Fake({}, {"codecontests_valid": 20}, seed=step, step=44 if step else None)
        write_records(folders[name], fake, {"codecontests_valid": records})
    return folders


def _answer_of(i: int, tests: int, passed: int = 0, printing: bool = True, crashing: bool = False) -> Record:
    """Of a program that passes its first tests; the others crash it, or it prints another answer, or none."""
    kind = "runtime_error" if crashing else "wrong_answer"
    code = "def solve():\n    print(1)" if not printing else "print(1)"
    return Record(
        dataset="codecontests_valid",
        problem_id=f"codecontests_valid/{i}",
        prompt="Print the answer.",
        prompt_sha256=sha256_text("Print the answer."),
        completion=f"<code>\n{code}\n</code>",
        finish_reason="stop",
        prompt_tokens=100,
        gen_tokens=20,
        gen_time=1.0,
        started=1000.0 + i,
        session=0,
        code=code,
        error_type=kind,
        pass_ratio=passed / tests,
        tests_total=tests,
        tests_run=tests,
        tests_passed=passed,
        test_verdicts=["success"] * passed + [kind] * (tests - passed),
        finished=1002.0 + i,
        tests_silent=0 if printing else tests,
    )


def _verdicts(kind: str, passed: int, tests: int) -> list[str]:
    """Of each test, in a problem that ended as `kind`."""
    return [] if kind == "syntax_error" else ["success"] * passed + [kind] * (tests - passed)


def write_original_phase0(directory: Path) -> Path:
    """The contract's section 8 in the original project's file format; returns its metrics.json."""
    table = {  # total, accepted, pass_ratio, exec, syntax, runtime, timeout, WA, tokens, judge s, problems/s
        "humaneval": (164, 0.872, 0.872, 0.976, 0.0, 0.024, 0.0, 0.104, 124.2, 0.048, 5.63),
        "mbpp_reg": (200, 0.585, 0.585, 0.99, 0.0, 0.01, 0.0, 0.405, 53.8, 0.059, 8.35),
        "codecontests_valid_big": (500, 0.092, 0.257, 0.67, 0.006, 0.262, 0.062, 0.578, 238.8, 4.75, 0.20),
        "codecontests_valid": (117, 0.017, 0.143, 0.658, 0.009, 0.239, 0.094, 0.641, 264.0, 7.69, 0.13),
        "codecontests_test": (165, 0.03, 0.138, 0.60, 0.006, 0.327, 0.067, 0.57, 273.6, 5.92, 0.16),
    }
    metrics, summary = {}, {}
    for name, (n, accepted, ratio, runs, syntax, runtime, timeout, wrong, tokens, judge, throughput) in table.items():
        metrics[name] = {
            "total_problems": n,
            "accepted_at_1": accepted,
            "pass_ratio_mean": ratio,
            "pass_ratio_p50": 0.0,
            "pass_ratio_p90": 1.0,
            "total_gen_tokens": round(tokens * n),
            "avg_gen_tokens": tokens,
            "avg_judge_time": judge,
            "total_judge_time": judge * n,
            "throughput": throughput,
            "cost_per_solved_tokens": tokens / accepted,
            "cost_per_solved_judge_time": None,
            "truncation_count": 0,
            "truncation_rate": 0.0,
            "timeout_count": round(timeout * n),
            "timeout_rate": timeout,
        }
        summary[name] = {
            "accepted_at_1": accepted,
            "pass_ratio_mean": ratio,
            "exec_success_rate": runs,
            "syntax_error_rate": syntax,
            "runtime_error_rate": runtime,
            "timeout_rate": timeout,
            "wrong_answer_rate": wrong,
            "api_error_rate": 0.0,
            "unknown_error_rate": 0.0,
            "avg_judge_time": judge,
            "avg_gen_tokens": tokens,
            "throughput": throughput,
        }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "metrics.json").write_text(json.dumps(metrics, indent=2))
    (directory / "summary.json").write_text(
        json.dumps({"datasets": summary, "overall": {"total_problems": 1146}}, indent=2)
    )
    return directory / "metrics.json"
