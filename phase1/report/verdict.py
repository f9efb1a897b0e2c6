"""What the tables amount to: the verdict, the seed's expected ranges (3.2) and anomalies (3.3), and the gate.

Everything the report concludes stands here as rules: EXPECTED and ANOMALIES are the seed's two tables, `verdict` the
one line that opens every output, `check_gate` the rules a user gives for CI and cron.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

from phase1.files import BadInput
from phase1.report import stats
from phase1.report.flips import Flips, exception_types
from phase1.report.inputs import MISMATCH, Finding, Side
from phase1.report.tables import NONE, TEST, VALID, Row, row_interval, show_change, show_value
from phase1.report.text import markdown_text
from phase1.train.log import Series


@dataclass
class Evidence:
    """All that the rules may look at."""

    phase0: Side
    phase1: Side
    rows: Sequence[Row]
    flips: Sequence[Flips] = ()
    train_log: Series = field(default_factory=dict)
    train_data: dict[str, Any] | None = None

    def value(self, phase: int, dataset: str, metric: str) -> float | None:
        side = (self.phase0, self.phase1)[phase]
        return side.datasets[dataset].values.get(metric) if dataset in side.datasets else None

    def change(self, dataset: str, metric: str) -> float | None:
        x, y = self.value(0, dataset, metric), self.value(1, dataset, metric)
        return None if x is None or y is None else y - x

    def relative(self, dataset: str, metric: str) -> float | None:
        x, change = self.value(0, dataset, metric), self.change(dataset, metric)
        return change / x if change is not None and x else None


# ------------------------------------------------------------------------------------------------------- the verdict
MOST, LINE = 3, 240  # rows with figures in the verdict, and its characters: more is not read at a glance
GOOD, BAD, MIXED, UNSURE = "good", "bad", "mixed", "unsure"


@dataclass(frozen=True)
class Verdict:
    """`word`: improved, worse, mixed, maybe_worse, not_better, not_shown or not_comparable; `line` opens every
    output."""

    word: str
    level: str  # GOOD, BAD, MIXED, UNSURE: the colour
    line: str


def verdict(rows: Sequence[Row], findings: Sequence[Finding] = (), allow_mismatch: bool = False) -> Verdict:
    """The report's one line; the tables hold the rows that it only counts. Claims of improvement stand under Holm's
    correction; warnings of harm do not wait for it."""
    head = [r for r in rows if r.spec.headline and r.change is not None]
    better = [r for r in head if r.answer == stats.IMPROVED]
    worse = [r for r in head if r.answer == stats.WORSE]
    maybe = [
        r
        for r in head
        if r.answer == stats.NOT_SHOWN
        and r.comparison
        and r.comparison.p is not None
        and r.comparison.p < stats.ALPHA
        and r.gain < 0
    ]
    primary = (
        [next((r for r in head if r.spec.dataset == VALID and r.spec.metric == "exec_success_rate"), head[0])]
        if head
        else []
    )
    fell = [r for r in head if r.answer in (stats.NOT_SHOWN, NONE) and r.gain < -(r.spec.margin or 0)]

    def line(opening: str, first: Sequence[Row], then: str = "", second: Sequence[Row] = (), end: str = "") -> str:
        """At most MOST rows with figures, fewer where the line gets long, at least one of each list; the primary row
        first."""
        first, second = (sorted(rs, key=lambda r: r not in primary) for rs in (first, second))
        for most in range(MOST, 0, -1):
            shown = max(1, most - bool(second))
            text = f"{opening}{_figures(first, shown)}"
            if second:
                text += f"{then}{_figures(second, max(1, most - min(shown, len(first))), interval=False)}"
            if len(text + end) <= LINE:
                break
        return text + end

    if not head:
        found = Verdict("not_shown", UNSURE, "NOTHING TO COMPARE - the two phases have no headline metric in common")
    elif worse and better:
        found = Verdict("mixed", MIXED, line("WORSE IN PART - worse than its base: ", worse, "; improved: ", better))
    elif worse:
        found = Verdict("worse", BAD, line("WORSE - the SFT model is worse than its base: ", worse))
    elif maybe:
        found = Verdict(
            "maybe_worse",
            MIXED if better else BAD,
            line(
                (
                    f"PROBABLY WORSE{' IN PART' if better else ''} - fell beyond noise before the correction for "
                    "many rows: "
                ),
                maybe,
                "; improved: ",
                better,
            ),
        )
    elif better:
        end = "" if fell else "; no headline row got worse"
        found = Verdict("improved", GOOD, line("IMPROVED - ", better, "; lower, but not beyond noise: ", fell, end))
    elif primary[0].gain < 0:
        found = Verdict(
            "not_better",
            BAD,
            line(
                "NOT BETTER - the SFT model is lower than its base, though not shown beyond noise: ",
                [*primary, *[r for r in fell if r not in primary]],
            ),
        )
    else:
        found = Verdict("not_shown", UNSURE, f"NO DIFFERENCE SHOWN - {_figures(primary, 1)} is within noise")

    mismatches = [f.text for f in findings if f.kind == MISMATCH]
    if mismatches and not allow_mismatch:
        more = f" (and {len(mismatches) - 1} more)" if len(mismatches) > 1 else ""
        return Verdict(
            "not_comparable",
            BAD,
            f"NOT COMPARABLE - {mismatches[0]}{more}. As the figures stand: {found.line.split(' - ')[0]}",
        )
    if mismatches:
        return Verdict(found.word, found.level, f"{found.line} [{len(mismatches)} comparability mismatches, allowed]")
    return found


def _figures(rows: Sequence[Row], most: int, interval: bool = True) -> str:
    """The first `most` rows' figures, the first one's with its interval, and how many rows are left out."""
    texts = []
    for i, r in enumerate(rows[:most]):
        within = f", 95% interval {row_interval(r)}" if interval and i == 0 and row_interval(r) != NONE else ""
        texts.append(
            f"{r.spec.label} {show_value(r.phase0, r.spec.unit)} → {show_value(r.phase1, r.spec.unit)} "
            f"({show_change(r.change, r.spec.unit)}{within})"
        )
    return ", ".join(texts) + (f" and {len(rows) - most} more" if len(rows) > most else "")


# ------------------------------------------------------------------------------------------- expected ranges (3.2)
@dataclass(frozen=True)
class Expected:
    """One row of the seed's 3.2. `low` to `high` in the stated kind: change in pp (as a share) or relative change."""

    metric: str
    dataset: str
    kind: str  # pp, relative
    low: float
    high: float
    why: str


