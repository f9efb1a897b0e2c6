"""The three tables: every value, change, interval, p and answer equals one computed by hand from the stored records."""

from __future__ import annotations

import json
import math
import re
import shutil
from html import unescape
from pathlib import Path

import pytest

from phase1.contract.records import read_records
from phase1.evaluate.metrics import write_metrics
from tests.conftest import ROOT
from tests.report import by_hand
from tests.report.running import GOLDEN, generate, table_rows

BY_HAND = {paired: by_hand.count(GOLDEN / "phase0", GOLDEN / "phase1", paired) for paired in (True, False)}
EXPECTED_ONLY = {"↑ +20-40 pp", "new", "↑", "↑ small", "≈ (no significant regression)", "↓ -30-60%", "↓", "≈ or ↑"}


@pytest.fixture(scope="module")
def reports(golden, tmp_path_factory) -> dict[bool, Path]:
    """The golden report, and one for which Phase 0 has its aggregates only, as the original project wrote them."""
    bare = tmp_path_factory.mktemp("bare")
    for name in ("metrics.json", "summary.json", "run.json"):
        shutil.copy(GOLDEN / "phase0" / name, bare)
    done = generate(
        "--phase0_metrics",
        bare / "metrics.json",
        "--phase1_metrics",
        GOLDEN / "phase1" / "metrics.json",
        "--output_dir",
        bare / "report",
    )
    assert done.returncode == 0, done.stderr
    return {True: golden, False: bare / "report"}


@pytest.mark.slow
def test_the_golden_inputs_give_the_golden_table(golden):
    assert (golden / "comparison_table.md").read_text() == (GOLDEN / "comparison_table.md").read_text()


def test_the_stored_metrics_are_what_the_evaluator_derives_from_the_stored_records(tmp_path):
    """The report takes its values from metrics.json and summary.json, so these too must follow from the records.

    A metric that was added since stands in neither; tests/report/test_added_metric.py shows that the report has it.
    """

    def same_keys(stored: dict, derived: dict) -> dict:
        return {k: same_keys(v, derived[k]) if isinstance(v, dict) else derived[k] for k, v in stored.items()}

    for phase in ("phase0", "phase1"):
        stored = {name: json.loads((GOLDEN / phase / name).read_text()) for name in ("metrics.json", "summary.json")}
        write_metrics(
            tmp_path / phase,
            {d: list(read_records(GOLDEN / phase / "results" / f"{d}.jsonl")) for d in stored["metrics.json"]},
        )
        derived = {name: json.loads((tmp_path / phase / name).read_text()) for name in stored}
        assert same_keys(stored, derived) == stored


# ------------------------------------------------------------------------------------------ in full precision: the JSON
def close(x: float | None) -> object:
    return None if x is None else pytest.approx(x, rel=1e-6, abs=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False], ids=["records", "aggregates"])
@pytest.mark.parametrize("label", by_hand.ROWS)
def test_every_number_of_the_data_file_equals_one_computed_by_hand(reports, label, paired):
    hand = BY_HAND[paired][label]
    row = next(
        r for r in json.loads((reports[paired] / "comparison_data.json").read_text())["rows"] if r["label"] == label
    )
    relative = hand.change / hand.before if hand.before else None
    assert [row[k] for k in ("phase0", "phase1", "change", "relative_change")] == [
        close(x) for x in (hand.before, hand.after, hand.change, relative)
    ]
    for seen, counted in ((row["interval0"], hand.before_interval), (row["interval1"], hand.after_interval)):
        assert seen == (counted and pytest.approx(counted, abs=1e-8))
    c = row["comparison"]
    assert (c is None) == (hand.low is None)
    if c is None:
        return
    assert (c["paired"], c["change"], c["n"]) == (
        paired,
        close(hand.change),
        len(by_hand.read(GOLDEN / "phase1", row["dataset"])),
    )
    assert (c["low"], c["high"]) == (pytest.approx(hand.low, abs=1e-7), pytest.approx(hand.high, abs=1e-7))
    assert (c["p"], c["p_holm"], c["tost_p"]) == (close(hand.p), close(hand.holm), close(hand.equivalence_p))
    assert (c["mde"], c["family"]) == (close(hand.finds or None), hand.family)
    assert {k: c["detail"][k] for k in hand.detail} == pytest.approx(hand.detail)
    assert row["answer"] == hand.answer


@pytest.mark.parametrize("label", ["pass_ratio_mean (valid)", "avg_gen_tokens"])
def test_a_drawn_permutation_p_is_within_sampling_error_of_all_swaps_counted(label):
    """Passed tests and tokens are whole numbers, so all 2^48 swaps can be counted; 10,000 draws must come near."""
    _, dataset, _, value = by_hand.ROWS[label]
    x, y = (by_hand.read(GOLDEN / phase, dataset) for phase in ("phase0", "phase1"))
    scale = 20 if "ratio" in label else 1  # 20 tests a problem
    p = by_hand.exact_permutation_p([round(scale * (value(b) - value(a))) for a, b in zip(x, y, strict=True)])
    error = 2 * math.sqrt(p / 2 * (1 - p / 2) / by_hand.RESAMPLES)
    assert BY_HAND[True][label].p == pytest.approx(p, abs=4 * error)


