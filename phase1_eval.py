"""Evaluate one model: generate a program for every problem, run it in the sandbox, write metrics and QA logs.

    python phase1_eval.py --checkpoint_dir checkpoints/rlvr_coding_model/phase1_sft_qwen7b_coder --step 500
    python phase1_eval.py --checkpoint_dir … --step best --datasets codecontests_test humaneval --output_dir outputs/eval_final
    python phase1_eval.py --model_path Qwen2.5-Coder-7B-Instruct/ --output_dir outputs/phase0     # the base model

Run it again after any kill: what is finished stays finished. Exit 0 done, 1 some problems could not be generated or
judged (run again), 2 bad input.
"""

import argparse
import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from phase1.evaluation import begin_session, close_run, evaluate, finished, open_run, read_results, unfinished
from phase1.files import BadInput, append_line, fingerprint, only_one, read_json, run_script, run_stamp
from phase1.generate import Backend, Sampling
from phase1.judge import JudgeConfig, add_judge_arguments, config_from
from phase1.metrics import write_metrics, write_qa_logs
from phase1.problems import EVAL_SETS, data_hashes, load_problems
from phase1.prompts import PROMPTS_SHA256
from phase1.results import MODEL_ERRORS
from phase1.tracking import log_evaluation

HERE = Path(__file__).resolve().parent


def positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # the model: a checkpoint of training, or any HF directory (Phase 0)
    p.add_argument("--checkpoint_dir", type=Path, help="folder of the global_step_N folders")
    p.add_argument("--step", help="N, or `best` for the step that --best_checkpoint names")
    p.add_argument("--best_checkpoint", type=Path, default=HERE / "outputs" / "best_checkpoint.json", help="written by run_eval_checkpoints.sh (default: outputs/best_checkpoint.json)")
    p.add_argument("--model_path", type=Path, help="an HF model directory, instead of --checkpoint_dir and --step")
    # the problems
    p.add_argument("--datasets", nargs="+", default=["codecontests_valid", "mbpp_reg"], choices=list(EVAL_SETS), metavar="SET", help=f"of {', '.join(EVAL_SETS)} (default: tier 1)")
    p.add_argument("--manifest_dir", type=Path, default=HERE / "data" / "manifests", help="{set}_manifest.jsonl; raw files lie in ../raw (default: data/manifests)")
    p.add_argument("--limit", type=positive, help="only the first N problems of each set")
    p.add_argument("--final", action="store_true", help="allow the test-only sets for a step that is not the best one")
    p.add_argument("--use_external_tests", action="store_true", help="tests come from the raw files; always so, kept for existing command lines")
    p.add_argument("--no_submit_api", action="store_true", help="no judge's submit API is used; always so, kept for existing command lines")
    # generation: EVAL@1 is the default, whatever the model's generation_config.json says
    p.add_argument("--backend", default="transformers", choices=["transformers"], help="what generates (default: transformers)")
    p.add_argument("--batch_size", type=int, default=16, help="problems at a time with transformers (default: 16)")
    p.add_argument("--temperature", type=float, default=0.0)
    p.add_argument("--top_p", type=float, default=1.0)
    p.add_argument("--top_k", type=int, default=-1, help="-1: all tokens (default)")
    p.add_argument("--repetition_penalty", type=float, default=1.0)
    p.add_argument("--max_new_tokens", type=int, default=2048, help="tokens an answer (default: 2048)")
    p.add_argument("--max_model_len", type=int, default=6144, help="tokens of prompt and answer together (default: 6144)")
    p.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    # judging
    add_judge_arguments(p)
    # output
    p.add_argument("--output_dir", type=Path, help="default: outputs/eval_step_N; needed with --model_path and --step best")
    p.add_argument("--lock_wait", type=float, default=600, help="seconds to wait for another evaluation in --output_dir (default: 600)")
    p.add_argument("--wandb_project", help="log to this Weights & Biases project (contract: rlvr_coding_model)")
    p.add_argument("--wandb_run_name", help="default: the name of --output_dir")
    p.add_argument("--wandb_mode", default="offline", choices=["online", "offline", "disabled"], help="default: offline; upload later with `wandb sync`")
    return p.parse_args()


