"""Evaluate one model: generate a program for every problem, run it in the sandbox, write metrics and QA logs.

    python phase1_eval.py --checkpoint_dir checkpoints/rlvr_coding_model/phase1_sft_qwen7b_coder --step 500
    python phase1_eval.py --checkpoint_dir … --step best --datasets codecontests_test humaneval \\
        --output_dir outputs/eval_final
    python phase1_eval.py --model_path Qwen2.5-Coder-7B-Instruct/ --output_dir outputs/phase0     # the base model
    python phase1_eval.py --rejudge --output_dir outputs/eval_step_500 --run_timeout 60    # stored answers, no GPU

Where there are GPUs and vLLM it starts one server a GPU and judges while they generate. Run it again after any kill:
what is finished stays finished. Exit 0 done, 1 some problems could not be generated or judged (run again), 2 bad input.
"""

import argparse
import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from phase1.contract.identity import Identity, evaluated_sets
from phase1.contract.problems import EVAL_SETS, Problem, load_problems
from phase1.contract.prompts import PROMPTS_SHA256
from phase1.contract.state import evaluation_run
from phase1.contract.state.base import Stamp
from phase1.contract.state.evaluation_run import EvaluatedModel, EvaluationRun
from phase1.evaluate.folder import (
    begin_session,
    close_run,
    finished,
    open_run,
    read_results,
    set_aside_results,
    stored_problems,
    unfinished,
    update_run,
)
from phase1.evaluate.looks import note_looks
from phase1.evaluate.loop import evaluate
from phase1.evaluate.metrics import write_metrics
from phase1.evaluate.qa import write_qa_logs
from phase1.evaluate.table import show
from phase1.evaluate.target import Target, find_target, guard_test_sets, training_model
from phase1.evaluate.wandb_log import log_evaluation
from phase1.files import BadInput, fingerprint, only_one, run_script, run_stamp
from phase1.generate.generate import Backend
from phase1.generate.options import (
    add_generator_arguments,
    add_sampling_arguments,
    backend_from,
    positive,
    sampling_from,
)
from phase1.generate.requests import Sampling
from phase1.judge.config import JudgeConfig, add_judge_arguments, config_from
from phase1.machine import usable_gpus

