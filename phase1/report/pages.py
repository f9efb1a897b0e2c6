"""report.html and qa.html: one file each, no network, everything that came from a model or a program escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from phase1.contract.records import Record
from phase1.files import BadInput, read_jsonl
from phase1.report import comparisons
from phase1.report.answer_forms import MEANING
from phase1.report.escaping import shown
from phase1.report.first_screen import FirstScreen
from phase1.report.flips import Flips
from phase1.report.tables import (
    HEADINGS,
    MORE_HEADINGS,
    NONE,
    Row,
    holm_reason,
    row_answer,
    row_change,
    row_interval,
    show_change,
    show_value,
)
from phase1.report.templating import page_environment
from phase1.report.verdict import Verdict

SHOW = 3000  # characters of one prompt, program or output
FLIP_BUDGET = 2_000_000  # characters of all flips in the page; the rest is named by id

ENVIRONMENT = page_environment()
ENVIRONMENT.filters["value"] = show_value
ENVIRONMENT.filters["change"] = show_change


def report_html(
    context: dict[str, Any],
    rows: Sequence[Row],
    verdict: Verdict,
    screen: FirstScreen,
    flips: Sequence[Flips],
    figures: Iterable[tuple[str, str]],
) -> str:
    """The page. `context` is what comparison_data.json holds; SVGs are ours and go in unescaped."""
    tables = [
        {"name": t, "heading": heading, "rows": [_cells(r) for r in rows if r.spec.table == t]}
        for t, heading in (HEADINGS | MORE_HEADINGS).items()
        if t in HEADINGS or any(r.spec.table == t for r in rows)
    ]
    page: str = ENVIRONMENT.get_template("report.html").render(
        **context,
        form_meaning=MEANING,
        rules_heading=comparisons.HEADING,
        rules_meaning=comparisons.MEANING,
        differ_cell=comparisons.differ_cell,
        v=verdict,
        screen=screen,
        cards=[_card(r) for r in rows if r.spec.headline],
        tables=tables,
        figures=[(caption, Markup(svg)) for caption, svg in figures],
        flip_sets=_flip_sets(flips),
    )
    return page


def _cells(r: Row) -> dict[str, Any]:
    return {
        "spec": r.spec,
        "phase0": show_value(r.phase0, r.spec.unit),
        "phase1": show_value(r.phase1, r.spec.unit),
        "change": row_change(r),
        "interval": row_interval(r),
        "answer": r.answer,
        "evidence": row_answer(r).removeprefix(r.answer).strip(" ()"),
    }


def _card(r: Row) -> dict[str, Any]:
    answer = r.answer if r.answer != NONE else ("new" if r.phase0 is None else "no test")
    return {**_cells(r), "change": show_change(r.change, r.spec.unit), "answer": answer, "reason": holm_reason(r)}


def _flip_sets(flips: Sequence[Flips]) -> list[dict[str, Any]]:
    """Each data set's flips, as many in full as the page's budget allows, breakages before repairs."""
    left, sets = FLIP_BUDGET, []
    for kind in ("broken", "fixed"):
        share = left // max(1, len(flips)) // (2 if kind == "broken" else 1)
        for f in flips:
            pairs, full, used = getattr(f, kind), [], 0
            for x, y in pairs:
                item = _flip(x, y)
                used += sum(len(escape(t)) for t in (item["prompt"], item["before"], item["after"], item["failed"]))
                if used > share:
                    break
                full.append(item)
            left -= min(used, share)
            sets.append(
                {
                    "dataset": f.dataset,
                    "kind": kind,
                    "total": len(pairs),
                    "full": full,
                    "named": [x.problem_id for x, _ in pairs[len(full) :]],
                }
            )
    order = [f.dataset for f in flips]
    return sorted(sets, key=lambda s: (order.index(s["dataset"]), s["kind"]))


def _flip(x: Record, y: Record) -> dict[str, Any]:
    loser = y if x.accepted else x
    return {
        "id": x.problem_id,
        "type0": x.error_type,
        "type1": y.error_type,
        "prompt": shown(x.prompt, SHOW),
        "before": shown(x.code, SHOW),
        "after": shown(y.code, SHOW),
        "failed": failed_case(loser.first_failed_case, loser.detail),
        "loser": "Phase 1" if loser is y else "Phase 0",
    }


def failed_case(case: dict[str, Any] | None, detail: str) -> str:
    """The first failing test as text: verdict and message, then what went in, should have come and came."""
    case = dict(case or {})
    case["detail"] = case.get("detail") or detail
    first = ("verdict", "detail", "input", "expected", "output", "stderr")
    lines = []
    for key in (*first, *(k for k in case if k not in first)):
        value = case.get(key)
        if value is None or value == "":
            continue
        text = f"{value:.3g}" if isinstance(value, float) else shown(value, 800).rstrip("\n")
        lines.append(f"{key}:\n{text}" if "\n" in text else f"{key}: {text}")
    return "\n".join(lines) or "(nothing recorded)"


# --------------------------------------------------------------------------------------------------------------- QA
def qa_html(logs: Sequence[Path], title: str) -> str:
    """A page to browse QA logs, failures first; those of `logs` that are not there are left out, BadInput where none
    is."""
    found = [path for path in logs if path.exists()]
    if not found:
        raise BadInput(f"{logs[0]}: no such file; `phase1_eval.py --recompute` writes the QA logs again")
    rows = [row for path in found for _, row in read_jsonl(path)]
    rows.sort(key=lambda r: (bool(r.get("accepted")), str(r.get("dataset")), str(r.get("error_type"))))
    items = []
    for r in rows:
        extra = r.get("extra") or {}
        items.append(
            {
                **{
                    k: r.get(k)
                    for k in (
                        "dataset",
                        "problem_id",
                        "error_type",
                        "accepted",
                        "pass_ratio",
                        "gen_tokens",
                        "judge_time",
                    )
                },
                "prompt": shown(r.get("prompt", ""), SHOW),
                "response": shown(r.get("response", ""), 2 * SHOW),
                "failed": failed_case(extra.get("first_failed_case"), "") if extra.get("first_failed_case") else "",
                "finish_reason": extra.get("finish_reason"),
            }
        )
    page: str = ENVIRONMENT.get_template("qa.html").render(
        title=title, items=items, types=sorted({str(i["error_type"]) for i in items})
    )
    return page