# --------------------------------------------------------------------------------------------- as written: the Markdown
def written(label: str, value: float | None, signed: bool = False) -> str:
    """`65.8%`, `+1.2 pp`, `0.143`, `264.0`, `7.69 s`, `0.13 prob/s`, `-`."""
    if value is None:
        return "-"
    table, _, kind, _ = by_hand.ROWS[label]
    digits, unit = (
        (1, " pp" if signed else "%")
        if kind == "rate"
        else (3, "")
        if table == "quality"
        else (1, "")
        if "tokens" in label
        else (2, " s")
    )
    text = f"{value * 100 if kind == 'rate' else value:.{digits}f}{' prob/s' if kind == 'per second' else unit}"
    return "+" + text if signed and not text.startswith("-") else text


def written_p(p: float) -> str:
    return "<.001" if p < 0.001 else "1" if p >= 0.9995 else f"{p:.3f}"[1:]


def cells_by_hand(label: str, paired: bool) -> list[str]:
    hand = BY_HAND[paired][label]
    change = written(label, hand.change, signed=True)
    if by_hand.ROWS[label][0] == "errors" and by_hand.MORE_IS_BETTER[label]:
        change = f"{hand.change / hand.before * 100:+.1f}% relative"
    interval = (
        "-"
        if hand.low is None
        else f"{written(label, hand.low, True).split(' ')[0]} to {written(label, hand.high, True)}"
    )
    found = [written(label, hand.before), written(label, hand.after), change, interval]
    if hand.holm is None:
        return [*found, "-"]
    says = [f"p {written_p(hand.holm)}"]
    if hand.p < 0.05 <= hand.holm:
        says.append(f"{written_p(hand.p)} by itself, but {hand.family} rows are asked together")
    if hand.equivalence_p is not None:
        says.append(f"equivalence within 2 pp: p {written_p(hand.equivalence_p)}")
    if hand.detail:
        says.append(f"{hand.detail['gained']} up, {hand.detail['lost']} down")
    if hand.finds:
        says.append(f"finds {written(label, hand.finds, signed=True)[1:]} or more")
    return [*found, f"{hand.answer} ({'; '.join(says + ([] if paired else ['unpaired']))})"]


def compared(cells: list[str]) -> list[str]:
    """The cells that hold figures and answer: without the seed's expectation, without the reason where nothing is
    tested."""
    *kept, answer = [c for i, c in enumerate(cells) if not (i == 3 and c in EXPECTED_ONLY)]
    return [*kept, "-" if answer.startswith("- (") else answer]


@pytest.mark.parametrize("paired", [True, False], ids=["records", "aggregates"])
@pytest.mark.parametrize("label", by_hand.ROWS)
def test_every_number_of_the_three_tables_is_written_as_computed_by_hand(reports, label, paired):
    assert compared(table_rows((reports[paired] / "comparison_table.md").read_text())[label]) == cells_by_hand(
        label, paired
    )


def test_the_page_shows_the_same_cells_as_the_markdown(golden):
    page = (golden / "report.html").read_text()
    tables = page[page.index("<h2>Quality</h2>") : page.index("<h2>Plots</h2>")]
    rows = {}
    for row in re.findall(r"<tr>(<td>.*?)</tr>", tables, re.DOTALL):
        label, *cells = [
            " ".join(unescape(re.sub("<[^>]+>", " ", cell)).split())
            for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)
        ]
        rows[label] = [re.sub("[()]", "", c) for c in cells]
    markdown = table_rows((golden / "comparison_table.md").read_text())
    assert rows == {label: [re.sub("[()]", "", c) for c in cells] for label, cells in markdown.items()}


# ---------------------------------------------------------------------------------------------------------- their form
def test_the_tables_have_every_row_of_the_seed_in_its_order(golden):
    text = (golden / "comparison_table.md").read_text()
    assert list(table_rows(text)) == list(by_hand.ROWS)
    for heading, table in (("## Quality", "quality"), ("## Error distribution", "errors"), ("## Cost", "cost")):
        part = text[text.index(heading) :].split("\n## ")[0]
        assert list(table_rows(part)) == [label for label, (t, *_) in by_hand.ROWS.items() if t == table]


def test_the_data_file_says_how_it_was_made(golden):
    data = json.loads((golden / "comparison_data.json").read_text())
    assert data["stamp"]["versions"]["scipy"] and len(data["rows"]) == 19
    assert f"{by_hand.RESAMPLES:,} resamples, seed {by_hand.SEED}" in data["method"]


def test_the_count_by_hand_uses_nothing_of_what_it_checks():
    imports = re.findall(r"^(?:from|import) (\S+)", Path(by_hand.__file__).read_text(), re.MULTILINE)
    assert imports and not [
        i for i in imports if i.split(".")[0] in ("phase1", "statsmodels", "generate_report", "tests")
    ]


def test_every_field_of_the_data_file_stands_in_the_reports_page(golden):
    data = json.loads((golden / "comparison_data.json").read_text())
    text = "\n".join(page.read_text() for page in sorted((ROOT / "docs").glob("*05_*.md")))
    first = data["rows"][0]
    parts = (
        data,
        data["verdict"],
        data["findings"][0],
        first,
        first["comparison"],
        first["comparison"]["detail"],
        data["expected"][0],
        data["stamp"],
        data["anomalies"][0],
        data["overview"][0],
        *data["flips"].values(),
        *data["transitions"].values(),
        *data["exceptions"].values(),
    )
    missing = {key for part in parts for key in part if not re.search(rf"`{key}`", text)}
    assert not missing
