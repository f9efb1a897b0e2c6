"""Checkers out of public data sets, to be joined to evaluation problems by their ids.

open-r1/codeforces has Python programs (`id`, `aliases`, `generated_checker`), CodeContests+ C++ ones that include
testlib.h (`source`, `id`, `checker`). Other columns are named by the user.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from phase1.contract.comparison import CHECKERS, PYTHON, TESTLIB
from phase1.data.decontaminate import id_key
from phase1.data.public_sets import Located, rows_of
from phase1.files import BadInput

COLUMNS = {"id": "id", PYTHON: "generated_checker", TESTLIB: "checker"}  # by what a column holds
_CODEFORCES_ID = re.compile(r"\d+/[A-Za-z]\d*\Z")  # as open-r1 writes it
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"](?:bits/)?testlib\.h[>"].*$', re.MULTILINE)


class CheckerFiles:
    """The checkers of some files, by problem."""

    def __init__(self, paths: Iterable[Path], columns: Mapping[str, str], header: Path | None = None) -> None:
        """Read them.

        Args:
            columns: the columns that differ from COLUMNS, by what they hold.
            header: testlib.h, which C++ checkers include.

        Raises:
            BadInput: a file is missing or damaged, or holds no checker.
        """
        self._columns = {**COLUMNS, **columns}
        self._header = None if header is None else _text(header)
        self._found: dict[str, dict[str, str]] = {}  # checker by comparable id
        for path in paths:
            before = len(self._found)
            for row in rows_of(path, [*self._columns.values(), "aliases", "source"]):
                self._take(row)
            if len(self._found) == before:
                raise BadInput(
                    f"{path}: holds no checker: no row has {self._columns['id']!r} with {self._columns[PYTHON]!r} or "
                    f"{self._columns[TESTLIB]!r}; name its columns with --checker_columns"
                )

    def of(self, problem_id: str) -> dict[str, str] | None:
        """The checker of a problem, as `test_cases.checker` has it; None where there is none.

        Raises:
            BadInput: it includes testlib.h, and no header was given.
        """
        found = self._found.get(id_key(problem_id) or "")
        if found is None or found["kind"] != TESTLIB or not _INCLUDE.search(found["source"]):
            return found
        if self._header is None:
            raise BadInput(
                f"the checker of {problem_id} includes testlib.h; give it with --testlib_header "
                "(https://github.com/MikeMirzayanov/testlib)"
            )
        header = self._header
        return {**found, "source": _INCLUDE.sub(lambda _: header, found["source"], count=1)}

    def _take(self, found: Located) -> None:
        row = found.row
        for kind in CHECKERS:
            source = row.get(self._columns[kind])
            if isinstance(source, str) and source.strip():
                for key in _keys(row, self._columns["id"]):
                    self._found.setdefault(key, {"kind": kind, "source": source})
                return


def _keys(row: Mapping[str, JsonValue], column: str) -> list[str]:
    """The comparable ids of a row and of its aliases."""
    aliases = row.get("aliases")
    names = [row.get(column), *(aliases if isinstance(aliases, list) else ())]
    keys = []
    for name in names:
        if not isinstance(name, str) or not name:
            continue
        if _CODEFORCES_ID.match(name):
            name = f"Codeforces/{name}"
        elif isinstance(source := row.get("source"), str) and "/" not in name:
            name = f"{source}/{name}"
        if key := id_key(name):
            keys.append(key)
    return keys


def columns_from(told: Sequence[str]) -> dict[str, str]:
    """The columns in `--checker_columns id=NAME python=NAME testlib=NAME`.

    Raises:
        BadInput: a part is not of that form.
    """
    columns = {}
    for part in told:
        what, equals, name = part.partition("=")
        if what not in COLUMNS or not equals or not name:
            raise BadInput(f"--checker_columns {part}: expected id=COLUMN, python=COLUMN or testlib=COLUMN")
        columns[what] = name
    return columns


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise BadInput(f"--testlib_header {path}: cannot be read ({e})") from None
