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
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from phase1.arguments import Parser, output_folder, show_next, words_of_command
from phase1.contract.identity import Identity, evaluated_sets
from phase1.contract.own_sets import known_sets, need_known, size_warning_of
from phase1.contract.problems import EVAL_SETS, load_problems
from phase1.contract.prompts import PROMPTS_SHA256
from phase1.contract.state.base import Stamp
from phase1.contract.state.evaluation_run import EvaluatedModel, EvaluationRun
from phase1.evaluate import folder
from phase1.evaluate.looks_at_test_sets import note_looks
from phase1.evaluate.loop import work_off
from phase1.evaluate.metrics import write_metrics
from phase1.evaluate.qa import write_qa_logs
from phase1.evaluate.table import show
from phase1.evaluate.target import Target, TargetChoice, check_loadable, find_target, guard_test_sets, training_model
from phase1.evaluate.wandb_log import WandbRun, log_evaluation
from phase1.files import BadInput, fingerprint, run_script, run_stamp
from phase1.generate.backends import BACKENDS, choose_generator
from phase1.generate.generate import Answering
from phase1.generate.protocol import Generator
from phase1.generate.sampling import Sampling
from phase1.generate.settings import BackendSettings
from phase1.judge.behaviour import behaviour
from phase1.judge.config import add_judge_arguments, config_from

OUTPUTS = Path(__file__).resolve().parent / "outputs"
MANIFESTS = Path(__file__).resolve().parent / "data" / "manifests"


def positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def positive_seconds(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise ValueError
    return float(text)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    p = Parser(__doc__, prog="phase1_eval.py")
    g = p.add_argument_group("the model", "a checkpoint of training, or any Hugging Face directory")
    g.add_argument("--checkpoint_dir", type=Path, help="folder of the global_step_N folders")
    g.add_argument("--step", help="N, or `best` for the step that --best_checkpoint names")
    best = "written by run_eval_checkpoints.sh (default: outputs/best_checkpoint.json)"
    g.add_argument("--best_checkpoint", type=Path, default=OUTPUTS / "best_checkpoint.json", help=best)
    g.add_argument("--model_path", type=Path, help="a model directory, instead of --checkpoint_dir and --step")

    g = p.add_argument_group("the data sets")
    sets = f"of {', '.join(EVAL_SETS)} and those of sets.toml beside the manifests (default: those of tier 1)"
    g.add_argument("--datasets", nargs="+", metavar="SET", help=sets)
    manifests = "holds {set}_manifest.jsonl; the raw files lie in ../raw (default: data/manifests)"
    g.add_argument("--manifest_dir", type=Path, default=MANIFESTS, help=manifests)
    g.add_argument("--limit", type=positive, metavar="N", help="only the first N problems of each set (default: all)")
    final = "open the test-only sets to a step that is not the best one"
    g.add_argument("--final", action="store_true", help=final)
    external = "tests come from the raw files; always so, the flag is kept for existing command lines"
    g.add_argument("--use_external_tests", action="store_true", help=external)
    submit = "no judge's submit API is used; always so, the flag is kept for existing command lines"
    g.add_argument("--no_submit_api", action="store_true", help=submit)

    g = p.add_argument_group("from stored answers", "without the model and without a GPU; the first needs the sandbox")
    rejudge = "judge the completions in --output_dir again, with the judge's flags and the tests of now"
    g.add_argument("--rejudge", action="store_true", help=rejudge)
    recompute = "derive metrics.json, summary.json and qa_logs of --output_dir again"
    g.add_argument("--recompute", action="store_true", help=recompute)

    text = "the defaults are EVAL@1, whatever the model's generation_config.json says"
    g = p.add_argument_group("sampling", text)
    g.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        help="randomness of the answers; 0: greedy, the likeliest token each time (default: 0)",
    )
    g.add_argument("--top_p", type=float, default=1.0, help="share of the probability to sample from (default: 1)")
    g.add_argument("--top_k", type=int, default=-1, help="tokens to sample from; -1: all (default: -1)")
    g.add_argument(
        "--repetition_penalty",
        type=float,
        default=1.0,
        help="factor against tokens that were there before; 1: none (default: 1)",
    )
    g.add_argument("--max_new_tokens", type=positive, default=2048, help="tokens an answer (default: 2048)")
    g.add_argument("--max_model_len", type=positive, default=6144, help="tokens of prompt and answer (default: 6144)")
    dtypes = ("bfloat16", "float16", "float32")
    g.add_argument(
        "--dtype", default="bfloat16", choices=dtypes, help="form of the weights in memory (default: bfloat16)"
    )
    samples = "answers a problem, for pass@k; more than 1 needs --temperature (default: 1)"
    g.add_argument("--n_samples", type=positive, default=1, help=samples)
    g.add_argument("--seed", type=int, default=0, help="seed of sampled answers (default: 0)")

    g = p.add_argument_group("generation backend")
    auto = "auto: vllm where it and a GPU, --vllm_url or --vllm_python are there, else transformers (default: auto)"
    g.add_argument("--backend", default="auto", choices=["auto", *BACKENDS], help=auto)
    g.add_argument("--batch_size", type=positive, default=16, help="answers at a time with transformers (default: 16)")
    concurrent = "requests at a time on each vLLM server (default: 256; with --batch_invariant at most 255)"
    g.add_argument("--max_concurrent", type=positive, default=256, help=concurrent)
    timeout = "seconds for one answer of a vLLM server, then it is tried again (default: 600)"
    g.add_argument("--request_timeout", type=positive_seconds, default=600, metavar="SECONDS", help=timeout)
    stall = "seconds without a token after which a vLLM server is given up (default: 180)"
    g.add_argument("--stall_timeout", type=positive_seconds, default=180, metavar="SECONDS", help=stall)

    g = p.add_argument_group("running vLLM servers", "used instead of servers of our own")
    url = "a server, on any host; repeatable. VLLM_API_KEY is sent where it is set"
    g.add_argument("--vllm_url", action="append", default=[], metavar="URL", help=url)
    served = "the name they serve the model under, where it is not its path"
    g.add_argument("--served_model_name", metavar="NAME", help=served)

    g = p.add_argument_group("vLLM servers of our own", "started for the evaluation, stopped at its end")
    servers = "default: one a visible GPU (or tensor-parallel group); one on a CPU"
    g.add_argument("--num_servers", type=positive, default=0, metavar="N", help=servers)
    parallel = "GPUs a server; a 7B needs one (default: 1)"
    g.add_argument("--tensor_parallel_size", type=positive, default=1, metavar="N", help=parallel)
    memory = "share of each GPU's memory (default: 0.9)"
    g.add_argument("--gpu_memory_utilization", type=float, default=0.9, metavar="SHARE", help=memory)
    invariant = "the same answers at any load, slower; start --vllm_url servers with VLLM_BATCH_INVARIANT=1"
    g.add_argument("--batch_invariant", action="store_true", help=invariant)
    start = "seconds until the servers must answer (default: 900)"
    g.add_argument("--start_timeout", type=positive_seconds, default=900, metavar="SECONDS", help=start)
    g.add_argument("--vllm_python", metavar="EXE", help="the interpreter that has vLLM (default: this one)")
    more = "more arguments of the server, as one word: --vllm_args='--enforce-eager'"
    g.add_argument("--vllm_args", default="", metavar="ARGS", help=more)

    add_judge_arguments(p)

    g = p.add_argument_group("output and W&B")
    output = "default: outputs/eval_step_N; needed with --model_path and --step best"
    g.add_argument("--output_dir", type=output_folder, help=output)
    lock = "seconds to wait for another evaluation in --output_dir (default: 600)"
    g.add_argument("--lock_wait", type=float, default=600, metavar="SECONDS", help=lock)
    g.add_argument("--wandb_project", help="log to this Weights & Biases project (contract: rlvr_coding_model)")
    g.add_argument("--wandb_run_name", help="default: the name of --output_dir")
    mode = "offline: upload it later with `wandb sync` (default: offline)"
    g.add_argument("--wandb_mode", default="offline", choices=["online", "offline", "disabled"], help=mode)
    return p.parse_args(argv)