EXPECTED = (
    Expected("exec_success_rate", VALID, "pp", 0.20, 0.40, "SFT teaches the I/O form and Python's syntax"),
    Expected("syntax_error_rate", VALID, "relative", -0.60, -0.30, "the most direct effect of SFT"),
    Expected("runtime_error_rate", VALID, "relative", -0.30, -0.10, "better code overall"),
    Expected("timeout_rate", VALID, "relative", -0.30, -0.10, "more efficient algorithms"),
    Expected("accepted_at_1", VALID, "pp", 0.01, 0.05, "more programs run, so more may pass"),
    Expected("pass_ratio_mean", VALID, "pp", 0.05, 0.15, "fewer errors, more tests passed"),
    Expected("accepted_at_1", "humaneval", "pp", -0.02, 0.02, "no significant regression"),
    Expected("accepted_at_1", "mbpp_reg", "pp", -0.02, 0.02, "no significant regression"),
)


def check_expected(e: Evidence) -> list[dict[str, str]]:
    """For each row of EXPECTED: expected, seen, verdict (as expected, more or less than expected, wrong direction, no
    data)."""
    found = []
    for rule in EXPECTED:
        seen = e.change(rule.dataset, rule.metric) if rule.kind == "pp" else e.relative(rule.dataset, rule.metric)
        found.append(
            {
                "metric": rule.metric,
                "dataset": rule.dataset,
                "expected": _range(rule),
                "seen": _seen(seen, rule.kind),
                "verdict": _place(rule, seen, e),
                "why": rule.why,
            }
        )
    return found


def _place(rule: Expected, seen: float | None, e: Evidence) -> str:
    if seen is None:
        return "no data" if e.change(rule.dataset, rule.metric) is None else "no relative change from 0"
    if rule.low - 1e-9 <= seen <= rule.high + 1e-9:
        return "as expected"
    if rule.low < 0 < rule.high:
        return "rose out of the range" if seen > 0 else "fell out of the range"
    sign = 1 if rule.low > 0 else -1
    if seen * sign <= 0:
        return "no change" if seen == 0 else "wrong direction"
    return "more than expected" if abs(seen) > max(abs(rule.low), abs(rule.high)) else "less than expected"