@dataclass(frozen=True)
class Target:
    """What is evaluated and where the result goes."""

    model_path: Path
    step: int | None
    is_best: bool
    output_dir: Path


def main() -> int:
    args = parse_args()
    target = find_target(args)
    guard_test_sets(args, target)
    problems = {d: load_problems(args.manifest_dir, d, args.limit) for d in args.datasets}
    sampling = Sampling(args.temperature, args.top_p, args.top_k, args.repetition_penalty, args.max_new_tokens, args.max_model_len, args.dtype)
    judge = config_from(args)
    identity = {
        "model": {"path": str(target.model_path), "step": target.step, "fingerprint": fingerprint(target.model_path)},
        "prompts_sha256": PROMPTS_SHA256,
        "sampling": {**asdict(sampling), "backend": args.backend},
        "judge": {k: getattr(judge, k) for k in ("judge", "compare", "run_timeout", "memory_limit_mb")},
        "datasets": {d: data_hashes(args.manifest_dir, d, ps) for d, ps in problems.items()},
    }
    with only_one(target.output_dir / "lock", wait=args.lock_wait) as mine:
        if not mine:
            raise BadInput(f"{target.output_dir}: another evaluation is at work there ({(target.output_dir / 'lock').read_text()}); wait for it or stop it")
        run = open_run(target.output_dir, identity)
        if run["status"] == "complete" and sum(map(len, problems.values())) == len(finished(target.output_dir, problems)):
            print(f"{target.output_dir}: complete already; nothing is generated or judged")
        else:
            begin_session(target.output_dir, run, run_stamp(vars(args)))
            note_test_set_use(args, target)
            generate_and_judge(args, target, problems, sampling, judge, run)
        return conclude(args, target, run)


def generate_and_judge(args: argparse.Namespace, target: Target, problems: dict, sampling: Sampling, judge: JudgeConfig, run: dict) -> None:
    """Work off what is not finished; run.json says `interrupted` when it could not."""
    backend = Backend(args.backend, args.batch_size)
    try:
        run["sandbox"] = asyncio.run(evaluate(target.output_dir, problems, target.model_path, sampling, backend, judge, len(run["sessions"]) - 1))
    except BaseException as e:
        close_run(target.output_dir, run, "interrupted")
        if isinstance(e, asyncio.CancelledError):
            raise SystemExit("stopped by SIGTERM; run the same command again to go on") from None
        raise


def conclude(args: argparse.Namespace, target: Target, run: dict) -> int:
    """Derive metrics and QA logs from the records, say whether the evaluation is complete."""
    records = read_results(target.output_dir, list(run["datasets"]))
    summary = write_metrics(target.output_dir, records)
    write_qa_logs(target.output_dir, records, extra={"step": target.step, "checkpoint": target.output_dir.name, "model": str(target.model_path)})
    missing = unfinished(records, run)
    if run["status"] != "complete":
        close_run(target.output_dir, run, "incomplete" if missing else "complete")
    show(summary, target)
    if args.wandb_project:
        log_evaluation(args.wandb_project, args.wandb_run_name or target.output_dir.name, args.wandb_mode, target.step, summary, target.output_dir)
    if missing:
        print(f"incomplete, {len(missing)} reasons, first {missing[0]}. Run again, with every data set that was begun: {' '.join(run['datasets'])}")
    return 1 if missing else 0


