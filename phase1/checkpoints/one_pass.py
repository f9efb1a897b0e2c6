"""One pass over the checkpoints: convert, evaluate, choose the best, keep it, warn early. Run by phase1.checkpoints,
under its lock.

    outputs/best_checkpoint.json     recomputed from all complete evaluations
    outputs/regressions.json         each evaluation's comparison with Phase 0

Whatever fails is said on stderr, so that cron mails it, and stops nothing but itself.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from phase1.checkpoints import keep as keeping
from phase1.checkpoints.attempts import Attempts, sets_of, try_one, warn
from phase1.checkpoints.choose import (
    against_phase0,
    against_runner_up,
    choose_best,
    evaluated_steps,
    is_evaluated,
    ranking,
)
from phase1.checkpoints.find import Checkpoint, find_checkpoints, look_at, settled, step_folders
from phase1.checkpoints.gpus import choose_gpus
from phase1.contract.problems import read_manifest
from phase1.files import BadInput, fingerprint, now, read_json, run_stamp, sha256_file, write_json

SPACE_CHECK = 30  # seconds between two looks at a disk that is too full
COMMAND_TIMEOUT = 600  # seconds for --on_regression: one that hangs must not keep the night waiting


def one_pass(args: argparse.Namespace, passed_on: list[str]) -> int:
    """Look at every checkpoint once. Returns 0, or 1 when something failed or is worse than Phase 0 and had not been
    said yet."""
    attempts = Attempts(args.output_dir)
    checkpoints = candidates(args)
    todo, evaluated = [], evaluated_steps(args.output_dir)
    for name in sets_of(1, args):
        read_manifest(args.manifest_dir, name)  # BadInput now rather than once a checkpoint
    for c in checkpoints:
        try:
            skip = reason_to_skip(c, args, evaluated, attempts)
        except OSError as e:  # it vanished between two looks, or cannot be read: that must not stop the others
            skip = f"{e.filename}: {e.strerror}"
        if skip:
            print(f"step {c.step}: skipped, {skip}", flush=True)
        else:
            todo.append(c)
    if args.dry_run:
        for c in todo:
            action = "converting, then evaluating" if c.convert else "evaluating"
            print(f"step {c.step}: {c.problem or f'{action} ' + ' '.join(sets_of(c.step, args))}")
        if args.prune:
            prune(args, dry_run=True)
        return 0
    failed, stopped = [], None
    try:
        if todo:
            needed = any(not c.damaged for c in todo)  # damage is recorded on any machine
            environment = choose_gpus(args.gpus, args.max_gpu_mem_used, args.force, passed_on) if needed else {}
            # Those that a kill cut short come last: one that takes the whole machine down must not keep the others
            # waiting.
            for c in sorted(settled(todo, args.settle), key=lambda c: (attempts.cut_short(c.step), c.step)):
                wait_for_space(args)
                failed += [c.step] * (not try_one(c, args, passed_on, attempts, environment))
    except BadInput as e:  # busy GPUs, no space: what was evaluated so far is published all the same
        stopped = e
    said = [
        guarded("best_checkpoint.json", lambda: publish_best(args)),
        guarded("the early warning", lambda: warn_early(args)),
    ]
    if said[0]:  # nothing goes while best_checkpoint.json may still name it
        said.append(
            guarded(str(args.output_dir / "kept"), lambda: keeping.release(args.output_dir, wanted(args, attempts)))
        )
        if args.prune:
            said.append(guarded("--prune", lambda: prune(args, dry_run=False)))
    if todo:
        said.append(guarded("status.html", lambda: write_page(args)))
    if stopped:
        raise stopped
    return int(bool(failed) or not all(said))


# --------------------------------------------------------------------------------------------------- what is to be done
def candidates(args: argparse.Namespace) -> list[Checkpoint]:
    """The checkpoints on disk, and those that rotation took away before their evaluation was done, from
    outputs/kept/."""
    found = {c.step: c for c in find_checkpoints(args.checkpoint_dir)}
    for step, home in step_folders(args.output_dir / "kept").items():
        if step not in found:
            found[step] = look_at(step, home)
    return [found[s] for s in sorted(found)]


def reason_to_skip(c: Checkpoint, args: argparse.Namespace, evaluated: dict[int, dict], attempts: Attempts) -> str:
    """Why a checkpoint is left alone in this pass; empty when it is to be evaluated, or its damage to be recorded."""
    if args.steps and c.step not in args.steps:
        return "not in --steps"
    if args.since is not None and c.step < args.since:
        return f"before --since {args.since}"
    if c.step in evaluated and is_evaluated(evaluated[c.step], sets_of(c.step, args), args.manifest_dir):
        seen = (evaluated[c.step]["run"].get("model") or {}).get("fingerprint")
        if not c.problem and not c.convert and seen not in (None, fingerprint(c.model_path)):
            return (
                f"evaluated, but its files are others by now: move {args.output_dir / f'eval_step_{c.step}'} away "
                "to have it done again"
            )
        return "evaluated"
    if c.problem and not c.damaged:
        return c.problem
    failures = attempts.failures(c)
    if len(failures) >= args.max_attempts:
        return f"given up after {len(failures)} attempts ({failures[-1]['error']}); mend it, or raise --max_attempts"
    return ""


def wait_for_space(args: argparse.Namespace) -> None:
    """Wait until the output directory's disk has --min_free_gb; BadInput after --max_wait seconds."""
    deadline = time.monotonic() + args.max_wait
    while (free := shutil.disk_usage(args.output_dir).free / 1e9) < args.min_free_gb:
        if time.monotonic() >= deadline:
            raise BadInput(
                f"{args.output_dir}: {free:.2f} GB free after waiting {args.max_wait:g} s, --min_free_gb asks "
                f"for {args.min_free_gb:g}; free some space (--prune)"
            )
        print(f"waiting for disk space: {free:.2f} of {args.min_free_gb:g} GB free in {args.output_dir}", flush=True)
        time.sleep(min(SPACE_CHECK, max(0.1, deadline - time.monotonic())))