def _range(rule: Expected) -> str:
    unit = "pp" if rule.kind == "pp" else "% relative"
    return f"{100 * rule.low:+.0f} to {100 * rule.high:+.0f} {unit}".replace(" %", "%")


def _seen(value: float | None, kind: str) -> str:
    if value is None:
        return NONE
    return f"{100 * value:+.1f} pp" if kind == "pp" else f"{100 * value:+.1f}% relative"


# ---------------------------------------------------------------------------------------------------- anomalies (3.3)
@dataclass(frozen=True)
class Anomaly:
    """One row of the seed's 3.3. `applies` is None where there is no data; `evidence` looks into the run for the
    causes."""

    name: str
    applies: Callable[[Evidence], bool | None]
    causes: str
    remedy: str
    evidence: Callable[[Evidence], list[str]]


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


def _code_tag_share(side: Side) -> float | None:
    answers = [r.completion for d in side.datasets.values() for r in d.records.values()]
    return fmean("<code>" in a.lower() for a in answers) if answers else None


def _failing_types(e: Evidence) -> list[str]:
    lines = []
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
    return lines or ["no per-problem records, so the exceptions are not known; look into qa_logs/"]


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
    first = f"; first: {markdown_text(d['first_error'], 120)}" if d["first_error"] else ""
    return [
        f"{d['not_compiling']} of {d['compiled']} sampled training answers (of {d['rows']}) do not compile{first}",
        *_failing_types(e),
    ]


def _template(e: Evidence) -> list[str]:
    lines = []
    if d := e.train_data:
        lines.append(
            f"training rows with another system prompt than the evaluation's: {d['other_system_prompt']} of "
            f"{d['sampled']} sampled; "
            f"without <code>: {d['without_code_tag']}"
        )
    shares = [_code_tag_share(e.phase0), _code_tag_share(e.phase1)]
    if None not in shares:
        lines.append(f"answers inside <code>: Phase 0 {shares[0]:.1%}, Phase 1 {shares[1]:.1%}")
    return lines