HERE = Path(__file__).resolve().parent


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_argument_group("model", "a checkpoint of training, or any Hugging Face directory (Phase 0)")
    group.add_argument("--checkpoint_dir", type=Path, help="folder of the global_step_N folders")
    group.add_argument("--step", help="N, or `best` for the step that --best_checkpoint names")
    group.add_argument(
        "--best_checkpoint",
        type=Path,
        default=HERE / "outputs" / "best_checkpoint.json",
        help="written by run_eval_checkpoints.sh (default: outputs/best_checkpoint.json)",
    )
    group.add_argument("--model_path", type=Path, help="an HF model directory, instead of --checkpoint_dir and --step")
    group = parser.add_argument_group("problems")
    group.add_argument(
        "--datasets",
        nargs="+",
        choices=list(EVAL_SETS),
        metavar="SET",
        help=f"of {', '.join(EVAL_SETS)} (default: tier 1, codecontests_valid and mbpp_reg)",
    )
    group.add_argument(
        "--manifest_dir",
        type=Path,
        default=HERE / "data" / "manifests",
        help="{set}_manifest.jsonl; raw files lie in ../raw (default: data/manifests)",
    )
    group.add_argument("--limit", type=positive, help="only the first N problems of each set")
    group.add_argument("--final", action="store_true", help="allow the test-only sets for any step, not only the best")
    group.add_argument(
        "--use_external_tests",
        action="store_true",
        help="tests come from the raw files; always so, kept for existing command lines",
    )
    group.add_argument(
        "--no_submit_api",
        action="store_true",
        help="no judge's submit API is used; always so, kept for existing command lines",
    )
    group = parser.add_argument_group("again", "from what is on disk, without the model")
    group.add_argument(
        "--rejudge",
        action="store_true",
        help="judge the stored completions of --output_dir again, with the judge flags and tests of now",
    )
    group.add_argument(
        "--recompute", action="store_true", help="derive metrics.json, summary.json and qa_logs of --output_dir again"
    )
    add_sampling_arguments(parser)
    add_generator_arguments(parser)
    add_judge_arguments(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output_dir", type=Path, help="default: outputs/eval_step_N; needed with --model_path and --step best"
    )
    group.add_argument(
        "--lock_wait",
        type=float,
        default=600,
        help="seconds to wait for another evaluation in --output_dir (default: 600)",
    )
    group.add_argument("--wandb_project", help="log to this Weights & Biases project (contract: rlvr_coding_model)")
    group.add_argument("--wandb_run_name", help="default: the name of --output_dir")
    group.add_argument(
        "--wandb_mode",
        default="offline",
        choices=["online", "offline", "disabled"],
        help="default: offline; upload later with `wandb sync`",
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if args.rejudge or args.recompute:
        return again(args)
    args.datasets = args.datasets or ["codecontests_valid", "mbpp_reg"]
    target = find_target(args)
    guard_test_sets(args, target)
    problems = {d: load_problems(args.manifest_dir, d, args.limit) for d in args.datasets}
    sampling, judge = sampling_from(args), config_from(args)
    logs = target.output_dir / "logs"
    backend = backend_from(args, target.model_path, logs, training_model(args.checkpoint_dir))
    identity = Identity(
        model=EvaluatedModel(path=str(target.model_path), step=target.step, fingerprint=fingerprint(target.model_path)),
        prompts_sha256=PROMPTS_SHA256,
        sampling=sampling.identity() | backend.identity(),
        judge=judge.identity(),
        datasets=evaluated_sets(args.manifest_dir, problems),
    )
    with only_one(target.output_dir / "lock", wait=args.lock_wait) as mine:
        refuse_if_taken(target, mine)
        run = open_run(target.output_dir, identity)
        wanted = sum(map(len, problems.values())) * sampling.n_samples
        if run.complete and len(finished(target.output_dir, list(problems))) == wanted:
            print(f"{target.output_dir}: complete already; nothing is generated or judged")
        else:
            run = begin_session(target.output_dir, run, Stamp.model_validate(run_stamp(vars(args))))
            note_looks(target.output_dir, args.datasets, target.step, target.model_path, limit=args.limit)
            judge = leave_cores(judge, backend)
            run = generate_and_judge(target, problems, run, sampling=sampling, backend=backend, judge=judge)
        return conclude(args, target, run)


def again(args: argparse.Namespace) -> int:
    """--rejudge and --recompute: from what is on disk, without the model."""
    if not args.output_dir and not args.step:
        raise BadInput(
            f"--{'rejudge' if args.rejudge else 'recompute'} needs --output_dir, the folder of an evaluation, "
            "or --step N"
        )
    output_dir = args.output_dir or HERE / "outputs" / f"eval_step_{args.step}"
    run = EvaluationRun.read(output_dir / evaluation_run.NAME)
    target = Target(Path(run.model.path or "."), run.model.step, False, output_dir)
    args.datasets = args.datasets or list(run.datasets)
    if other := [d for d in args.datasets if d not in run.datasets]:
        raise BadInput(f"{output_dir}: holds no answers for {other[0]}; leave out --rejudge to have it generated")
    with only_one(output_dir / "lock", wait=args.lock_wait) as mine:
        refuse_if_taken(target, mine)
        now = run_stamp(vars(args))
        if args.recompute:
            run = update_run(output_dir, run, recomputed=now)
            return conclude(args, target, run)
        if set(args.datasets) != set(run.datasets):
            raise BadInput(f"--rejudge judges every set of {output_dir} alike; leave out --datasets")
        problems, judge = stored_problems(output_dir, run, args.manifest_dir, args.datasets), config_from(args)
        sets = evaluated_sets(args.manifest_dir, problems)
        stamp = Stamp.model_validate(run.stamp.model_dump(exclude_unset=True) | {"rejudged_by": now})
        run = set_aside_results(output_dir, run, judge.identity(), sets, stamp)
        note_looks(target.output_dir, args.datasets, target.step, target.model_path, limit=args.limit)
        sampling = Sampling(n_samples=run.n_samples)
        run = generate_and_judge(target, problems, run, sampling=sampling, backend=None, judge=judge)
        return conclude(args, target, run)


def refuse_if_taken(target: Target, mine: bool) -> None:
    if not mine:
        raise BadInput(
            f"{target.output_dir}: another evaluation is at work there "
            f"({(target.output_dir / 'lock').read_text()}); wait for it or stop it"
        )


def generate_and_judge(
    target: Target,
    problems: dict[str, list[Problem]],
    run: EvaluationRun,
    *,
    sampling: Sampling,
    backend: Backend | None,
    judge: JudgeConfig,
) -> EvaluationRun:
    """Work off what is not finished; run.json says `interrupted` when it could not."""
    session = len(run.sessions) - 1
    try:
        outcome = asyncio.run(
            evaluate(
                target.output_dir,
                problems,
                model_path=target.model_path,
                sampling=sampling,
                backend=backend,
                judge_config=judge,
                session=session,
            )
        )
    except BaseException as e:
        close_run(target.output_dir, run, "interrupted")
        if isinstance(e, asyncio.CancelledError):
            raise SystemExit("stopped by SIGTERM; run the same command again to go on") from None
        raise
    before = (run.sandbox or {}).get("lost_sandboxes", 0)  # by earlier sessions
    lost = outcome.lost_sandboxes + (before if isinstance(before, int) else 0)
    if lost:
        print(
            f"warning: {lost} sandboxes ended without a word and their programs were run again: verdicts stand, but "
            "the machine or a program interfered (docs/judge.md)",
            file=sys.stderr,
        )
    fields: dict[str, object] = {"sandbox": outcome.sandbox | {"lost_sandboxes": lost}}
    if outcome.generation is not None:
        fields["generation"] = outcome.generation
    if found := outcome.vllm_versions:  # of the servers, which may run from another environment
        versions = {**run.stamp.versions, "vllm": ", ".join(found)}
        fields["stamp"] = run.stamp.model_copy(update={"versions": versions})
    return run.model_copy(update=fields)


def conclude(args: argparse.Namespace, target: Target, run: EvaluationRun) -> int:
    """Derive metrics and QA logs from the records, say whether the evaluation is complete."""
    records = read_results(target.output_dir, list(run.datasets))
    summary = write_metrics(target.output_dir, records)
    write_qa_logs(
        target.output_dir,
        records,
        extra={"step": target.step, "checkpoint": target.output_dir.name, "model": str(target.model_path)},
    )
    missing = unfinished(records, run)
    if not run.complete:
        close_run(target.output_dir, run, "incomplete" if missing else "complete")
    show(summary, target.model_path)
    if args.wandb_project:
        log_evaluation(
            args.wandb_project,
            args.wandb_run_name or target.output_dir.name,
            args.wandb_mode,
            target.step,
            summary,
            target.output_dir,
        )
    if missing:
        print(
            f"incomplete, {len(missing)} reasons, first {missing[0]}. Run again, with every data set that was "
            f"begun: {' '.join(run.datasets)}"
        )
    return 1 if missing else 0


def leave_cores(judge: JudgeConfig, backend: Backend) -> JudgeConfig:
    """Two cores for each server of our own, which keeps an API process and an engine busy, but never more than half of
    them."""
    config = backend.vllm.servers if backend.vllm else None
    if judge.workers or judge.reserve_cores or config is None:
        return judge
    servers = config.num_servers or max(1, len(usable_gpus()) // config.tensor_parallel_size)
    return replace(judge, reserve_cores=min(2 * servers, judge.parallel // 2))


if __name__ == "__main__":
    run_script(main)