def main() -> int:
    args = parse_args()
    sets = known_sets(args.manifest_dir)
    if args.rejudge or args.recompute:
        return from_stored_answers(args)
    args.datasets = args.datasets or [s.name for s in sets.values() if s.tier == 1]
    need_known(args.datasets, args.manifest_dir)
    choice = TargetChoice(
        model_path=args.model_path,
        checkpoint_dir=args.checkpoint_dir,
        step=args.step,
        best_checkpoint=args.best_checkpoint,
        output_dir=args.output_dir,
    )
    target = find_target(choice, OUTPUTS)
    guard_test_sets(target, args.datasets, allowed=args.final, best_checkpoint=args.best_checkpoint, sets=sets)
    problems = {d: load_problems(args.manifest_dir, d, args.limit) for d in args.datasets}
    sampling, judge = sampling_from(args), config_from(args)
    generator, base = generator_from(args, target), training_model(args.checkpoint_dir)
    check_loadable(target.model_path, base, backend=generator.name, served=bool(args.vllm_url))
    wanted = Identity(
        model=EvaluatedModel(path=str(target.model_path), step=target.step, fingerprint=fingerprint(target.model_path)),
        prompts_sha256=PROMPTS_SHA256,
        sampling={
            **sampling.identity(),
            "backend": generator.name,
            **({"batch_invariant": True} if args.batch_invariant else {}),
        },
        judge=judge.identity(),
        datasets=evaluated_sets(args.manifest_dir, problems),
        behaviour=behaviour(judge),
    )
    answering = Answering(target.model_path, sampling, generator, base)
    with folder.locked(target.output_dir, args.lock_wait):
        run = folder.open_run(target.output_dir, wanted)
        answers = sampling.n_samples * sum(len(asked) for asked in problems.values())
        if run.complete and len(folder.finished_answers(target.output_dir, problems)) == answers:
            unknown = "" if run.behaviour else ", by rules that its run.json is too old to name (--rejudge names them)"
            print(f"{target.output_dir}: complete already{unknown}; nothing is generated or judged")
        else:
            folder.need_known_rules(target.output_dir, run)
            if warning := size_warning_of(args.manifest_dir, args.datasets):
                print(f"warning: {warning}", file=sys.stderr)
            run = folder.begin_session(target.output_dir, run, stamp_of(args))
            note(args, target)
            run = work_off(output_dir=target.output_dir, run=run, problems=problems, judge=judge, answering=answering)
        return conclude(args, target, run)


