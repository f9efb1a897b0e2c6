"""What tests/test_docs.py reads: pages, shell blocks, links, and the flags and knobs of every command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.conftest import ROOT

# A block that CI runs has a line of its own before it, which a reader of the page does not see:
#     <!-- runnable -->    <!-- runnable: after the demo; 300 s; exit 1 -->
MARKER = re.compile(r"<!--\s*runnable\s*(?::\s*(?P<options>.*?))?\s*-->\s*$")
TIME_LIMIT = 180  # seconds, unless the marker says otherwise: a guard against hanging, not a measurement
SHELL = ("bash", "sh", "shell")

# command -> the pages that describe its stage (globs in docs/); _NN_*.md is a section that joins page NN
PAGES = {
    "prepare_eval_data.py": ("01_*.md",),
    "prepare_sft_data.py": ("01_*.md",),
    "run_sft.sh": ("02_*.md",),
    "phase1.train": ("02_*.md",),
    "phase1.train.watch": ("03_*.md",),
    "patches/apply_verl_patch.py": ("02_*.md", "03_*.md"),
    "phase1_eval.py": ("04_*.md",),
    "phase1.judge": ("judge.md",),
    "run_eval_checkpoints.sh": ("04_*.md",),
    "phase1.checkpoints": ("04_*.md",),
    "phase1.report.power": ("04_*.md",),
    "generate_report.py": ("05_*.md",),
    "convert_fsdp_to_hf.py": ("05_*.md",),
    "verify_handoff.py": ("05_*.md",),
}


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is its first line in the page. `options` is None unless it is marked as runnable."""

    page: Path
    line: int
    language: str
    text: str
    options: str | None = None

    @property
    def after_demo(self) -> bool:
        return "after the demo" in (self.options or "")

    @property
    def seconds(self) -> int:
        return int(m[1]) if (m := re.search(r"(\d+) s\b", self.options or "")) else TIME_LIMIT

    @property
    def exit_code(self) -> int:
        return int(m[1]) if (m := re.search(r"exit (\d+)", self.options or "")) else 0


def pages() -> list[Path]:
    """README.md, the other pages of the root, docs/*.md."""
    return sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md"))


def blocks(page: Path, text: str | None = None) -> Iterator[Block]:
    """The fenced blocks of a page. ValueError for a marker that no shell block follows or an option that is unknown."""
    marked, fence, start, body = None, None, 0, []
    for number, line in enumerate((page.read_text(encoding="utf-8") if text is None else text).splitlines(), 1):
        if fence:
            if line.strip() == fence[1]:
                yield Block(page, start, fence[2], "\n".join(body), marked)
                marked, fence = None, None
            else:
                body.append(line.removeprefix(fence[0]))
        elif m := re.match(r"(\s*)(```+|~~~+)\s*(\w*)", line):
            fence, start, body = (m[1], m[2], m[3]), number + 1, []
            if marked is not None and m[3] not in SHELL:
                raise ValueError(
                    f"{page.name}:{number}: marked as runnable, but the block is {m[3] or 'of no language'}, not bash"
                )
        elif m := MARKER.match(line.strip()):
            marked = m["options"] or ""
            for option in filter(None, re.split(r"\s*;\s*", marked)):
                if not re.fullmatch(r"after the demo|\d+ s|exit \d+", option):
                    raise ValueError(
                        f"{page.name}:{number}: unknown option {option!r}; known are: after the demo, N s, exit N"
                    )
        elif line.strip() and marked is not None:
            raise ValueError(f"{page.name}:{number}: a runnable marker stands right before its block")
    if fence or marked is not None:
        raise ValueError(f"{page.name}: ends inside a block or after a runnable marker")


def commands() -> list[str]:
    """Every command with flags of its own: root scripts, modules of phase1 that are run with -m, the patch applier."""
    scripts = [*ROOT.glob("*.py"), *(ROOT / "patches").glob("*.py")]
    found = [str(p.relative_to(ROOT)) for p in scripts if "Parser(" in p.read_text(encoding="utf-8")]
    for path in (ROOT / "phase1").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if path.name == "__main__.py":
            found.append(name.removesuffix(".__main__"))
        elif (text := path.read_text(encoding="utf-8")) and "Parser(" in text and "__main__" in text:
            found.append(name)
    return sorted([*found, "run_eval_checkpoints.sh", "run_sft.sh"])


@cache
def flags(command: str) -> frozenset[str]:
    """The flags that a Python command's --help names; of a shell script the flags it reads and its `${KNOB:-…}`
    variables."""
    if command.endswith(".sh"):
        text = (ROOT / command).read_text(encoding="utf-8")
        knobs = re.findall(r'(?<![\w])([A-Z][A-Z_0-9]+)="\$\{\1:-', text)
        return frozenset([*knobs, *re.findall(r"^\s+(--[a-z_]+)\)", text, re.MULTILINE)]) - {"--help"}
    text = _help(command)
    subcommands = re.findall(
        r"^  \{([\w,-]+)\}", text, re.MULTILINE
    )  # positional choices too: their --help is the same once more
    texts = [text, *(_help(command, name) for names in subcommands for name in names.split(","))]
    # After the description, whose example lines name others' flags.
    lines = [
        line for t in texts for line in re.findall(r"^  (-.*?)(?:  |$)", t[t.rindex("\noptions:") :], re.MULTILINE)
    ]
    return frozenset(f for line in lines for f in re.findall(r"--[\w-]+", line)) - {"--help"}


def _help(command: str, *more: str) -> str:
    how = ["-m", command] if command.startswith("phase1.") else [command]
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, *how, *more, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def stage_text(command: str) -> str:
    """The text of the pages of a command's stage; empty while none is written."""
    found = [p for pattern in PAGES[command] for p in sorted((ROOT / "docs").glob(pattern))]
    return "\n".join(p.read_text(encoding="utf-8") for p in found)


def calls(text: str) -> Iterator[tuple[str, list[str]]]:
    """(command, its flags) for each call of one of our Python commands in a shell block."""
    names = sorted((c for c in PAGES if not c.endswith(".sh")), key=len, reverse=True)
    for line in re.sub(r"\\\n", " ", text).splitlines():
        for part in re.split(r"\s(?:\||&&|\|\||;|#)(?:\s|$)", line):
            for name in names:
                pattern = (
                    rf"-m {re.escape(name)}(?=\s|$)"
                    if name.startswith("phase1.")
                    else rf"(?:^|[\s/\"]){re.escape(name)}(?=[\s\"]|$)"
                )
                if "python" in part.lower() and (m := re.search(pattern, part)):
                    yield name, re.findall(r"(?<=\s)(--[a-z][\w-]*)", part[m.end() :])
                    break


def anchors(page: Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+?)\s*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", h).lower()).replace(" ", "-") for h in headings}


def links(page: Path) -> Iterator[str]:
    """The relative links of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            yield target
