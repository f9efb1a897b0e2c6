"""README.zh-CN.md is README.md in Chinese: the same commands and links.

That its links are alive is shown by tests/test_docs.py, for every page.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.reading_docs import blocks, links

ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"


def commands_of(page: Path, text: str | None = None) -> list[tuple[str, str]]:
    """Language and text of every fenced block of a page, in order."""
    return [(block.language, block.text) for block in blocks(page, text)]


def test_both_pages_have_the_same_commands_and_examples_in_the_same_order():
    assert len(commands_of(ENGLISH)) >= 5
    assert commands_of(CHINESE) == commands_of(ENGLISH)


def test_both_pages_lead_to_the_same_places_and_to_each_other():
    english, chinese = list(links(ENGLISH)), list(links(CHINESE))
    assert english.count(CHINESE.name) == 1 and chinese.count(ENGLISH.name) == 1
    english.remove(CHINESE.name)
    chinese.remove(ENGLISH.name)
    assert sorted(chinese) == sorted(english)


def test_both_pages_have_the_same_sections_and_tables():
    def shape(page: Path) -> list[str]:
        return [line[:2] for line in page.read_text(encoding="utf-8").splitlines() if line.startswith(("#", "| ", "!"))]

    assert shape(CHINESE) == shape(ENGLISH)


@pytest.mark.parametrize("old, new", [("bash run_demo.sh", "bash run_demo"), ("```bash", "```sh"), ("*/10", "*/5")])
def test_a_command_that_differs_is_found(old, new):
    text = CHINESE.read_text(encoding="utf-8")
    assert old in text
    assert commands_of(CHINESE, text.replace(old, new)) != commands_of(ENGLISH)


def test_the_readme_stays_within_200_lines():
    assert all(len(page.read_text(encoding="utf-8").splitlines()) <= 200 for page in (ENGLISH, CHINESE))
