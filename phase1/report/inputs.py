"""What the report reads: both phases' evaluations, whether they are comparable, training logs, checkpoint curves.

Phase 0 may be as the original project wrote it (metrics.json with summary.json beside it, nothing else) or an
evaluation of this toolkit (run.json and results/{dataset}.jsonl too); what is there decides what can be said.
"""

from __future__ import annotations

import glob
import json
import math
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from phase1.contract.extraction import UNRECORDED
from phase1.contract.problems import EVAL_SETS
from phase1.contract.prompts import SYSTEM_PROMPT, extract_code
from phase1.contract.records import Record, read_records
from phase1.evaluate.metrics import dataset_summary
from phase1.files import BadInput, read_json
from phase1.report.text import shown

MISMATCH, UNCHECKED, NOTE = "mismatch", "unchecked", "note"
NUMBER, TEXT = ((int, float), "a number"), (str, "a text")
RECORD_FIELDS: dict[str, tuple[Any, str]] = {  # what the report computes with or shows
    "problem_id": TEXT,
    "prompt": TEXT,
    "prompt_sha256": TEXT,
    "completion": TEXT,
    "code": TEXT,
    "error_type": TEXT,
    "detail": TEXT,
    "accepted": (bool, "true or false"),
    "pass_ratio": NUMBER,
    "gen_tokens": NUMBER,
    "judge_time": NUMBER,
    "gen_time": NUMBER,
    "started": NUMBER,
    "finished": NUMBER,
    "first_failed_case": ((dict, type(None)), "an object or null"),
    "form": TEXT,
    "rule": TEXT,
    "other": ((dict, type(None)), "an object or null"),
}
SHARES = re.compile(r"^(accepted_at_1|exec_success_rate|pass_ratio_\w+|\w+_rate)$")  # values between 0 and 1


@dataclass
class DatasetResult:
    """One data set of one phase. `values`: summary.json overlaid with metrics.json; `records` by problem id, or
    empty."""

    dataset: str
    source: Path
    values: dict[str, float | None]
    records: dict[str, Record] = field(default_factory=dict)
    run: dict[str, Any] | None = None

    @property
    def n(self) -> int | None:
        total = self.values.get("total_problems")
        return int(total) if total else (len(self.records) or None)


def value_of(result: DatasetResult | None, metric: str) -> float | None:
    return result.values.get(metric) if result else None


@dataclass
class Side:
    """One phase: its data sets, and what had to be decided while reading."""

    label: str
    datasets: dict[str, DatasetResult] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def sources(self) -> list[str]:
        """One line a file that was read: its data sets, and the model and step where run.json says them."""
        lines: dict[Path, tuple[str, list[str]]] = {}
        for name, d in self.datasets.items():
            model = (d.run or {}).get("model") or {}
            step = f", step {model['step']}" if model.get("step") is not None else ""
            what = f"model {model.get('path')}{step}" if model else "model not recorded"
            lines.setdefault(d.source, (what, []))[1].append(name)
        return [f"{self.label}: {source} ({what}): {', '.join(names)}" for source, (what, names) in lines.items()]


@dataclass(frozen=True)
class Finding:
    """One result of the comparability check; `kind` is MISMATCH (red, exit 1), UNCHECKED or NOTE."""

    kind: str
    text: str


# ---------------------------------------------------------------------------------------------------------- reading
def read_side(label: str, files: Sequence[str | Path]) -> Side:
    """Read the evaluations that `files` (metrics.json, or globs of them) stand for; the newest a data set wins."""
    side = Side(label)
    for path in sorted(_expand(files), key=_age):
        run = _run(path.parent / "run.json")
        metrics = _object(path)
        summary: dict[str, Any] = {}
        if (path.parent / "summary.json").exists():
            summary = _object(path.parent / "summary.json").get("datasets") or {}
            if not isinstance(summary, dict):
                raise BadInput(
                    f"{path.parent / 'summary.json'}: datasets is a JSON {type(summary).__name__}, expected an object"
                )
        else:
            side.notes.append(
                f"{label}: no summary.json beside {path}, so exec_success_rate and the error rates are missing"
            )
        for dataset in dict.fromkeys([*metrics, *summary]):
            if not _is_dataset(dataset, metrics.get(dataset), summary.get(dataset)):
                side.notes.append(f"{label}: {dataset} in {path} is no data set and left out")
                continue
            values = {
                **_values(path.parent / "summary.json", dataset, summary.get(dataset)),
                **_values(path, dataset, metrics.get(dataset)),
            }
            if not values:
                side.notes.append(f"{label}: {dataset} is empty in {path} and left out")
                continue
            if dataset in side.datasets:
                older = side.datasets[dataset].source
                side.notes.append(
                    f"{label}: {dataset} stands in several files; taken from {path}, the newest, not from {older}"
                )
            records = _records(path.parent / "results" / f"{dataset}.jsonl")
            side.datasets[dataset] = DatasetResult(dataset, path, values, records, run)
    if not side.datasets:
        raise BadInput(f"{', '.join(map(str, files))}: holds no data set; give the metrics.json of an evaluation")
    return side