# ------------------------------------------------------------------------------------------------------------
# afterwards
def publish_best(args: argparse.Namespace) -> None:
    """Keep the best models, recompute best_checkpoint.json from all complete evaluations, and point best_model at the
    first."""
    evaluated = evaluated_steps(args.output_dir)
    rates, _ = ranking(evaluated)
    best = choose_best(evaluated)
    if best is None:
        print(
            "no complete evaluation holds exec_success_rate on codecontests_valid yet; best_checkpoint.json is "
            "left as it is"
        )
        return
    failures, path = [], args.output_dir / "best_checkpoint.json"
    old = earlier(path)
    for step in list(rates)[: args.keep_best]:
        try:
            keep_evaluated(step, evaluated[step], args)
        except OSError as e:  # a full disk
            failures.append(f"step {step} could not be kept: {e}")
        except BadInput as e:
            if step == best["best_step"] and (old.get("best_step"), old.get("kept")) != (
                step,
                False,
            ):  # said aloud once
                failures.append(f"step {step}, the best, is not kept: {e}")
            else:
                print(f"warning: step {step} is not kept: {e}")
    model = keeping.kept_model(args.output_dir, best["best_step"]) if args.keep_best else None
    best["model_path"] = str(model or args.checkpoint_dir / f"global_step_{best['best_step']}" / "huggingface")
    best["runner_up"] = against_runner_up(args.output_dir, rates)
    write_json(path, best | {"kept": bool(model), "stamp": run_stamp(vars(args))})
    keeping.point_best_model(args.output_dir, model)
    print(describe(best), flush=True)
    if failures:
        raise BadInput("; ".join(failures))


def keep_evaluated(step: int, summary: dict, args: argparse.Namespace) -> None:
    """Keep a step's model, and only the very files that were evaluated; BadInput where they are no longer to be had."""
    seen = (summary["run"].get("model") or {}).get("fingerprint")
    kept = keeping.kept_model(args.output_dir, step)
    if kept and (seen is None or fingerprint(kept) == seen):
        return
    source = args.checkpoint_dir / f"global_step_{step}" / "huggingface"
    if not source.is_dir():
        raise BadInput(f"{source} is gone")
    if seen is not None and fingerprint(source) != seen:
        raise BadInput(f"{source} holds other files than were evaluated; it was written again")
    keeping.keep(source, args.output_dir, step)


def best_kept(args: argparse.Namespace, evaluated: dict[int, dict]) -> list[int]:
    """The K best steps of which a model is kept: where the best is lost, or no room is left for it, the next one
    stays."""
    return [s for s in ranking(evaluated)[0] if keeping.kept_model(args.output_dir, s)][: args.keep_best]


def wanted(args: argparse.Namespace, attempts: Attempts) -> set[int]:
    """The steps to stay in outputs/kept/: the K best, also one that somebody wrote into (made smaller with --slim,
    say), the K best that are whole, and those whose evaluation can still be finished from there."""
    evaluated = evaluated_steps(args.output_dir)
    held = [
        look_at(step, home) for step, home in step_folders(args.output_dir / "kept").items() if step not in evaluated
    ]
    unfinished = (c.step for c in held if len(attempts.failures(c)) < args.max_attempts)
    best = list(ranking(evaluated)[0])[: args.keep_best]
    return {*best, *best_kept(args, evaluated), *(unfinished if args.keep_best else ())}