def find_target(args: argparse.Namespace) -> Target:
    """Turn --model_path, or --checkpoint_dir with --step, into a model directory and an output directory."""
    if args.model_path:
        if args.step or args.checkpoint_dir:
            raise BadInput("--model_path stands for itself; leave out --checkpoint_dir and --step")
        if not args.output_dir:
            raise BadInput("--model_path needs --output_dir, for example --output_dir outputs/phase0")
        return Target(_model_dir(args.model_path), None, False, args.output_dir)
    if not args.checkpoint_dir or not args.step:
        raise BadInput("give --checkpoint_dir and --step, or --model_path")
    if not args.checkpoint_dir.is_dir():
        raise BadInput(f"{args.checkpoint_dir}: no such folder; --checkpoint_dir holds the global_step_N folders")
    best = read_json(args.best_checkpoint) if args.step == "best" or args.best_checkpoint.exists() else {}
    if args.step == "best" and not args.output_dir:
        raise BadInput("--step best needs --output_dir, for example --output_dir outputs/eval_final")
    try:
        step = int(best["best_step"] if args.step == "best" else args.step)
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"--step {args.step}: neither a number nor a best_step in {args.best_checkpoint}") from None
    model = args.checkpoint_dir / f"global_step_{step}" / "huggingface"
    # A best_checkpoint.json of another run says nothing here: its model lies in this folder, or was kept beside the file.
    best_model = Path(best.get("model_path") or "/").resolve()
    homes = (args.checkpoint_dir.resolve(), args.best_checkpoint.resolve().parent)
    is_best = step == best.get("best_step") and any(best_model.is_relative_to(home) for home in homes)
    if not model.is_dir() and is_best and best_model.is_dir():
        print(f"{model} is gone; evaluating {best_model}, which {args.best_checkpoint} names")
        model = best_model
    return Target(_model_dir(model), step, is_best, args.output_dir or HERE / "outputs" / f"eval_step_{step}")


def _model_dir(path: Path) -> Path:
    path = path.resolve()  # it goes into best_checkpoint.json, which others read from elsewhere
    if not (path / "config.json").is_file():
        raise BadInput(f"{path}: no config.json there; a checkpoint without huggingface/ is converted by convert_fsdp_to_hf.py")
    return path


def guard_test_sets(args: argparse.Namespace, target: Target) -> None:
    """The test-only sets are for the chosen checkpoint and for Phase 0: whoever looks at them earlier selects on them."""
    test_only = [d for d in args.datasets if EVAL_SETS[d].test_only]
    if test_only and target.step is not None and not target.is_best and not args.final:
        raise BadInput(f"--datasets {test_only[0]} is test-only and step {target.step} is not the best step of {args.best_checkpoint}; choose the best first, or say --final")


def note_test_set_use(args: argparse.Namespace, target: Target) -> None:
    """Append each look at a test-only set to test_set_uses.jsonl beside the output directory."""
    for dataset in (d for d in args.datasets if EVAL_SETS[d].test_only):
        append_line(target.output_dir.parent / "test_set_uses.jsonl", {"dataset": dataset, "step": target.step, "model": str(target.model_path), "output_dir": str(target.output_dir), "limit": args.limit})


def show(summary: dict, target: Target) -> None:
    """A row a data set, and what should make a reader pause."""
    print(target.model_path)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for column in ("data set", "n", "accepted@1", "pass_ratio", "exec_success", "syntax", "runtime", "timeout", "wrong", "tokens", "judge s", "cut off"):
        table.add_column(column, justify="left" if column == "data set" else "right", no_wrap=True)
    for name, m in summary["datasets"].items():
        rates = [m[f"{k}_rate"] for k in ("exec_success", "syntax_error", "runtime_error", "timeout", "wrong_answer", "truncation")]
        accepted, *shown, cut = ["-" if r is None else f"{r:.1%}" for r in (m["accepted_at_1"], *rates)]
        ratio, tokens, seconds = ("-" if m[k] is None else f"{m[k]:.{d}f}" for k, d in (("pass_ratio_mean", 3), ("avg_gen_tokens", 0), ("avg_judge_time", 2)))
        table.add_row(name, str(m["total_problems"]), accepted, ratio, *shown, tokens, seconds, cut)
    Console(width=max(Console().width, 140)).print(table)  # narrower, its figures would be dots
    for name, m in summary["datasets"].items():
        others = {k: n for k, n in m["error_counts"].items() if n and k not in MODEL_ERRORS}
        if others:
            print(f"warning: {name}: {', '.join(f'{n} {k}' for k, n in others.items())}: not the model's programs at fault, but counted as not solved")
        if (m["truncation_rate"] or 0) > 0.05:
            print(f"warning: {name}: {m['truncation_rate']:.1%} of the answers were cut off at the token limit (more than 5%)")
        if (m["timeout_rate"] or 0) > 0.10:
            print(f"warning: {name}: {m['timeout_rate']:.1%} of the programs timed out (more than 10%)")


if __name__ == "__main__":
    run_script(main)
