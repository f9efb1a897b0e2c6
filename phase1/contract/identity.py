"""What makes two evaluations of a data set comparable: the problems, how they were asked, and how answers were judged.

This is the one rule for the question. The choice of the best checkpoint ranks only evaluations whose identities are
equal; whoever has to explain a difference takes it from `differences`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import JsonValue

from phase1.contract.state.evaluation_run import EvaluationRun


@dataclass(frozen=True)
class Identity:
    """How the rates of one data set were measured. Two identities are equal when their rates can be compared.

    `settings`: value by name (`prompts_sha256`, `sampling.temperature`, `judge.run_timeout`, …). What was not recorded
    has no entry, so it equals only what was not recorded either.
    """

    settings: dict[str, JsonValue]

    @classmethod
    def of(cls, run: EvaluationRun, dataset: str) -> Identity:
        """The identity of a data set in one evaluation, from the evaluation's run.json."""
        asked = run.datasets.get(dataset)
        settings: dict[str, JsonValue] = {"prompts_sha256": run.prompts_sha256}
        settings |= {f"sampling.{name}": value for name, value in run.sampling.items()}
        settings |= {f"judge.{name}": value for name, value in run.judge_settings.items()}
        if asked is not None:
            settings["problems"] = asked.problems
            settings["problems_sha256"] = asked.problems_sha256
            if asked.problems_sha256 is None:  # the manifest only chooses problems; their hash says more
                settings["manifest_sha256"] = asked.manifest_sha256
        if "vllm" in str(run.sampling.get("backend", "vllm")):
            # The same model scores differently under another vLLM version: vllm-project/vllm#42801.
            settings["vllm_version"] = run.stamp.versions.get("vllm")
        return cls({name: value for name, value in settings.items() if value is not None})


@dataclass(frozen=True)
class Difference:
    """A setting in which two evaluations differ; the value is None where it was not recorded."""

    setting: str
    first: JsonValue
    second: JsonValue

    @property
    def recorded_on_both(self) -> bool:
        """Whether the two were certainly measured otherwise: where one side says nothing, nobody can tell."""
        return self.first is not None and self.second is not None


def differences(first: Identity, second: Identity) -> list[Difference]:
    """Every setting in which the two differ, in the order of their settings; empty when they are comparable."""
    names = dict.fromkeys([*first.settings, *second.settings])
    pairs = [Difference(name, first.settings.get(name), second.settings.get(name)) for name in names]
    return [pair for pair in pairs if pair.first != pair.second]