def describe(best: dict[str, Any]) -> str:
    low, high = best["interval"] or (0, 1)
    accepted = "-" if best["best_accepted_at_1"] is None else f"{best['best_accepted_at_1']:.1%}"
    text = (
        f"best step {best['best_step']}: exec_success_rate {best['best_exec_success_rate']:.1%} (95% interval "
        f"{low:.1%} to {high:.1%}), "
        f"accepted@1 {accepted} over {best['problems']} problems"
    )
    if best["not_judged"]:
        text += f"; {best['not_judged']} of them not judged"
    if best["not_comparable"]:
        text += f"; left out, measured otherwise: steps {best['not_comparable']}"
    if second := best["runner_up"]:
        said = {True: "beyond noise", False: "not beyond noise", None: "not tested, records are missing"}[
            second["beyond_noise"]
        ]
        text += f"; step {second['step']} follows with {second['exec_success_rate']:.1%}, {said}"
        text += "" if second["p"] is None else f" (p {second['p']:.2g})"
    return text


def warn_early(args: argparse.Namespace) -> None:
    """Hold every evaluation that was not yet held against Phase 0; BadInput with the numbers when one is worse."""
    if not args.phase0_metrics:
        return
    path = args.output_dir / "regressions.json"
    said, news, failures = earlier(path), [], []
    base = sha256_file(args.phase0_metrics)
    for step, summary in evaluated_steps(args.output_dir).items():
        key = {"phase0_sha256": base, "finished": summary["run"].get("finished")}
        if key.items() <= dict(said.get(str(step)) or {}).items():
            continue
        try:
            worse, unknown = against_phase0(args.phase0_metrics, args.output_dir / f"eval_step_{step}")
        except (OSError, BadInput) as e:  # one that cannot be read must not silence the others
            failures.append(f"step {step}: {e}")
            continue
        for line in unknown:
            warn(f"step {step}: not compared with Phase 0: {line}")
        if worse:
            news.append(f"step {step} is worse than Phase 0: {'; '.join(worse)}")
            if args.on_regression:
                call(
                    args.on_regression,
                    {
                        "PHASE1_STEP": str(step),
                        "PHASE1_REGRESSION": news[-1],
                        "PHASE1_OUTPUT_DIR": str(args.output_dir),
                    },
                )
        said[str(step)] = key | {
            "worse": worse,
            "not_compared": unknown,
            "phase0_metrics": str(args.phase0_metrics),
            "time": now(),
        }
        write_json(path, said)
    if news or failures:
        raise BadInput("\n".join(news + failures))


def earlier(path: Path) -> dict[str, Any]:
    """What an earlier pass wrote; empty where there is nothing to be read. It only keeps things from being said
    twice."""
    try:
        return dict(read_json(path))
    except (BadInput, TypeError, ValueError):
        return {}


def call(command: str, variables: dict[str, str]) -> None:
    """--on_regression: a shell command with the numbers in its environment; killed with all it started after
    COMMAND_TIMEOUT."""
    child = subprocess.Popen(
        command, shell=True, env=os.environ | variables, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        if code := child.wait(COMMAND_TIMEOUT):
            warn(f"--on_regression {command!r} exited with {code}")
    except subprocess.TimeoutExpired:
        warn(f"--on_regression {command!r} is still running after {COMMAND_TIMEOUT:g} s and was killed")
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def prune(args: argparse.Namespace, dry_run: bool) -> None:
    evaluated = evaluated_steps(args.output_dir)
    best = [*list(ranking(evaluated)[0])[: max(1, args.keep_best)], *best_kept(args, evaluated)]
    done = [s for s, e in evaluated.items() if is_evaluated(e, sets_of(s, args), args.manifest_dir)]
    keeping.prune(find_checkpoints(args.checkpoint_dir), args.checkpoint_dir, best, done, dry_run)


def write_page(args: argparse.Namespace) -> None:
    from phase1.checkpoints.status import status_rows, write_status_page

    write_status_page(args, status_rows(args))


def guarded(what: str, do: Callable[[], None]) -> bool:
    """Do one thing after the evaluations; its failure is said and keeps none of the others from being done."""
    try:
        do()
    except (OSError, BadInput) as e:
        warn(f"{what}: {e}")
        return False
    return True
