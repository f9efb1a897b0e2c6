"""phase1.data.duplicates: what repeats another record, and which solutions of a problem stay."""

import tracemalloc

import numpy as np
import pytest

from phase1.data.duplicates import near_duplicates, signature, surplus
from tests.data.prepared import STATEMENT, prepare, record


def test_near_duplicates_need_both_statement_and_solution_alike():
    words = [f"w{i}" for i in range(200)]
    code = [f"c{i}" for i in range(80)]
    changed, other = ["new", *words[1:]], [f"v{i}" for i in range(200)]
    statements = np.stack([signature(w) for w in (words, changed, words, other)])
    solutions = np.stack([signature(c) for c in (code, code, [f"d{i}" for i in range(80)], code)])
    assert near_duplicates(statements, solutions, 0.85) == {1: 0}


@pytest.mark.slow
def test_memory_stays_small_where_every_record_is_alike():
    rows, r = 8000, np.random.default_rng(1)
    alike = np.tile(r.integers(0, 1 << 16, 128).astype(np.uint16), (rows, 1))
    changed = r.random(alike.shape) < 0.05
    alike[changed] = r.integers(0, 1 << 16, int(changed.sum()))
    tracemalloc.start()
    try:
        found = near_duplicates(alike[:, :64], alike[:, 64:], 0.8)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) > 0.9 * rows and set(found.values()).isdisjoint(found)
    assert peak < 1500 * rows  # bytes; 16 pairs a row from each of 12 bands would be 3 kB a row and their copies


def test_keep_chooses_among_the_solutions_of_a_problem():
    problems, lengths = [7, 7, 8, 7], [30, 10, 5, 20]
    dropped = {keep: surplus(problems, lengths, keep) for keep in ("shortest", "first", "all", "2")}
    assert dropped == {"shortest": {0, 3}, "first": {1, 3}, "all": set(), "2": {0}}


def test_one_statement_under_two_ids_is_one_problem(tmp_path, monkeypatch):
    records = [record(1, "print(1)\nx = 0", statement=STATEMENT), record(2, "print(1)", statement=STATEMENT), record(3)]
    made = prepare(tmp_path, records, "--keep", "shortest", monkeypatch=monkeypatch)
    assert [r["name"] for r in made["rejects"]] == ["2001_A. Title"]
