"""Programs built by combination, for holding the judge against plain Python: a way to read, to write, to end, and a
guard.

Every program does the same work (`WORK`), so what differs between two of them is only how text comes in, how it goes
out, and how the interpreter ends. All combinations of the four would be some 80,000; `combinations()` is a fixed choice
of them in which every pair of parts occurs (tests/judge/test_conformance.py checks it).

The parts are in tests/judge/conformance/*.txt, so that programs read as programs. Programs written by hand are in
tests/judge/conformance_styles.py; running both sides in tests/judge/conformance_run.py; what may differ, and why, in
tests/judge/conformance_explained.py.
"""

from __future__ import annotations

import functools
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("conformance")


@dataclass(frozen=True)
class Part:
    """One way to do something: its name and the source for it."""

    name: str
    code: str


@dataclass(frozen=True)
class Program:
    """A program with the input it gets. `packages`: it needs numpy, which the reference must be shown."""

    name: str
    code: str
    stdin: str = ""
    packages: bool = False


INPUTS = (
    "3\n10 20 30\nabc\n",
    "2\n7 -7",  # no newline at the end
    "1\r\n5\r\n",  # line ends of Windows
    "",
    "4\n1 2 3 4\n\n  padded  \n\n",
    "1\nh\u00e9llo \u4e16\u754c\n",
    "1\n" + "9 " * 3000 + "\n",
)


def blocks(name: str) -> dict[str, str]:
    """Name and source of each block of tests/judge/conformance/NAME.txt."""
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    heads = [block.partition("\n") for block in text.split("\n#### ")[1:]]
    return {head.strip(): code.strip("\n") + "\n" for head, _, code in heads}


def _parts(name: str) -> list[Part]:
    return [Part(key, code.rstrip("\n")) for key, code in blocks(name).items()]


READS, WRITES, ENDS, GUARDS = map(_parts, ("read", "write", "end", "guard"))

WORK = """
out(f"{len(lines)} lines\\n")
for line in lines:
    out(line.strip()[::-1][:80] + "\\n")
"""


def build(read: Part, write: Part, end: Part, guard: Part, stdin: str) -> Program:
    """The program of four parts."""
    body = f"{WORK}{end.code}\n"
    guarded = (
        guard.code.replace("{body4}", textwrap.indent(body, "    ").rstrip())
        .replace("{body8}", textwrap.indent(body, "        ").rstrip())
        .replace("{body}", body.strip())
        .replace("{literal}", repr(body))
    )
    name = f"{read.name}/{write.name}/{end.name}/{guard.name}"
    return Program(name, f"{read.code}\n{write.code}\n{guarded}\n", stdin, packages=guard.name == "numpy")


@functools.cache
def combinations() -> tuple[Program, ...]:
    """The fixed choice: every write with every end, a fifth of them twice, each with the read and guard least seen
    beside them."""
    seen: Counter[tuple[str, str]] = Counter()
    programs: dict[str, Program] = {}
    for w, write in enumerate(WRITES):
        for e, end in enumerate(ENDS):
            for _ in range(2 if (w + e) % 5 == 0 else 1):
                ways = (_Way(read, write, end, guard) for read in READS for guard in GUARDS)
                way = min(ways, key=lambda way: way.cost(seen))
                seen.update(way.pairs)
                program = build(way.read, write, end, way.guard, INPUTS[(w * 3 + e) % len(INPUTS)])
                programs.setdefault(program.name, program)
    return tuple(programs.values())


@dataclass(frozen=True)
class _Way:
    """A candidate for the next combination."""

    read: Part
    write: Part
    end: Part
    guard: Part

    @property
    def pairs(self) -> list[tuple[str, str]]:
        read, write, end, guard = (
            f"r:{self.read.name}",
            f"w:{self.write.name}",
            f"e:{self.end.name}",
            f"g:{self.guard.name}",
        )
        return [(read, write), (read, end), (read, guard), (write, guard), (end, guard)]

    def cost(self, seen: Counter[tuple[str, str]]) -> float:
        """How often its pairs were taken. numpy takes a tenth of a second to import, so each pair with it is wanted
        once only."""
        counts = [seen[pair] for pair in self.pairs]
        rare = self.guard.name == "numpy"
        return sum(9.0 if n and rare else 0.0 if n == 0 else 1 + n / 100 for n in counts)
