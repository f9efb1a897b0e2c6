"""The seed's 3.3: changes that want an explanation, their likely causes, and what the run shows of these.

A new anomaly is an entry of ANOMALIES: when it applies, and which evidence to look at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import Any

from phase1.report.escaping import markdown_text
from phase1.report.evidence import Evidence
from phase1.report.flips import Flips, exception_types
from phase1.report.inputs import Side
from phase1.report.tables import TEST, VALID


@dataclass(frozen=True)
class Blame:
    """The cause that the run's own evidence supports, and what to do about it."""

    causes: str
    remedy: str


@dataclass(frozen=True)
class Anomaly:
    """One row of the seed's 3.3. `applies` is None where there is no data; `evidence` looks into the run for the
    causes."""

    name: str
    applies: Callable[[Evidence], bool | None]
    causes: str
    remedy: str
    evidence: Callable[[Evidence], list[str]]
    blame: Callable[[Evidence], Blame | None] = lambda e: None  # where the evidence supports another cause


def _small_gain(e: Evidence) -> bool | None:
    change = e.change(VALID, "exec_success_rate")
    return None if change is None else change < 0.10


def _forgetting(e: Evidence) -> bool | None:
    change = e.change("humaneval", "accepted_at_1")
    return None if change is None else change < -0.05


def _syntax_up(e: Evidence) -> bool | None:
    change = e.change(VALID, "syntax_error_rate")
    return None if change is None else change > 0


def _unchanged(e: Evidence) -> bool | None:
    changes = [r.change for r in e.rows if r.spec.table in ("quality", "errors") and r.change is not None]
    return all(abs(c) < 0.01 for c in changes) if changes else None


def _form_lost(e: Evidence) -> bool | None:
    before, after = _code_tag_share(e.phase0), _code_tag_share(e.phase1)
    return None if before is None or after is None else after < before - 0.05


def _silent(e: Evidence) -> bool | None:
    """No data where Phase 1 says on no data set which programs print nothing."""
    known = [d for d in e.phase1.datasets if e.value(1, d, "silent_rate") is not None]
    return bool(e.silent_rises) if known else None


def _code_tag_share(side: Side) -> float | None:
    answers = [r.completion for d in side.datasets.values() for r in d.records.values()]
    return fmean("<code>" in a.lower() for a in answers) if answers else None


def _failing_types(e: Evidence) -> list[str]:
    lines: list[str] = []
    for name in (VALID, TEST):
        for label, side in (("Phase 0", e.phase0), ("Phase 1", e.phase1)):
            records = side.datasets[name].records.values() if name in side.datasets else ()
            if types := exception_types(records):
                lines.append(
                    f"{name}, {label}: top exceptions " + ", ".join(f"{markdown_text(t, 80)} {n}" for t, n in types)
                )
    if tests := [
        f"{name} {e.value(1, name, 'truncation_rate'):.1%}"
        for name in (VALID, TEST)
        if e.value(1, name, "truncation_rate")
    ]:
        lines.append(f"answers cut off at the token limit: {', '.join(tests)}")
    if lines:
        return lines
    if any(
        side.datasets[name].records for name in (VALID, TEST) for side in (e.phase0, e.phase1) if name in side.datasets
    ):
        return ["no program ended with an exception, and no answer was cut off"]
    return ["no per-problem records, so the exceptions are not known; look into qa_logs/"]


def _broken_set(e: Evidence) -> list[str]:
    lines = [
        f"{f.dataset}: {len(f.broken)} problems solved before are not now, {len(f.fixed)} the other way; "
        f"they now end as {_count_types(f)}"
        for f in e.flips
        if f.dataset in ("humaneval", "mbpp_reg") and f.broken
    ]
    return [*lines, *_template(e), *_loss(e)] or ["no per-problem records: which problems broke is not known"]


def _count_types(f: Flips) -> str:
    types = [y.error_type for _, y in f.broken]
    return ", ".join(f"{t} {types.count(t)}" for t in sorted(set(types), key=types.count, reverse=True))


def _train_syntax(e: Evidence) -> list[str]:
    if e.train_data is None:
        return ["training rows not given (--train_data data/sft_train.parquet), so they were not compiled"]
    d = e.train_data
    first = f"; first: {markdown_text(d.first_error, 120)}" if d.first_error else ""
    return [
        f"{d.not_compiling} of {d.compiled} sampled training answers (of {d.rows}) do not compile{first}",
        *_failing_types(e),
    ]