def _expand(files: Sequence[str | Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for f in files:
        matches = [str(f)] if Path(f).exists() else sorted(glob.glob(str(f)))
        if not matches:
            raise BadInput(f"{f}: no such file; give the metrics.json that an evaluation wrote")
        for m in matches:
            path = Path(m)
            found[path / "metrics.json" if path.is_dir() else path] = None
    return list(found)


def _age(path: Path) -> tuple[float, str]:
    """When an evaluation ended: by its run.json where there is one, else by the file's own time."""
    try:
        finished = json.loads((path.parent / "run.json").read_text())["finished"]
        return datetime.fromisoformat(finished).astimezone(UTC).timestamp(), str(path)
    except (OSError, ValueError, KeyError, TypeError):
        return (path.stat().st_mtime if path.exists() else 0.0), str(path)


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise BadInput(
            f"{path}: a JSON {type(value).__name__}, expected an object; give the file that an evaluation wrote"
        )
    return value


def _run(path: Path) -> dict[str, Any] | None:
    """run.json, None where there is none; its groups are objects or missing."""
    run = _object(path) if path.exists() else None
    for key in ("model", "sampling", "judge", "datasets", "sandbox", "stamp"):
        if run and not isinstance(run.get(key) or {}, dict):
            raise BadInput(
                f"{path}: {key} is a JSON {type(run[key]).__name__}, expected an object; give the file that an "
                "evaluation wrote"
            )
    return run


def _is_dataset(name: str, *entries: Any) -> bool:
    """Whether a top-level entry is a data set: one of the contract's by name, or what has the metrics of one."""
    return (
        name in EVAL_SETS
        or all(e is None for e in entries)
        or any(isinstance(e, dict) and "accepted_at_1" in e for e in entries)
    )


def _values(path: Path, dataset: str, entry: Any) -> dict[str, float | None]:
    """The known numbers of one data set's entry; nulls and NaN are left out, other keys ignored."""
    if entry is None:
        return {}
    if not isinstance(entry, dict):
        raise BadInput(f"{path}: {dataset} is a JSON {type(entry).__name__}, expected an object of metrics")
    values: dict[str, float | None] = {}
    for key, value in entry.items():
        if isinstance(value, int) and abs(value) > 1e15:
            raise BadInput(
                f"{path}: {dataset}.{key} has {len(str(abs(value)))} digits, expected a number that was measured"
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            if isinstance(value, str) and (SHARES.match(key) or key.startswith(("avg_", "total_", "cost_"))):
                raise BadInput(f"{path}: {dataset}.{key} is {value!r}, expected a number")
            continue
        if SHARES.match(key) and math.isfinite(value) and not 0 <= value <= 1:
            raise BadInput(f"{path}: {dataset}.{key} is {value}, expected a share between 0 and 1 (0.872, not 87.2)")
        if math.isfinite(value):
            values[key] = value
    return values


def _records(path: Path) -> dict[str, Record]:
    """The last record of each problem, first samples only; BadInput for one that cannot be compared."""
    records = {}
    for r in read_records(path):
        if not isinstance(r, Record) or r.sample != 0:
            continue
        for name, (kinds, what) in RECORD_FIELDS.items():
            value = getattr(r, name)
            if not isinstance(value, kinds) or (isinstance(value, float) and not math.isfinite(value)):
                raise BadInput(
                    f"{path}: record of {shown(r.problem_id, 80)}: {name} is {shown(repr(value), 80)}, "
                    f"expected {what}; delete its line and evaluate again"
                )
        records[r.problem_id] = r
    return records


# ---------------------------------------------------------------------------------------------------- comparability
def comparability(phase0: Side, phase1: Side) -> list[Finding]:
    """Whether the two phases measured the same thing: prompts, sampling, problems, judge, versions (contract 5)."""
    found: dict[str, list[str]] = {}  # text -> data sets, so that a difference of the whole run is said once

    def say(kind: str, text: str, dataset: str) -> None:
        found.setdefault(f"{kind}\0{text}", []).append(dataset)

    for dataset in phase1.datasets:
        if dataset not in phase0.datasets:
            say(NOTE, f"{phase0.label} has no result, so nothing is compared", dataset)
            continue
        a, b = phase0.datasets[dataset], phase1.datasets[dataset]
        for side, result in ((phase0, a), (phase1, b)):
            if result.run is None:
                say(
                    UNCHECKED,
                    (
                        f"{side.label} has no run.json beside {result.source}: its prompts, sampling, judge and "
                        "versions cannot be checked"
                    ),
                    dataset,
                )
            elif result.run.get("status") != "complete":
                say(
                    MISMATCH,
                    (
                        f"{side.label}: the evaluation is {result.run.get('status') or 'of unknown status'}, not "
                        "complete; finish it"
                    ),
                    dataset,
                )
            for text in _stale(result):
                say(MISMATCH, f"{side.label}: {text}", dataset)
        if a.n and b.n and a.n != b.n:
            say(MISMATCH, f"number of problems differs: {a.n} in Phase 0, {b.n} in Phase 1", dataset)
        elif b.n and dataset in EVAL_SETS and b.n != EVAL_SETS[dataset].size:
            say(NOTE, f"{b.n} of the {EVAL_SETS[dataset].size} problems that the contract names", dataset)
        for kind, text in [*_differing_records(a, b), *(_differing_runs(a, b) if a.run and b.run else ())]:
            say(kind, text, dataset)
        if not any(dataset in sets for text, sets in found.items() if not text.startswith(NOTE)):
            say(NOTE, "prompts, sampling, problems, judge settings and vLLM version are equal in both phases", dataset)
    for dataset in (d for d in phase0.datasets if d not in phase1.datasets):
        say(NOTE, f"{phase1.label} has no result, so nothing is compared", dataset)
    order = {MISMATCH: 0, UNCHECKED: 1, NOTE: 2}
    findings = [Finding(k.split("\0")[0], f"{', '.join(ds)}: {k.split(chr(0))[1]}") for k, ds in found.items()]
    return sorted(findings, key=lambda f: order[f.kind])


def _differing_runs(a: DatasetResult, b: DatasetResult) -> list[tuple[str, str]]:
    run0, run1, found = a.run or {}, b.run or {}, []

    def differ(what: str, x: Any, y: Any, kind: str = MISMATCH) -> None:
        if x is None or y is None:
            if x is not y:
                found.append((UNCHECKED, f"{what} is recorded on one side only ({x!r}, {y!r})"))
        elif x != y:
            found.append((kind, f"{what} differs: {_short(x)} in Phase 0, {_short(y)} in Phase 1"))

    differ("prompts_sha256 (system prompt, user templates)", run0.get("prompts_sha256"), run1.get("prompts_sha256"))
    for group in ("sampling", "judge"):
        unrecorded = UNRECORDED if group == "judge" else {}
        x, y = (unrecorded | r[group] if r.get(group) else {} for r in (run0, run1))
        for key in dict.fromkeys([*x, *y]):
            differ(f"{group}.{key}", x.get(key), y.get(key))
    data0, data1 = ((r.get("datasets") or {}).get(a.dataset) or {} for r in (run0, run1))
    differ("problems_sha256 (statements and tests)", data0.get("problems_sha256"), data1.get("problems_sha256"))
    same_problems = data0.get("problems_sha256") == data1.get("problems_sha256")
    differ(
        "manifest_sha256",
        data0.get("manifest_sha256"),
        data1.get("manifest_sha256"),
        NOTE if same_problems else MISMATCH,
    )
    versions0, versions1 = ((r.get("stamp") or {}).get("versions") or {} for r in (run0, run1))
    by_vllm = any("vllm" in str((r.get("sampling") or {}).get("backend", "vllm")) for r in (run0, run1))
    if by_vllm:  # scores move between vLLM versions (vllm#42801)
        differ("vLLM version", versions0.get("vllm"), versions1.get("vllm"))
    for package in ("torch", "transformers", "python"):
        differ(f"{package} version", versions0.get(package), versions1.get(package), NOTE)
    differ("sandbox mode", (run0.get("sandbox") or {}).get("mode"), (run1.get("sandbox") or {}).get("mode"), NOTE)
    model0, model1 = ((r.get("model") or {}).get("fingerprint") for r in (run0, run1))
    if model0 and model0 == model1:
        found.append((NOTE, "both phases evaluate the same model (equal fingerprints)"))
    return found


def _differing_records(a: DatasetResult, b: DatasetResult) -> list[tuple[str, str]]:
    if not a.records or not b.records:
        return []
    found, common = [], a.records.keys() & b.records.keys()
    if len(common) < max(len(a.records), len(b.records)):
        only0, only1 = len(a.records) - len(common), len(b.records) - len(common)
        found.append(
            (
                MISMATCH,
                (
                    f"problem ids differ: {only0} only in Phase 0, {only1} only in Phase 1; paired tests use the "
                    f"{len(common)} in common"
                ),
            )
        )
    asked = sum(a.records[i].prompt_sha256 != b.records[i].prompt_sha256 for i in common)
    if asked:
        found.append((MISMATCH, f"{asked} of {len(common)} problems were asked in other words (prompt_sha256 differs)"))
    return found


def _stale(result: DatasetResult) -> list[str]:
    """Where metrics.json does not say what the records beside it say."""
    if not result.records:
        return []
    counted = dataset_summary(list(result.records.values()))
    for key in ("total_problems", "accepted_at_1", "exec_success_rate", "pass_ratio_mean"):
        said = result.values.get(key)
        if said is not None and not math.isclose(said, counted[key], abs_tol=1e-6):
            return [
                (
                    f"{result.source} says {key} {said:g}, the records beside it {counted[key]:g}; evaluate again "
                    "to derive it anew"
                )
            ]
    return []


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] + "…" if re.fullmatch(r"[0-9a-f]{40,}", text) else repr(value) if isinstance(value, str) else text


# --------------------------------------------------------------------------------------- training and checkpoints
def read_checkpoints(outputs: Path) -> tuple[list[tuple[int, dict[str, dict]]], list[str]]:
    """(step, summary by data set) of every eval_step_N under `outputs`, and what could not be read."""
    found, notes = [], []
    for path in outputs.glob("eval_step_*/summary.json"):
        try:
            if _object(path.with_name("run.json")).get("status") != "complete":
                continue
            step, datasets = int(path.parent.name.removeprefix("eval_step_")), _object(path)["datasets"]
            found.append((step, {d: v for d, v in datasets.items() if isinstance(v, dict)}))
        except (BadInput, ValueError, KeyError, AttributeError) as e:
            notes.append(f"checkpoint curves leave out {path}: {e}")
    return sorted(found, key=lambda c: c[0]), notes


def check_train_data(path: Path, sample: int = 2000, seed: int = 42) -> dict[str, Any]:
    """What the training rows look like, on a seeded sample: do they compile, do they have the form evaluation asks for?

    Returns {rows, sampled, compiled, not_compiling, other_system_prompt, without_code_tag, first_error, compiler_died};
    `compiled` is `sampled` unless a row ended Python's compiler, which `compiler_died` then says.
    """
    import pyarrow
    import pyarrow.parquet as pq

    try:
        column = pq.read_table(path, columns=["messages"])["messages"]
    except (OSError, KeyError, pyarrow.ArrowException) as e:
        raise BadInput(
            f"{path}: {str(e).splitlines()[0]}; give the sft_train.parquet that prepare_sft_data.py wrote"
        ) from None
    picked = sorted(random.Random(seed).sample(range(len(column)), min(sample, len(column))))
    counts: Counter[str] = Counter()
    programs = []
    for i in picked:
        try:
            said = {
                t["role"]: t["content"] for t in reversed(column[i].as_py())
            }  # of two turns of a role the first counts
            reply = said.get("assistant", "")
            counts["other_system_prompt"] += said.get("system") != SYSTEM_PROMPT
            counts["without_code_tag"] += "<code>" not in reply.lower()
            programs.append(extract_code(reply))
        except (TypeError, KeyError, AttributeError):
            raise BadInput(
                f"{path}: row {i + 1}: messages is no list of role and content texts; give the "
                "sft_train.parquet that prepare_sft_data.py wrote"
            ) from None
    results, died = _compile_apart(programs)
    if died and len(results) < len(picked):
        row, left = picked[len(results)] + 1, len(picked) - len(results) - 1
        died = (
            f"{path}: training row {row} ended Python's compiler ({died}): look at it and drop it; the {left} "
            "sampled rows after it were not compiled"
        )
    errors = [e for e in results if e]
    return {
        "path": str(path),
        "rows": len(column),
        "sampled": len(picked),
        "compiled": len(results),
        "not_compiling": len(errors),
        "other_system_prompt": counts["other_system_prompt"],
        "without_code_tag": counts["without_code_tag"],
        "first_error": errors[0] if errors else None,
        "compiler_died": died,
    }


_COMPILER = """
import json, sys, warnings
warnings.simplefilter("ignore")
for line in sys.stdin:
    error = None
    try:
        compile(json.loads(line), "row", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as e:
        error = f"{type(e).__name__}: {e}"
    print(json.dumps(error), flush=True)
"""


def _compile_apart(programs: Sequence[str], timeout: float = 300.0) -> tuple[list[str | None], str | None]:
    """Python's error for each program, None where it compiles, up to the one that ended the compiler, and how it ended.

    In a process of its own, since a deeply nested program can overflow the interpreter's stack.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _COMPILER],
            input="\n".join(map(json.dumps, programs)).encode(),
            capture_output=True,
            timeout=timeout,
        )
        out, code = done.stdout, done.returncode
        how = (signal.Signals(-code).name if code < 0 else f"exit code {code}") if code else None
    except subprocess.TimeoutExpired as e:
        out, how = e.stdout or b"", f"no answer within {timeout:.0f} s"
    return [json.loads(line) for line in out.split(b"\n")[:-1]], how
