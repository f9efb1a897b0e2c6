"""One pass over the checkpoints: convert, evaluate, choose the best, keep it, warn early. Run under the lock.

Whatever fails is said on stderr, so that cron mails it, and stops nothing but itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from phase1.arguments import show_next, words_of_command
from phase1.checkpoints.attempts import Attempts, print_error
from phase1.checkpoints.choose import Ranking, rank
from phase1.checkpoints.early_warning import warn_early
from phase1.checkpoints.evaluate_all import evaluate_all
from phase1.checkpoints.evaluations import covers, warn_of_damaged
from phase1.checkpoints.find import Checkpoint, find_checkpoints, look_at
from phase1.checkpoints.prune import prune
from phase1.checkpoints.publish import best_kept, checkpoint_model, publish_best, release_others
from phase1.checkpoints.settings import Settings
from phase1.checkpoints.status import read_status
from phase1.checkpoints.status_page import write_status_page
from phase1.contract.own_sets import known_sets
from phase1.contract.problems import read_manifest
from phase1.contract.state.tracker import step_folders
from phase1.evaluate.finished import FinishedEvaluation, finished_evaluations
from phase1.files import BadInput, fingerprint


def one_pass(settings: Settings) -> int:
    """Look at every checkpoint once. Returns the exit code: 1 when something failed or is newly worse than Phase 0.

    Raises:
        BadInput: a manifest or attempts.json is damaged, GPUs are busy, there is no disk space, or phase1_eval.py
            refuses a flag. What was evaluated until then is published first.
    """
    for name in settings.sets_of(step=1):
        read_manifest(settings.manifest_dir, name)  # BadInput now rather than once a checkpoint
    attempts = Attempts(settings.output_dir)
    todo = find_work(settings, attempts)
    if settings.dry_run:
        show_plan(todo, settings)
        return 0
    done = evaluate_all(todo, settings, attempts)
    evaluated = finished_evaluations(settings.output_dir).by_step
    ranking = rank(evaluated.values())
    well = [guarded("best_checkpoint.json", lambda: publish_best(evaluated, ranking, settings))]
    if settings.phase0_metrics:
        phase0 = settings.phase0_metrics
        well.append(guarded("the early warning", lambda: warn_early(evaluated.values(), phase0, settings.output_dir)))
    if well[0]:  # nothing is deleted while best_checkpoint.json may still name it
        kept = str(settings.output_dir / "kept")
        well.append(guarded(kept, lambda: release_others(evaluated, ranking, attempts, settings)))
        if settings.prune:
            well.append(guarded("--prune", lambda: prune_evaluated(evaluated, ranking, settings)))
    if todo:
        well.append(guarded("status.html", lambda: write_page(settings)))
        if settings.best_checkpoint.is_file():
            show_next("evaluate the best step on every set, for the report", final_command(settings))
    if done.stopped:
        raise done.stopped
    return int(done.failed or not all(well))


# --------------------------------------------------------------------------------------------------- what is to be done
def find_work(settings: Settings, attempts: Attempts) -> list[Checkpoint]:
    """The checkpoints to be evaluated, or whose damage is to be recorded; prints why each other one is skipped."""
    evaluated, damaged = finished_evaluations(settings.output_dir)
    warn_of_damaged(damaged)
    todo = []
    for c in candidates(settings):
        try:
            skip = reason_to_skip(c, settings, evaluated.get(c.step), attempts)
        except OSError as e:  # it vanished between two looks, or cannot be read: that must not stop the others
            skip = f"{e.filename}: {e.strerror}"
        if skip:
            print(f"step {c.step}: skipped, {skip}", flush=True)
        else:
            todo.append(c)
    return todo


def candidates(settings: Settings) -> list[Checkpoint]:
    """The checkpoints on disk, and from outputs/kept/ those that rotation deleted before their evaluation was done."""
    found = {c.step: c for c in find_checkpoints(settings.checkpoint_dir)}
    for step, home in step_folders(settings.output_dir / "kept").items():
        if step not in found:
            found[step] = look_at(step, home)
    return [found[step] for step in sorted(found)]


def reason_to_skip(c: Checkpoint, settings: Settings, evaluation: FinishedEvaluation | None, attempts: Attempts) -> str:
    """Why a checkpoint is left alone in this pass; empty when it is to be evaluated, or its damage to be recorded."""
    if settings.steps and c.step not in settings.steps:
        return "not in --steps"
    if settings.since is not None and c.step < settings.since:
        return f"before --since {settings.since}"
    if evaluation and covers(evaluation, settings.sets_of(c.step), settings.manifest_dir):
        loadable = not c.problem and not c.convert
        if loadable and evaluation.run.model.fingerprint not in (None, fingerprint(c.model_path)):
            folder = settings.evaluation_dir(c.step)
            return f"evaluated, but its files have changed since; move {folder} away to have it evaluated again"
        return "evaluated"
    if c.problem and not c.damaged:
        return c.problem
    failures = attempts.failures(c)
    if len(failures) >= settings.max_attempts:
        last = failures[-1].error
        return f"given up after {len(failures)} attempts ({last}); repair it, or raise --max_attempts"
    return ""


def show_plan(todo: Sequence[Checkpoint], settings: Settings) -> None:
    """--dry_run: print what a pass would do."""
    for c in todo:
        action = "converting, then evaluating" if c.convert else "evaluating"
        print(f"step {c.step}: {c.problem or ' '.join([action, *settings.sets_of(c.step)])}")
    if settings.prune:
        evaluated = finished_evaluations(settings.output_dir).by_step
        prune_evaluated(evaluated, rank(evaluated.values()), settings)


# --------------------------------------------------------------------------------------------------------- afterwards
def prune_evaluated(evaluated: Mapping[int, FinishedEvaluation], ranking: Ranking, settings: Settings) -> None:
    """--prune; with --dry_run it only prints. The best one stays even where nothing is kept.

    So does one that training saved again since its evaluation: it is another model, and that one nobody has evaluated.
    """
    prune(
        settings.checkpoint_dir,
        best=[*ranking.top(max(1, settings.keep_best)), *best_kept(ranking, settings)],
        evaluated=[
            step
            for step, e in evaluated.items()
            if covers(e, settings.sets_of(step), settings.manifest_dir)
            and e.run.model.fingerprint in (None, fingerprint(checkpoint_model(settings, step)))
        ],
        dry_run=settings.dry_run,
    )


def write_page(settings: Settings) -> None:
    """outputs/status.html, as `status` writes it."""
    write_status_page(read_status(settings.checkpoint_dir, settings.output_dir))


def final_command(settings: Settings) -> str:
    """phase1_eval.py of the best step on all data sets, the test-only ones too."""
    run = ("--checkpoint_dir", settings.checkpoint_dir, "--step", "best", "--best_checkpoint", settings.best_checkpoint)
    data = ("--manifest_dir", settings.manifest_dir, "--datasets", *known_sets(settings.manifest_dir))
    out = settings.output_dir / "eval_final"
    same = (*settings.passed_on, *(("--dtype", settings.dtype) if settings.dtype else ()))
    return words_of_command("python", "phase1_eval.py", *run, *data, *same, "--output_dir", out)


def guarded(what: str, do: Callable[[], None]) -> bool:
    """Do one thing after the evaluations; a failure is printed and keeps none of the others from being done."""
    try:
        do()
    except (OSError, BadInput) as e:
        print_error(f"{what}: {e}")
        return False
    return True