def _blame_small_gain(e: Evidence) -> Blame | None:
    """A base model near 100% leaves no room."""
    before = e.value(0, VALID, "exec_success_rate")
    if before is None or before <= 0.90:
        return None
    return Blame(
        f"Phase 0 was at {before:.1%}, so no more than {100 - before * 100:.1f} pp were to be had",
        "look at accepted_at_1 instead",
    )


def _blame_syntax(e: Evidence) -> Blame | None:
    """Answers that were cut off are no fault of the training data; nor are training answers that all compile."""
    result = e.phase1.datasets.get(VALID)
    wrong = [r for r in result.records.values() if r.error_type == "syntax_error"] if result else []
    cut = sum(r.finish_reason == "length" for r in wrong)
    if cut and 2 * cut >= len(wrong):
        return Blame(
            f"answers cut off at the token limit: {cut} of {len(wrong)} programs with a syntax error",
            "see whether these answers end at all; if they only are long, raise --max_new_tokens for both phases alike",
        )
    if e.train_data and e.train_data.compiled and not e.train_data.not_compiling:
        return Blame(
            "not the training data, whose sampled answers all compile; not cut-off answers either"
            if wrong and not cut
            else "not the training data, whose sampled answers all compile",
            "read the programs with a syntax error in qa_logs/ and among the flips",
        )
    return None


def _template(e: Evidence) -> list[str]:
    lines: list[str] = []
    if d := e.train_data:
        lines.append(
            f"training rows with another system prompt than the evaluation's: {d.other_system_prompt} of "
            f"{d.sampled} sampled; "
            f"without <code>: {d.without_code_tag}"
        )
    before, after = _code_tag_share(e.phase0), _code_tag_share(e.phase1)
    if before is not None and after is not None:
        lines.append(f"answers inside <code>: Phase 0 {before:.1%}, Phase 1 {after:.1%}")
    return lines


def _loss(e: Evidence) -> list[str]:
    loss = [v for _, v in e.train_log.get("train/loss", [])]
    if len(loss) < 10:
        return ["no training log given (--train_log), so the loss curve was not looked at"]
    k = max(1, len(loss) // 10)
    first, last = fmean(loss[:k]), fmean(loss[-k:])
    shape = "flat" if last > 0.95 * first else "falling"
    if not isfinite(first) or not isfinite(last):
        shape = "diverged: not a number"
    return [f"train/loss over the first and the last tenth of {len(loss)} steps: {first:.3f} → {last:.3f} ({shape})"]


ANOMALIES = (
    Anomaly(
        "exec_success_rate rose by less than 10 pp",
        _small_gain,
        "poor SFT data, overfitting",
        "look at the failing cases in qa_logs/ and at the flips",
        lambda e: [*_failing_types(e), *_template(e)],
        _blame_small_gain,
    ),
    Anomaly(
        "HumanEval fell by more than 5 pp",
        _forgetting,
        "catastrophic forgetting",
        "lower the learning rate, train fewer epochs, or mix in general data",
        _broken_set,
    ),
    Anomaly(
        "syntax_error_rate rose",
        _syntax_up,
        "syntax errors in the training data",
        "filter the training records that do not compile",
        _train_syntax,
        _blame_syntax,
    ),
    Anomaly(
        "no metric changed by 1 pp",
        _unchanged,
        "the model learned nothing that counts",
        "check that the loss falls, and the data pipeline",
        lambda e: [*_loss(e), *_template(e)],
    ),
    Anomaly(
        "fewer answers inside <code> than before",
        _form_lost,
        "training answers of another form than the evaluation asks for",
        "train on rows made by prepare_sft_data.py, which shares the evaluation's prompts",
        _template,
    ),
    Anomaly(
        "exec_success_rate rose by programs that print or read nothing",
        _silent,
        "the model learned to write programs that do nothing, such as functions that nobody calls, or print a constant",
        "train on solutions that pass tests (prepare_sft_data.py --verify_solutions), choose by pass_ratio",
        lambda e: [f"{rise.dataset}: {rise.words()}" for rise in e.silent_rises],
    ),
)


def check_anomalies(e: Evidence) -> list[dict[str, Any]]:
    """For each row of ANOMALIES: name, state (seen, not seen, no data) and, where seen, causes, remedy, evidence."""
    found: list[dict[str, Any]] = []
    for a in ANOMALIES:
        applies = a.applies(e)
        state = "no data" if applies is None else "seen" if applies else "not seen"
        blame = a.blame(e) if applies else None
        said = blame or Blame(a.causes, a.remedy)
        seen = {"causes": said.causes, "remedy": said.remedy, "evidence": a.evidence(e)} if applies else {}
        found.append({"name": a.name, "state": state, **seen})
    return found
