"""Records for the tests of what is derived from them."""

from __future__ import annotations

from typing import Any

from phase1.contract.records import Record


def record(i: int, error_type: str = "success", **kw: Any) -> Record:
    """A record of problem `i` that ended as `error_type`; `kw` are further fields."""
    base = {
        "dataset": "codecontests_valid",
        "problem_id": f"p{i:04d}",
        "prompt": "solve",
        "prompt_sha256": "x",
        "completion": "<code>1</code>",
        "finish_reason": "stop",
        "prompt_tokens": 10,
        "gen_tokens": 100,
        "gen_time": 1.0,
        "started": 1000.0 + i,
        "session": 0,
        "error_type": error_type,
        "accepted": error_type == "success",
        "pass_ratio": float(error_type == "success"),
        "judge_time": 0.5,
        "finished": 1002.0 + i,
    }
    return Record(**{**base, **kw})