def from_stored_answers(args: argparse.Namespace) -> int:
    """--rejudge and --recompute: from what is on disk, without the model.

    Raises:
        BadInput: no folder is named, or --datasets does not fit what it holds.
    """
    if not args.output_dir and not args.step:
        flag = "--rejudge" if args.rejudge else "--recompute"
        raise BadInput(f"{flag} needs --output_dir, the folder of an evaluation, or --step N")
    output_dir = args.output_dir or OUTPUTS / f"eval_step_{args.step}"
    run = folder.read_run(output_dir)
    target = Target(Path(run.model.path or ""), run.model.step, False, output_dir)
    args.datasets = args.datasets or list(run.datasets)
    if others := [d for d in args.datasets if d not in run.datasets]:
        raise BadInput(f"{output_dir}: holds no answers for {others[0]}; leave out --rejudge to have it generated")
    if args.rejudge and set(args.datasets) != set(run.datasets):
        raise BadInput(f"--rejudge judges every set of {output_dir} alike; leave out --datasets")
    with folder.locked(output_dir, args.lock_wait):
        run = folder.read_run(output_dir)  # once more: another evaluation may have ended meanwhile
        if args.recompute:
            run = folder.write_run(output_dir, run.model_copy(update={"recomputed": stamp_of(args)}))
            return conclude(args, target, run)
        problems, judge = folder.stored_problems(output_dir, run, args.manifest_dir, args.datasets), config_from(args)
        run = folder.set_aside_results(
            output_dir,
            run,
            judge=judge.identity(),
            datasets=evaluated_sets(args.manifest_dir, problems),
            behaviour=behaviour(judge),
            stamp=run.stamp.model_copy(update={"rejudged_by": run_stamp(vars(args))}),
        )
        note(args, target)
        return conclude(args, target, work_off(output_dir, run, problems, judge))


def conclude(args: argparse.Namespace, target: Target, run: EvaluationRun) -> int:
    """Derive metrics and QA logs from the records, say whether the evaluation is complete."""
    records = folder.read_results(target.output_dir, run.datasets)
    summary = write_metrics(target.output_dir, records)
    extra = {"step": target.step, "checkpoint": target.output_dir.name, "model": str(target.model_path)}
    write_qa_logs(target.output_dir, records, known_sets(args.manifest_dir), extra=extra)
    missing = folder.unfinished(records, run)
    if not run.complete:
        folder.close_run(target.output_dir, run, "incomplete" if missing else "complete")
    show(summary["datasets"], target.model_path)
    if args.wandb_project:
        where = WandbRun(args.wandb_project, args.wandb_run_name or target.output_dir.name, args.wandb_mode)
        log_evaluation(where, target.step, summary["datasets"], target.output_dir)
    if missing:
        begun = " ".join(run.datasets)
        print(
            f"incomplete, {len(missing)} reasons, first {missing[0]}. Run again, with every data set that was begun: "
            f"{begun}"
        )
    else:
        show_next(
            "compare the base model with the trained one, once both are evaluated", report_command(target.output_dir)
        )
    return 1 if missing else 0


def report_command(output_dir: Path) -> str:
    """generate_report.py over this evaluation and the other phase's, which lies beside it by the usual names."""
    here = output_dir.parent
    base, trained = here / "phase0", here / "eval_final"
    if output_dir.name.startswith("phase0"):
        base = output_dir
    else:
        base, trained = max(here.glob("phase0*/"), default=base), output_dir
    sides = ("--phase0_metrics", base / "metrics.json", "--phase1_metrics", trained / "metrics.json")
    return words_of_command("python", "generate_report.py", *sides, "--output_dir", here / "report")


def stamp_of(args: argparse.Namespace) -> Stamp:
    stamp: Stamp = Stamp.model_validate(run_stamp(vars(args)))
    return stamp


def note(args: argparse.Namespace, target: Target) -> None:
    sets = known_sets(args.manifest_dir)
    note_looks(target.output_dir, args.datasets, step=target.step, model=target.model_path, limit=args.limit, sets=sets)


def sampling_from(args: argparse.Namespace) -> Sampling:
    sampling = Sampling(**{name: getattr(args, name) for name in Sampling.__dataclass_fields__})
    sampling.check()
    return sampling


def generator_from(args: argparse.Namespace, target: Target) -> Generator:
    same = {name: getattr(args, name) for name in BackendSettings.__dataclass_fields__ if name in args}
    changed = {
        "model_path": target.model_path,
        "log_dir": (target.output_dir / "logs").resolve(),
        "vllm_url": tuple(args.vllm_url),
    }
    return choose_generator(BackendSettings(**{**same, **changed}))


if __name__ == "__main__":
    run_script(main)
