"""report.html and qa.html: hostile text stays text, the same inputs give the same page, a browser shows the verdict at
once."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from phase1.report.escaping import shown
from tests import chromium
from tests.conftest import ROOT
from tests.report.fake_evaluations import PHASE0, Fake, write_evaluation
from tests.report.running import compare

HOSTILE = (
    "</pre><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}\x1b[31m\x00\u202e\ud800 | `x` $\\frac$ "
    + "A" * 1_000_000
)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag in ("script", "img", "a", "link", "iframe"):
            assert attrs == [("rel", "icon"), ("href", "data:,")], attrs
        assert not any(name.startswith("on") for name, _ in attrs), attrs


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """A report over programs, prompts, details, ids and a data set name that try to break out."""
    root = tmp_path_factory.mktemp("hostile")
    sizes = {"codecontests_valid": 12, "<script>evil</script>|$x$": 8}
    rates = dict.fromkeys(sizes, (0.5, 0.2, 0.0, 0.3, 0.0))
    for name, seed in (("base", 0), ("sft", 1)):
        write_evaluation(root / name, Fake(rates, sizes={"codecontests_valid": 12}, seed=seed, text=HOSTILE, noise=0.5))
        metrics = json.loads((root / name / "metrics.json").read_text())
        metrics["<script>evil</script>|$x$"] = metrics["codecontests_valid"]
        (root / name / "metrics.json").write_text(json.dumps(metrics))
    done = compare(root, root / "base" / "metrics.json", root / "sft" / "metrics.json", "--qa_html", plots=True)
    assert done.returncode == 0, done.stderr
    return root / "out"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["report.html", "qa.html"])
def test_hostile_programs_prompts_and_names_appear_escaped(hostile, name):
    page = (hostile / name).read_text(encoding="utf-8")  # strict: no lone surrogate in it
    tags = Tags()
    tags.feed(page)
    assert not {"script", "img", "iframe", "object"} & set(tags.seen)
    assert (
        "&lt;script&gt;alert(1)" in page
        and "\\x1b[31m" in page
        and "\\x00" in page
        and "\\u202e" in page
        and "\\ud800" in page
    )
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e]", page)
    assert "{{ 7*7 }}" in page and "more characters]" in page
    assert len(page) < 5_000_000


@pytest.mark.slow
def test_hostile_text_cannot_break_the_markdown_or_the_terminal(hostile):
    for name in ("comparison_table.md", "summary.txt"):
        text = (hostile / name).read_text(encoding="utf-8")
        assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e]", text)
    table = (hostile / "comparison_table.md").read_text().split("## All data sets")[1].split("## ")[0]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines() if line.startswith("|")} == {6}
    assert "<script>" not in table


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b[0m", "\\x1b[0m"),
        ("\ud800", "\\ud800"),
        ("\u200b\u202e", "\\u200b\\u202e"),
        ("é→題\u00a0", "é→題\u00a0"),
        ("\U000e0001", "\\U000e0001"),
        ("\r", "\\x0d"),
    ],
)
def test_shown_makes_the_invisible_visible(text, expected):
    assert shown(text) == expected


# ------------------------------------------------------------------------------------------------------- the pages
@pytest.mark.slow
def test_the_same_inputs_give_the_same_page_but_for_the_time(evaluations, tmp_path):
    pages = []
    for _ in range(2):
        compare(tmp_path, evaluations["base"], evaluations["better"], plots=True)
        pages.append(re.sub(r"Made \S+ by", "", (tmp_path / "out" / "report.html").read_text()))
    assert pages[0] == pages[1]


@pytest.mark.slow
def test_the_curves_over_the_checkpoints_hold_a_point_a_complete_evaluation(evaluations, tmp_path):
    """As run_eval_checkpoints.sh leaves them beside the final evaluation: one is still at work, one has a torn
    summary."""
    for step, sets in (
        (500, ["codecontests_valid", "humaneval"]),
        (1000, ["codecontests_valid"]),
        (1500, ["codecontests_valid"]),
        (2000, ["codecontests_valid"]),
    ):
        write_evaluation(
            tmp_path / f"eval_step_{step}",
            Fake(PHASE0, sizes=dict.fromkeys(sets, 10), run={"status": "running" if step == 1500 else "complete"}),
        )
    (tmp_path / "eval_step_2000" / "summary.json").write_text('{"datasets"')
    shutil.copytree(evaluations["better"].parent, tmp_path / "eval_final")
    done = compare(tmp_path, evaluations["base"], tmp_path / "eval_final" / "metrics.json", plots=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert (
        "Over the checkpoints, valid; dashed: Phase 0" in page and "Over the checkpoints, HumanEval" not in page
    )  # one point is no curve
    data = json.loads((tmp_path / "out" / "comparison_data.json").read_text())
    assert [(c["step"], sorted(c["datasets"])) for c in data["checkpoints"]] == [
        (500, ["codecontests_valid", "humaneval"]),
        (1000, ["codecontests_valid"]),
    ]
    assert any("eval_step_2000" in n for n in data["notes"])
    elsewhere = compare(tmp_path, evaluations["base"], evaluations["better"], "--checkpoints", tmp_path, plots=True)
    assert elsewhere.returncode == 0 and "Over the checkpoints, valid" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_the_script_runs_by_itself_also_where_the_terminal_is_ascii(evaluations, tmp_path):
    command = [
        sys.executable,
        ROOT / "generate_report.py",
        "--phase0_metrics",
        evaluations["base"],
        "--phase1_metrics",
        evaluations["better"],
        "--output_dir",
        tmp_path,
        "--resamples",
        "200",
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONIOENCODING": "ascii"},
        cwd=tmp_path,
    )
    assert done.returncode == 0 and done.stdout.startswith("VERDICT: "), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(chromium.BINARY is None, reason="needs a Chromium: apt-get install chromium")
@pytest.mark.parametrize("width, height", [(1280, 800), (390, 844)])
def test_chromium_shows_the_verdict_in_the_first_screen_without_network_or_console_message(
    golden, hostile, width, height
):
    for page in (golden / "report.html", hostile / "report.html", hostile / "qa.html"):
        script = """(() => { const v = document.querySelector("#verdict strong")?.getBoundingClientRect();
                     return [v ? v.bottom : 0, document.documentElement.scrollWidth]; })()"""
        seen = chromium.look(page, width, height, script=script)
        assert seen["console"] == []
        assert [u for u in seen["requests"] if not u.startswith(("file:", "data:"))] == []
        bottom, wide = seen["value"]
        assert bottom < height / 2 and wide <= width, page
