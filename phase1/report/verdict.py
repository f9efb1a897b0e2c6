"""The verdict: the one line that opens every output of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from phase1.report import stats
from phase1.report.comparability import MISMATCH, Finding
from phase1.report.silent import SILENT, SilentRise, of_dataset
from phase1.report.tables import NONE, VALID, Row, row_interval, show_change, show_value

MOST, LINE = 3, 240  # rows with figures in the verdict, and its characters: more is not read at a glance
GOOD, BAD, MIXED, UNSURE = "good", "bad", "mixed", "unsure"
WORDS = (
    "improved",
    "worse",
    "mixed",
    "maybe_worse",
    "not_better",
    "not_shown",
    "too_small",
    "silent",
    "not_comparable",
)
UNDECIDED = ("not_better", "not_shown", "too_small")  # of one answer a problem: more problems or answers may decide


@dataclass(frozen=True)
class Verdict:
    """The conclusion.

    Attributes:
        word: one of WORDS.
        level: GOOD, BAD, MIXED or UNSURE, which is the colour.
        line: the text that opens every output.
    """

    word: str
    level: str
    line: str


def verdict(
    rows: Sequence[Row],
    findings: Sequence[Finding] = (),
    allow_mismatch: bool = False,
    silent_rises: Sequence[SilentRise] = (),
    more_rows: Sequence[Row] = (),
) -> Verdict:
    """The report's one line; the tables hold the rows that it only counts. Claims of improvement stand under Holm's
    correction; warnings of harm do not wait for it. A rise by programs that print or read nothing is none.
    `more_rows` (more problems, more answers a problem) decide where the seed's do not and warn where these praise."""
    head = [r for r in rows if r.spec.headline and r.change is not None]
    better = [r for r in head if r.answer == stats.IMPROVED]
    worse = [r for r in head if r.answer == stats.WORSE]
    maybe = [
        r
        for r in head
        if r.answer in (stats.NOT_SHOWN, stats.TOO_SMALL)
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
    fell = [r for r in head if r.answer in (stats.NOT_SHOWN, stats.TOO_SMALL, NONE) and r.gain < -(r.spec.margin or 0)]

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
                "NOT BETTER - the SFT model is lower than its base, within noise: ",
                [*primary, *[r for r in fell if r not in primary]],
            ),
        )
    elif primary[0].answer == stats.TOO_SMALL:
        found = Verdict("too_small", UNSURE, f"TOO SMALL TO TELL - {_figures(primary, 1)}; {_reach(primary[0])}")
    else:
        end = f"; {_reach(primary[0])}" if primary[0].comparison and primary[0].comparison.mde else ""
        found = Verdict("not_shown", UNSURE, f"NO CLEAR DIFFERENCE - {_figures(primary, 1)} is within noise{end}")

    if found.word in ("improved", *UNDECIDED):
        more_better = better or [r for r in more_rows if r.answer == stats.IMPROVED]
        more_worse = [r for r in more_rows if r.answer == stats.WORSE]
        end = "; one answer to each problem of a set shows no clear difference"
        if more_worse and more_better:
            found = Verdict("mixed", MIXED, line("WORSE IN PART - worse: ", more_worse, "; improved: ", more_better))
        elif more_worse:
            found = Verdict("worse", BAD, line("WORSE - ", more_worse, end=end))
        elif more_better and not better:
            found = Verdict("improved", GOOD, line("IMPROVED - ", more_better, end=end))

    if rise := _silent_rise(head, silent_rises):
        silent = _silent_figures(head, rise)
        if found.word in ("improved", *UNDECIDED):
            also = f"; improved: {_figures(better, 1)}" if better else ""
            heading = "PRINTS NOTHING" if rise.kind == SILENT else "DOES NOTHING"
            found = Verdict("silent", BAD, f"{heading} - {silent}{also}")
        else:
            found = Verdict(found.word, found.level, f"{found.line}; {silent}")

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


def _silent_rise(head: Sequence[Row], rises: Sequence[SilentRise]) -> SilentRise | None:
    """The rise of the first headline row that programs which print or read nothing make up."""
    rows = [r for r in head if r.silent]
    return of_dataset(rises, rows[0].spec.dataset) if rows else None


def _silent_figures(head: Sequence[Row], rise: SilentRise) -> str:
    """The first of these rows, with what is left of its `rise`."""
    rows = [r for r in head if r.silent]
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return rise.words(rows[0].spec.label) + more


def _reach(row: Row) -> str:
    """What the row could have shown."""
    mde = row.comparison.mde if row.comparison else None
    return "" if mde is None else f"it finds {show_change(mde, row.spec.unit).lstrip('+')} or more"


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
