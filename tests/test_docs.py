"""The pages say what is so: their runnable blocks run, their flags exist, every flag is described, links and tests
named exist."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import chromium
from tests.conftest import ROOT
from tests.reading_docs import PAGES, anchors, blocks, calls, commands, flags, links, pages, stage_text

DEMO = ROOT / "outputs" / "demo"
RUNNABLE = [page for page in pages() if any(b.options is not None for b in blocks(page))]


def page_id(page: Path) -> str:
    return page.name


# -------------------------------------------------------------------------------------------------------- what is run
@pytest.fixture
def scratch(tmp_path) -> Path:
    """A copy of the tree as it would be committed now, with the environment that the tests run in as its .venv."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    root = tmp_path / "toolkit"
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    (root / ".venv").symlink_to(sys.prefix)
    return root


def run(text: str, cwd: Path, seconds: int) -> tuple[int, str]:
    """Exit code and output of a shell block; everything it started is ended with it."""
    environment = {
        **os.environ,
        "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
        "VIRTUAL_ENV": sys.prefix,
    }
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return (
            -1,
            f"not done after {seconds} s; a longer limit goes into the marker: <!-- runnable: {2 * seconds} s -->",
        )
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode, out


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=page_id)
def test_the_runnable_blocks_of_a_page_run_in_their_order_from_a_fresh_copy(page, scratch):
    needs_demo = [b for b in blocks(page) if b.after_demo]
    demo_there = (DEMO / "handoff" / "handoff.json").exists()
    if needs_demo and demo_there:
        shutil.copytree(DEMO, scratch / "outputs" / "demo", symlinks=True)
    for block in blocks(page):
        if block.options is None or (block.after_demo and not demo_there):
            continue
        code, out = run(block.text, scratch, block.seconds)
        assert code == block.exit_code, (
            f"{page.name}:{block.line}: exit code {code}, expected {block.exit_code}\n{block.text}\n{out[-3000:]}"
        )
    if needs_demo and not demo_there:
        pytest.skip(f"{len(needs_demo)} block(s) need outputs/demo: bash run_demo.sh has not been run to its end here")


@pytest.mark.parametrize(
    "text, error",
    [
        ("<!-- runnable -->\n```python\nx\n```\n", "not bash"),
        ("<!-- runnable -->\nSome text.\n```bash\nx\n```\n", "right before"),
        ("<!-- runnable: quickly -->\n```bash\nx\n```\n", "unknown option 'quickly'"),
        ("<!-- runnable -->\n", "ends"),
        ("```bash\nx\n", "ends inside"),
    ],
)
def test_a_misplaced_or_misspelt_marker_is_an_error(text, error):
    with pytest.raises(ValueError, match=error):
        list(blocks(Path("page.md"), text))


def test_blocks_are_found_with_their_options_and_lines():
    text = (
        "```bash\nnot run\n```\n<!-- runnable: after the demo; 90 s; exit 1 -->\n\n  ```bash\n  a\n    b\n  ```\n\n"
        "````text\n```\n````\n"
    )
    first, second, third = blocks(Path("page.md"), text)
    assert first.options is None and (second.line, second.text) == (7, "a\n  b") and third.text == "```"
    assert (second.after_demo, second.seconds, second.exit_code) == (True, 90, 1)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("true\nexit 3", (3, "")),
        ("false | true", (1, "")),
        ("echo $UNSET_VARIABLE", (1, "unbound")),
        ("sleep 60 & wait", (-1, "not done")),
    ],
)
def test_a_block_fails_on_its_first_error_and_never_hangs(tmp_path, text, expected):
    code, out = run(text, tmp_path, 1)
    assert code == expected[0] and expected[1] in out


