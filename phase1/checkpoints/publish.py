"""What a pass publishes: the best models are kept, best_checkpoint.json names the best, best_model leads to it.

outputs/best_checkpoint.json     recomputed from all complete evaluations
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from phase1.checkpoints.attempts import Attempts
from phase1.checkpoints.choose import Ranking, against_runner_up, choose_best
from phase1.checkpoints.find import look_at
from phase1.checkpoints.keep import keep, kept_model, point_best_model, release
from phase1.checkpoints.settings import Settings
from phase1.contract.state.base import Stamp, path_beside
from phase1.contract.state.best_checkpoint import BestCheckpoint
from phase1.contract.state.tracker import step_folders
from phase1.evaluate.finished import FinishedEvaluation
from phase1.files import BadInput, fingerprint, run_stamp


def publish_best(evaluated: Mapping[int, FinishedEvaluation], ranking: Ranking, settings: Settings) -> None:
    """Keep the best models, write best_checkpoint.json, and point best_model at the first.

    Raises:
        BadInput: a model could not be kept. All else is published nevertheless.
    """
    best = choose_best(ranking)
    if best is None:
        print(
            "no complete evaluation holds exec_success_rate on codecontests_valid yet; best_checkpoint.json is "
            "left as it is"
        )
        return
    failures = keep_the_best(evaluated, ranking, settings)
    model = kept_model(settings.output_dir, best.best_step) if settings.keep_best else None
    best = best.model_copy(
        update={
            "model_path": path_beside(model or checkpoint_model(settings, best.best_step), settings.best_checkpoint),
            "fingerprint": evaluated[best.best_step].run.model.fingerprint,
            "runner_up": against_runner_up(settings.output_dir, ranking),
            "kept": model is not None,
            "stamp": Stamp.model_validate(run_stamp(asdict(settings))),
        }
    )
    best.write(settings.best_checkpoint)
    point_best_model(settings.output_dir, model)
    if best.warning:
        print(f"warning: {best.warning}")
    print(describe(best), flush=True)
    if failures:
        raise BadInput("; ".join(failures))


def keep_the_best(evaluated: Mapping[int, FinishedEvaluation], ranking: Ranking, settings: Settings) -> list[str]:
    """Keep the K best models; returns what failed.

    That the best model is lost is a failure once; later passes print a warning, lest cron mail it every ten minutes.
    """
    failures = []
    for step in ranking.top(settings.keep_best):
        try:
            keep_evaluated(evaluated[step], settings)
        except OSError as e:  # a full disk
            failures.append(f"step {step} could not be kept: {e}")
        except BadInput as e:
            if step == ranking.best_first[0].step and not known_as_lost(step, settings.best_checkpoint):
                failures.append(f"step {step}, the best, is not kept: {e}")
            else:
                print(f"warning: step {step} is not kept: {e}")
    return failures


def known_as_lost(step: int, best_checkpoint: Path) -> bool:
    """Whether the last pass already published this step as the best without its model being kept."""
    try:
        last = BestCheckpoint.read(best_checkpoint)
    except BadInput:  # missing or damaged: it is written anew
        return False
    return last.best_step == step and last.kept is False


def keep_evaluated(evaluation: FinishedEvaluation, settings: Settings) -> None:
    """Keep the model of an evaluated step, and only the very files that were evaluated.

    Raises:
        BadInput: these files are no longer there.
        OSError: the disk is full.
    """
    step, evaluated_files = evaluation.step, evaluation.run.model.fingerprint
    kept = kept_model(settings.output_dir, step)
    if kept and evaluated_files in (None, fingerprint(kept)):
        return
    source = checkpoint_model(settings, step)
    if not source.is_dir():
        raise BadInput(
            f"{source} is gone: rotated away before it was kept; raise MAX_CKPT_TO_KEEP, or run this more often"
        )
    if evaluated_files not in (None, fingerprint(source)):
        raise BadInput(
            f"{source} was written again since its evaluation; "
            "move its eval_step folder away to have it evaluated again"
        )
    keep(source, settings.output_dir, step, lambda copy: evaluated_files in (None, fingerprint(copy)))


def checkpoint_model(settings: Settings, step: int) -> Path:
    """The model of a step in the checkpoint folder, where training left it."""
    return settings.checkpoint_dir / f"global_step_{step}" / "huggingface"


def best_kept(ranking: Ranking, settings: Settings) -> list[int]:
    """The K best steps of which a model is kept: where the best one is lost, the next one stays."""
    kept = [c.step for c in ranking.best_first if kept_model(settings.output_dir, c.step)]
    return kept[: settings.keep_best]


def release_others(
    evaluated: Mapping[int, FinishedEvaluation], ranking: Ranking, attempts: Attempts, settings: Settings
) -> None:
    """Remove from outputs/kept/ what is no longer needed.

    What stays: the K best, even one that somebody wrote into (made smaller with --slim, say); the K best that are
    whole; and the models whose evaluation can still be finished from there.
    """
    wanted = {*ranking.top(settings.keep_best), *best_kept(ranking, settings)}
    for step, home in step_folders(settings.output_dir / "kept").items():
        unfinished = settings.keep_best and step not in evaluated
        if unfinished and len(attempts.failures(look_at(step, home))) < settings.max_attempts:
            wanted.add(step)
    release(settings.output_dir, wanted)


def describe(best: BestCheckpoint) -> str:
    """The choice in one line, for the log."""
    low, high = best.interval or (0, 1)
    text = (
        f"best step {best.best_step}: exec_success_rate {percent(best.best_exec_success_rate)} (95% interval "
        f"{low:.1%} to {high:.1%}), accepted@1 {percent(best.best_accepted_at_1)} over {best.problems} problems"
    )
    if best.not_judged:
        text += f"; {best.not_judged} of them not judged"
    if best.not_comparable:
        text += f"; left out, measured otherwise: steps {best.not_comparable}"
    if second := best.runner_up:
        verdicts = {True: "beyond noise", False: "not beyond noise", None: "not tested, records are missing"}
        verdict = verdicts[second.beyond_noise]
        text += f"; step {second.step} follows with {percent(second.exec_success_rate)}, {verdict}"
        if second.p is not None:
            text += f" (p {second.p:.2g})"
    return text


def percent(rate: float | None) -> str:
    """A rate of 0 to 1 as people read it; `-` for None."""
    return "-" if rate is None else f"{rate:.1%}"
