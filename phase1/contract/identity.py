"""What makes two evaluations comparable, and what one folder must be made of from its first session to its last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import JsonValue

from phase1.contract.problems import Problem, data_hashes
from phase1.contract.state.evaluation_run import Behaviour, EvaluatedModel, EvaluatedSet, EvaluationRun


class Difference(NamedTuple):
    """A field in which two identities differ, by its dotted name."""

    field: str
    was: object
    now: object


@dataclass(frozen=True)
class Identity:
    """The model, the question, how answers were drawn, how they were judged, over which problems, by which rules.

    `behaviour` is None where a run.json is too old to say.
    """

    model: EvaluatedModel
    prompts_sha256: str | None
    sampling: dict[str, JsonValue]
    judge: dict[str, JsonValue]
    datasets: dict[str, EvaluatedSet]
    behaviour: Behaviour | None = None

    @classmethod
    def of(cls, run: EvaluationRun) -> Identity:
        """The identity that a run.json records; what an older file leaves out has the value that it had then."""
        return cls(
            model=run.model,
            prompts_sha256=run.prompts_sha256,
            sampling=run.sampling,
            judge=run.judge_settings,
            datasets=run.datasets,
            behaviour=run.behaviour,
        )

    def fields(self) -> dict[str, Any]:
        """The fields by name, as run.json has them."""
        return vars(self).copy()

    def first_difference(self, other: Identity) -> Difference | None:
        """Why `other` may not go on in this one's folder; None where it may.

        Data sets that only one of them has do not count. Nor does the model's path: the fingerprint tells models apart.
        Nor do rules that one of them does not know: `phase1.evaluate.folder.need_known_rules` asks for them.
        """
        return _first_difference(self._shared_with(other), other._shared_with(self), "")

    def _shared_with(self, other: Identity) -> dict[str, Any]:
        rules = self.behaviour if other.behaviour else None
        return {
            "model": self.model.model_dump(exclude={"path"}),
            "prompts_sha256": self.prompts_sha256,
            "sampling": self.sampling,
            "judge": self.judge,
            "datasets": {name: held.model_dump() for name, held in self.datasets.items() if name in other.datasets},
            "behaviour": rules.model_dump() if rules else None,
        }


def evaluated_sets(manifest_dir: Path, problems: Mapping[str, list[Problem]]) -> dict[str, EvaluatedSet]:
    """What run.json keeps of the problems: hashes of manifest and problems, and how many."""
    return {name: EvaluatedSet(**data_hashes(manifest_dir, name, found)) for name, found in problems.items()}


def _first_difference(was: dict[str, Any], wanted: dict[str, Any], prefix: str) -> Difference | None:
    for key in {**was, **wanted}:  # a mode that was on, and is left out now, is a difference too
        before, value = was.get(key), wanted.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            found = _first_difference(before, value, f"{prefix}{key}.")
            if found:
                return found
        elif before != value:
            return Difference(prefix + key, before, value)
    return None