# -------------------------------------------------------------------------------------------------------------- flags
def test_every_command_has_its_page_and_every_page_its_command():
    assert sorted(PAGES) == commands(), (
        "tests/reading_docs.py, PAGES: add the command that is missing, or take out the one that is gone"
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", PAGES)
def test_every_flag_of_a_command_stands_in_the_page_of_its_stage(command):
    assert flags(command), "no flag found in its --help"
    text = stage_text(command)
    if not text:
        pytest.skip(f"docs/{PAGES[command][0]} is not written yet")
    missing = [f for f in sorted(flags(command)) if not re.search(rf"(?<![\w-]){re.escape(f)}(?![\w-])", text)]
    assert not missing, f"docs/{PAGES[command][0]} does not name {', '.join(missing)} of {command}"


@pytest.mark.slow
@pytest.mark.parametrize("page", pages(), ids=page_id)
def test_every_flag_in_a_shell_block_is_one_that_the_command_has(page):
    for block in blocks(page):
        for command, used in calls(block.text):
            unknown = set(used) - flags(command)
            assert not unknown, f"{page.name}:{block.line}: {command} has no {', '.join(sorted(unknown))}"


def test_calls_are_found_over_continued_lines_and_end_at_a_pipe():
    text = (
        "python generate_report.py --gate \\\n  r.toml | tee --append log\n.venv/bin/python -m phase1.judge "
        '--probe && echo --x\n"$PYTHON" "$HERE/phase1_eval.py" --limit 3'
    )
    assert list(calls(text)) == [
        ("generate_report.py", ["--gate"]),
        ("phase1.judge", ["--probe"]),
        ("phase1_eval.py", ["--limit"]),
    ]


# ----------------------------------------------------------------------------------------------------- links and names
@pytest.mark.parametrize("page", [*pages(), ROOT / "outputs" / "README.md"], ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        goal = page if not path else page.parent / path
        assert goal.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(goal), f"{page.name}: {target}: no such heading in {goal.name}"


def test_every_test_and_script_that_the_table_of_requirements_names_exists():
    text = (ROOT / "docs" / "seed_to_script.md").read_text(encoding="utf-8")
    defined = set(
        re.findall(
            r"^def (test_\w+)",
            "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py")),
            re.MULTILINE,
        )
    )
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) > 30 and not named - defined, f"no such test: {', '.join(sorted(named - defined))}"
    files = set(re.findall(r"`([\w/]+\.(?:py|sh))`", text))
    assert files and not [f for f in files if not (ROOT / f).exists()]


def test_every_package_and_every_file_of_the_root_stands_in_the_tree():
    page = ROOT / "docs" / "files_and_environments.md"
    tree = next(b.text for b in blocks(page) if b.text.startswith("prepare_eval_data.py"))
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [f for f in map(Path, listed.stdout.splitlines()) if (ROOT / f).exists()]
    shared = {f.parts[1] for f in files if f.parts[0] == "phase1"} - {"__init__.py"}
    root = {f.name for f in files if len(f.parts) == 1 and f.suffix in (".py", ".sh", ".txt")}
    assert len(shared) > 10 and len(root) > 10
    missing = [name for name in sorted(shared | root) if not re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", tree)]
    assert not missing, "docs/files_and_environments.md, The tree: name it there"
    named = set(re.findall(r"[\w-]+\.(?:py|sh|txt)", tree)) - {"requirements.txt"}
    gone = [name for name in sorted(named) if not (ROOT / name).exists() and not (ROOT / "phase1" / name).exists()]
    assert set(gone) <= {"machine.py"}, "docs/files_and_environments.md, The tree: gone"


@pytest.mark.parametrize(
    "path, ignored",
    [
        ("outputs/README.md", False),
        ("outputs/report/report.html", True),
        ("outputs/eval_final/README.md", True),
        (".venv", True),  # a link, which a pattern with a slash at its end does not match
        (".venv-latest", True),
        ("docs/files_and_environments.md", False),
    ],
)
def test_git_takes_the_page_of_outputs_and_nothing_that_a_run_or_a_set_up_leaves(tmp_path, path, ignored):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copy2(ROOT / ".gitignore", tmp_path)
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).symlink_to(tmp_path)
    found = subprocess.run(["git", "check-ignore", "-q", path], cwd=tmp_path)
    assert (found.returncode == 0) == ignored


def test_every_figure_is_shown_by_a_page_and_small():
    shown = {(page.parent / target).resolve() for page in pages() for target in links(page) if target.endswith(".png")}
    figures = set((ROOT / "docs" / "figures").glob("*.png"))
    assert figures and shown == figures
    assert not [f.name for f in figures if f.stat().st_size > 300_000]


@pytest.mark.slow
@pytest.mark.skipif(chromium.BINARY is None, reason="needs a Chromium: apt-get install chromium")
@pytest.mark.skipif(
    not (DEMO / "handoff" / "handoff.json").exists(), reason="bash run_demo.sh has not been run to its end here"
)
def test_the_figures_can_be_made_again_from_the_demo(tmp_path):
    shutil.copytree(DEMO, tmp_path / "outputs" / "demo", symlinks=True)
    subprocess.run(
        [
            sys.executable,
            ROOT / "docs" / "figures" / "make_figures.py",
            "--demo",
            tmp_path / "outputs" / "demo",
            "--output_dir",
            tmp_path,
        ],
        check=True,
    )
    made = {f.name: f.stat().st_size for f in tmp_path.glob("*.png")}
    assert sorted(made) == sorted(f.name for f in (ROOT / "docs" / "figures").glob("*.png"))
    assert all(10_000 < size < 300_000 for size in made.values()), made


# ------------------------------------------------------------------------------------------------------ project's own
def test_the_licence_is_the_whole_of_apache_2():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"] and "END OF TERMS AND CONDITIONS" in text
    assert [text.count(f"\n   {n}. ") for n in range(1, 10)] == [1] * 9


def test_the_citation_file_has_what_its_format_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["license"] == "Apache-2.0"
    assert citation["title"] and citation["message"] and citation["authors"]
    assert citation["version"] in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
