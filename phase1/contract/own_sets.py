"""Evaluation sets of one's own: `sets.toml` beside the manifests names them.

[my_set]
role = "dev"                  # or "test-only": reported, never selected on
tier = 1                      # 1 at every checkpoint, 2 every 2000 steps, 3 at the phase's end; default 3
source = "../my_set.jsonl"    # what prepare_eval_data.py makes it of, from this file's folder; default: by hand
qa_size = 30                  # lines of its QA log, and of each kind of failure; defaults 30 and 5
qa_per_stratum = 5
size = 10                     # how many problems it must have; default: as many as there are
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phase1.contract.problems import EVAL_SETS, EvalSet, manifest_path, read_manifest
from phase1.files import BadInput

NAME = "sets.toml"
ROLES = ("dev", "test-only")
_NUMBERS = {"tier": 3, "qa_size": 30, "qa_per_stratum": 5, "size": 0}  # and what each is where it is left out
_KEYS = ("role", "source", *_NUMBERS)


@dataclass(frozen=True)
class OwnSet(EvalSet):
    """A set of sets.toml. `size` 0 says nothing; `source`: what its files are made of, None where they are written by
    hand."""

    source: Path | None = None


def is_own_name(name: str) -> bool:
    """Whether a set of one's own may be called so: the name of a file, and of none of the contract's sets."""
    return name not in EVAL_SETS and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name) is not None


def own_sets(manifest_dir: str | Path) -> dict[str, OwnSet]:
    """The sets that `sets.toml` in the directory names; none where it is not there.

    Raises:
        BadInput: the file is no TOML, or an entry says something that is not known or not allowed.
    """
    path = Path(manifest_dir) / NAME
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as e:
        raise BadInput(f'{path}: not readable as TOML ({e}); a set is a table: [name], then role = "dev"') from None
    return {name: _own_set(path, name, table) for name, table in tables.items()}


def _own_set(path: Path, name: str, table: Any) -> OwnSet:
    where = f"{path}: [{name}]"
    if not isinstance(table, dict):
        raise BadInput(f'{path}: {name} is no table; a set is [{name}], then role = "dev"')
    if name in EVAL_SETS:
        raise BadInput(f"{where}: is a set of the contract, which stays as it is; give yours another name")
    if not is_own_name(name):
        raise BadInput(f"{where}: names files; use letters, digits, _ and -, at most 64")
    if unknown := [key for key in table if key not in _KEYS]:
        raise BadInput(f"{where}: {unknown[0]} is not known; the keys are {', '.join(_KEYS)}")
    if (role := table.get("role")) not in ROLES:
        raise BadInput(f"{where}: role is {role!r}, expected {' or '.join(ROLES)}")
    numbers = {key: table.get(key, usual) for key, usual in _NUMBERS.items()}
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise BadInput(f"{where}: {key} is {value!r}, expected a whole number from 0")
    if numbers["tier"] not in (1, 2, 3):
        raise BadInput(f"{where}: tier is {numbers['tier']}, expected 1, 2 or 3")
    if role == "test-only" and numbers["tier"] < 3:
        raise BadInput(f'{where}: test-only, so no checkpoint may be evaluated on it; say tier = 3, or role = "dev"')
    source = table.get("source")
    if source is not None and not isinstance(source, str):
        raise BadInput(f"{where}: source is {source!r}, expected the path of a file")
    return OwnSet(name, **numbers, test_only=role == "test-only", source=path.parent / source if source else None)


def known_sets(manifest_dir: str | Path) -> dict[str, EvalSet]:
    """The contract's sets, then those of sets.toml, by name.

    Raises:
        BadInput: as `own_sets`.
    """
    return {**EVAL_SETS, **own_sets(manifest_dir)}


def need_known(names: Iterable[str], manifest_dir: str | Path) -> None:
    """Refuse a name that no set has.

    Raises:
        BadInput: says how to add a set.
    """
    known = known_sets(manifest_dir)
    for name in names:
        if name not in known:
            raise BadInput(
                f"--datasets {name}: no such set; there are {', '.join(known)}; to add one, write [{name}] and "
                f'role = "dev" into {Path(manifest_dir) / NAME} (docs/01_data_preprocessing.md)'
            )


def size_warning(sizes: Mapping[str, int], sets: Mapping[str, EvalSet]) -> str:
    """What is to be said of sets that have another number of problems than they should; "" where none has.

    Args:
        sizes: problems by set.
        sets: what is known of sets, by name; others pass.
    """
    wrong = [
        f"{name} has {n} problems instead of {sets[name].size}"
        for name, n in sizes.items()
        if name in sets and sets[name].size not in (0, n)
    ]
    if not wrong:
        return ""
    return (
        f"{', '.join(wrong)}: a part of them (--limit), or a set of your own, which takes a name of its own in {NAME}"
    )


def size_warning_of(manifest_dir: str | Path, names: Iterable[str]) -> str:
    """The same for the manifests of those sets among `names` that have one, whole whatever --limit says."""
    there = [name for name in names if manifest_path(manifest_dir, name).exists()]
    return size_warning({name: len(read_manifest(manifest_dir, name)) for name in there}, known_sets(manifest_dir))
