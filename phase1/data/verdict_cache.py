"""Verdicts on training solutions, kept across runs by the hash of program, tests, limits and the judge's rules."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from phase1.files import BadInput, sha256_json, sha256_text
from phase1.judge.behaviour import behaviour
from phase1.judge.config import JudgeConfig
from phase1.judge.verdict import Verdict
from phase1.line_log import LineLog, whole_lines

LIMITS = ("judge", "compare", "run_timeout", "memory_limit_mb")  # settings under which a verdict holds


@dataclass(frozen=True)
class KeptVerdict:
    """What is kept of a verdict (phase1.judge.verdict.Verdict); `detail` is cut to 200 characters."""

    error_type: str
    tests_passed: int
    tests_total: int
    detail: str


class VerdictCache:
    """A file of verdicts that only grows.

    Attributes:
        verdicts: by key.
        earlier: the keys that earlier runs left.
    """

    def __init__(self, path: Path, config: JudgeConfig) -> None:
        """Read the file, where there is one, and open it.

        Raises:
            BadInput: a line is no verdict.
        """
        limits = asdict(config)
        rules = behaviour(config)
        made_by = rules.model_dump(include={"comparison", "programs", "judge_code"})
        self._limits = sha256_json({**{name: limits[name] for name in LIMITS}, **made_by})
        self.verdicts: dict[str, KeptVerdict] = {}
        for number, line in enumerate(whole_lines(path), 1):
            try:
                row = json.loads(line)
                kept = {f.name: row[f.name] for f in fields(KeptVerdict)}
                self.verdicts[row["key"]] = KeptVerdict(**kept)
            except (ValueError, KeyError, TypeError):
                raise BadInput(
                    f"{path}:{number}: not a cached verdict; delete this line, or the file to judge all again"
                ) from None
        self.earlier = frozenset(self.verdicts)
        self._log = LineLog(path)

    def key(self, program: str, tests: str) -> str:
        """The key of a verdict on `program`; `tests` is the digest of its tests."""
        return sha256_text(f"{self._limits}\0{tests}\0{program}")

    def add(self, key: str, verdict: Verdict) -> KeptVerdict:
        """Write a verdict down, unless the judge itself failed; returns what is kept of it."""
        kept = KeptVerdict(verdict.error_type, verdict.tests_passed, verdict.tests_total, verdict.detail[:200])
        if kept.error_type != "sandbox_error":
            self.verdicts[key] = kept
            self._log.append({"key": key, **asdict(kept)})
        return kept

    def close(self) -> None:
        self._log.close()