def _loss(e: Evidence) -> list[str]:
    loss = [v for _, v in e.train_log.get("train/loss", [])]
    if len(loss) < 10:
        return ["no training log given (--train_log), so the loss curve was not looked at"]
    k = max(1, len(loss) // 10)
    first, last = fmean(loss[:k]), fmean(loss[-k:])
    flat = "flat" if last > 0.95 * first else "falling"
    return [f"train/loss over the first and the last tenth of {len(loss)} steps: {first:.3f} → {last:.3f} ({flat})"]


ANOMALIES = (
    Anomaly(
        "exec_success_rate rose by less than 10 pp",
        _small_gain,
        "poor SFT data, overfitting",
        "look at the failing cases in qa_logs/ and at the flips",
        lambda e: [*_failing_types(e), *_template(e)],
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
)


def check_anomalies(e: Evidence) -> list[dict[str, Any]]:
    """For each row of ANOMALIES: name, state (seen, not seen, no data) and, where seen, causes, remedy, evidence."""
    found = []
    for a in ANOMALIES:
        applies = a.applies(e)
        state = "no data" if applies is None else "seen" if applies else "not seen"
        seen = {"causes": a.causes, "remedy": a.remedy, "evidence": a.evidence(e)} if applies else {}
        found.append({"name": a.name, "state": state, **seen})
    return found


# ---------------------------------------------------------------------------------------------------------- warnings
def warnings_of(phase1: Side, phase0: Side) -> list[str]:
    """What a reader must know before believing a figure: problems without a verdict, truncation, many timeouts."""
    found = []
    for side in (phase0, phase1):
        for name, d in side.datasets.items():
            counts = {
                e: sum(r.error_type == e for r in d.records.values())
                for e in ("empty_output", "api_error", "sandbox_error")
            }
            if any(counts.values()):
                what = ", ".join(f"{e} {n}" for e, n in counts.items() if n)
                judged = [r for r in d.records.values() if r.error_type not in ("api_error", "sandbox_error")]
                share = (
                    f"; accepted@1 of the {len(judged)} judged ones: {fmean(r.accepted for r in judged):.1%}"
                    if judged and len(judged) < len(d.records)
                    else ""
                )
                found.append(f"{side.label}, {name}: {what} of {len(d.records)} count as unsolved above{share}")
            elif (rate := d.values.get("api_error_rate", 0) or 0) > 0:
                found.append(
                    f"{side.label}, {name}: generation failed for {rate:.1%} of the problems, which count as unsolved"
                )
            for key, limit, what in (
                ("truncation_rate", 0.05, "answers were cut off at the token limit"),
                ("timeout_rate", 0.10, "programs timed out"),
            ):
                if (d.values.get(key) or 0) > limit:
                    found.append(f"{side.label}, {name}: {d.values[key]:.1%} of the {what} (more than {limit:.0%})")
    return found


def train_data_warnings(train_data: dict[str, Any] | None) -> list[str]:
    return [train_data["compiler_died"]] if train_data and train_data["compiler_died"] else []


# -------------------------------------------------------------------------------------------------------------- gate
GATE_KEYS = {
    "dataset": str,
    "metric": str,
    "min": float,
    "max": float,
    "min_change": float,
    "max_change": float,
    "answer": list,
    "verdict": list,
}
GATE_WORDS = {
    "answer": (stats.IMPROVED, stats.WORSE, stats.ROSE, stats.FELL, stats.EQUIVALENT, stats.NOT_SHOWN, NONE),
    "verdict": ("improved", "worse", "mixed", "maybe_worse", "not_better", "not_shown", "not_comparable"),
}


def read_gate(path: Path) -> list[dict[str, Any]]:
    """The [[rule]] tables of a TOML file. A rule has `metric` and `dataset` with limits on Phase 1's value (`min`,
    `max`) or on the change (`min_change`, `max_change`; shares, so 0.02 is 2 pp) or the allowed `answer`s; or the
    allowed `verdict`s."""
    try:
        rules = tomllib.loads(path.read_text(encoding="utf-8")).get("rule")
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise BadInput(f"{path}: not valid TOML ({e})") from None
    if not isinstance(rules, list) or not rules or not all(isinstance(r, dict) for r in rules):
        raise BadInput(
            f'{path}: holds no [[rule]]; an example: [[rule]] dataset = "humaneval" metric = "accepted_at_1" '
            "min_change = -0.02"
        )
    for i, rule in enumerate(rules, 1):
        for key, value in rule.items():
            kind = GATE_KEYS.get(key)
            if kind is None:
                raise BadInput(f"{path}: rule {i} has an unknown key {key!r}; known are {', '.join(GATE_KEYS)}")
            number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
            if not (number if kind is float else isinstance(value, kind)):
                raise BadInput(f"{path}: rule {i}: {key} = {value!r}, expected a {kind.__name__}")
            if key in GATE_WORDS and (unknown := [x for x in value if x not in GATE_WORDS[key]]):
                raise BadInput(f"{path}: rule {i}: {key} {unknown[0]!r} is none of {', '.join(GATE_WORDS[key])}")
        if rule.keys() != {"verdict"} and not {"dataset", "metric"} <= rule.keys():
            raise BadInput(f"{path}: rule {i} needs dataset and metric, or verdict alone")
        if not rule.keys() - {"dataset", "metric"}:
            raise BadInput(f"{path}: rule {i} sets no limit; give one of {', '.join(list(GATE_KEYS)[2:])}")
    return rules


def check_gate(rules: Sequence[dict[str, Any]], e: Evidence, v: Verdict) -> list[str]:
    """One line for each rule that fails; a value that is missing fails its rule."""
    failed = []
    for rule in rules:
        if "verdict" in rule and v.word not in rule["verdict"]:
            failed.append(f"verdict is {v.word}, allowed: {', '.join(map(str, rule['verdict']))}")
        if "metric" not in rule:
            continue
        name = f"{rule['dataset']} {rule['metric']}"
        value, change = e.value(1, rule["dataset"], rule["metric"]), e.change(rule["dataset"], rule["metric"])
        for key, seen, sign in (
            ("min", value, -1),
            ("max", value, 1),
            ("min_change", change, -1),
            ("max_change", change, 1),
        ):
            if key not in rule:
                continue
            what = "change of " + name if key.endswith("change") else name
            if seen is None:
                failed.append(f"{what} has no value, {key} is {rule[key]:g}")
            elif (seen - rule[key]) * sign > 1e-12:
                failed.append(f"{what} is {seen:.4g}, {key} is {rule[key]:g}")
        if "answer" in rule:
            row = next(
                (r for r in e.rows if (r.spec.dataset, r.spec.metric) == (rule["dataset"], rule["metric"])), None
            )
            answer = row.answer if row else "not a row of the tables"
            if answer not in rule["answer"]:
                failed.append(f"{name}: the answer is {answer}, allowed: {', '.join(map(str, rule['answer']))}")
    return failed
