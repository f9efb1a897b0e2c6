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
import math
import os
import shlex
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from phase1.contract.problems import EVAL_SETS, load_problems
from phase1.contract.prompts import PROMPTS_SHA256
from phase1.evaluate.folder import (
    begin_session,
    close_run,
    data_identity,
    evaluate,
    finished,
    judge_identity,
    open_run,
    read_results,
    set_aside_results,
    stored_problems,
    unfinished,
)
from phase1.evaluate.looks import note_looks
from phase1.evaluate.metrics import write_metrics
from phase1.evaluate.qa import write_qa_logs
from phase1.evaluate.table import show
from phase1.evaluate.wandb_log import log_evaluation
from phase1.files import BadInput, fingerprint, only_one, read_json, run_script, run_stamp, write_json
from phase1.generate.requests import Backend, Sampling, context_limit
from phase1.generate.vllm_servers import ServerConfig, vllm_version
from phase1.judge.judge import JudgeConfig, add_judge_arguments, config_from
from phase1.machine import usable_gpus

HERE = Path(__file__).resolve().parent


def positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def positive_seconds(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise ValueError
    return float(text)


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # the model: a checkpoint of training, or any HF directory (Phase 0)
    p.add_argument("--checkpoint_dir", type=Path, help="folder of the global_step_N folders")
    p.add_argument("--step", help="N, or `best` for the step that --best_checkpoint names")
    p.add_argument(
        "--best_checkpoint",
        type=Path,
        default=HERE / "outputs" / "best_checkpoint.json",
        help="written by run_eval_checkpoints.sh (default: outputs/best_checkpoint.json)",
    )
    p.add_argument("--model_path", type=Path, help="an HF model directory, instead of --checkpoint_dir and --step")
    # the problems
    p.add_argument(
        "--datasets",
        nargs="+",
        choices=list(EVAL_SETS),
        metavar="SET",
        help=f"of {', '.join(EVAL_SETS)} (default: tier 1, codecontests_valid and mbpp_reg)",
    )
    p.add_argument(
        "--manifest_dir",
        type=Path,
        default=HERE / "data" / "manifests",
        help="{set}_manifest.jsonl; raw files lie in ../raw (default: data/manifests)",
    )
    p.add_argument("--limit", type=positive, help="only the first N problems of each set")
    p.add_argument("--final", action="store_true", help="allow the test-only sets for a step that is not the best one")
    p.add_argument(
        "--use_external_tests",
        action="store_true",
        help="tests come from the raw files; always so, kept for existing command lines",
    )
    p.add_argument(
        "--no_submit_api",
        action="store_true",
        help="no judge's submit API is used; always so, kept for existing command lines",
    )
    # from what is on disk, without the model
    p.add_argument(
        "--rejudge",
        action="store_true",
        help="judge the stored completions of --output_dir again, with the judge flags and tests of now",
    )
    p.add_argument(
        "--recompute", action="store_true", help="derive metrics.json, summary.json and qa_logs of --output_dir again"
    )
    # sampling: EVAL@1 is the default, whatever the model's generation_config.json says
    p.add_argument("--temperature", type=float, default=0.0)
    p.add_argument("--top_p", type=float, default=1.0)
    p.add_argument("--top_k", type=int, default=-1, help="-1: all tokens (default)")
    p.add_argument("--repetition_penalty", type=float, default=1.0)
    p.add_argument("--max_new_tokens", type=positive, default=2048, help="tokens an answer (default: 2048)")
    p.add_argument(
        "--max_model_len", type=positive, default=6144, help="tokens of prompt and answer together (default: 6144)"
    )
    p.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    p.add_argument(
        "--n_samples",
        type=positive,
        default=1,
        help="answers a problem, for pass@k; more than 1 needs --temperature (default: 1)",
    )
    p.add_argument("--seed", type=int, default=0, help="of sampled answers (default: 0)")
    # what generates
    p.add_argument(
        "--backend",
        default="auto",
        choices=["auto", "vllm", "transformers"],
        help="auto: vllm where it and a GPU, --vllm_url or --vllm_python are there, else transformers",
    )
    p.add_argument("--batch_size", type=positive, default=16, help="problems at a time with transformers (default: 16)")
    p.add_argument(
        "--vllm_url",
        action="append",
        default=[],
        metavar="URL",
        help="a running vLLM server, on any host; repeatable. VLLM_API_KEY is sent where set",
    )
    p.add_argument(
        "--served_model_name",
        metavar="NAME",
        help="the name --vllm_url servers serve the model under, where it is not its path",
    )
    p.add_argument(
        "--max_concurrent",
        type=positive,
        default=256,
        help="requests at a time on each server (default: 256; 255 with --batch_invariant)",
    )
    p.add_argument(
        "--request_timeout",
        type=positive_seconds,
        default=600,
        help="seconds for one answer, then it is tried again (default: 600)",
    )
    p.add_argument(
        "--stall_timeout",
        type=positive_seconds,
        default=180,
        help="seconds without a token after which a server is given up (default: 180)",
    )
    # vLLM servers of our own
    p.add_argument(
        "--num_servers",
        type=positive,
        default=0,
        help="default: one a visible GPU (or tensor-parallel group); one on a CPU",
    )
    p.add_argument(
        "--tensor_parallel_size", type=positive, default=1, help="GPUs a server; a 7B needs one (default: 1)"
    )
    p.add_argument(
        "--gpu_memory_utilization", type=float, default=0.9, help="share of each GPU's memory (default: 0.9)"
    )
    p.add_argument(
        "--batch_invariant",
        action="store_true",
        help=(
            "vLLM's batch-invariant kernels: the same answers at any load, slower (--vllm_url servers: start them "
            "with VLLM_BATCH_INVARIANT=1)"
        ),
    )
    p.add_argument(
        "--start_timeout",
        type=positive_seconds,
        default=900,
        help="seconds until the servers must answer (default: 900)",
    )
    p.add_argument("--vllm_python", metavar="EXE", help="the interpreter that has vLLM (default: this one)")
    p.add_argument(
        "--vllm_args",
        default="",
        metavar="ARGS",
        help="more arguments for the server, as one word: --vllm_args='--enforce-eager'",
    )
    # judging
    add_judge_arguments(p)
    # output
    p.add_argument(
        "--output_dir", type=Path, help="default: outputs/eval_step_N; needed with --model_path and --step best"
    )
    p.add_argument(
        "--lock_wait",
        type=float,
        default=600,
        help="seconds to wait for another evaluation in --output_dir (default: 600)",
    )
    p.add_argument("--wandb_project", help="log to this Weights & Biases project (contract: rlvr_coding_model)")
    p.add_argument("--wandb_run_name", help="default: the name of --output_dir")
    p.add_argument(
        "--wandb_mode",
        default="offline",
        choices=["online", "offline", "disabled"],
        help="default: offline; upload later with `wandb sync`",
    )
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
    if args.rejudge or args.recompute:
        return again(args)
    args.datasets = args.datasets or ["codecontests_valid", "mbpp_reg"]
    target = find_target(args)
    guard_test_sets(args, target)
    problems = {d: load_problems(args.manifest_dir, d, args.limit) for d in args.datasets}
    sampling, judge = sampling_from(args), config_from(args)
    backend = choose_backend(args, target)
    identity = {
        "model": {"path": str(target.model_path), "step": target.step, "fingerprint": fingerprint(target.model_path)},
        "prompts_sha256": PROMPTS_SHA256,
        "sampling": {
            **sampling.identity(),
            "backend": backend.name,
            **({"batch_invariant": True} if args.batch_invariant else {}),
        },
        "judge": judge_identity(judge),
        "datasets": data_identity(args.manifest_dir, problems),
    }
    with only_one(target.output_dir / "lock", wait=args.lock_wait) as mine:
        refuse_if_taken(target, mine)
        run = open_run(target.output_dir, identity)
        if run["status"] == "complete" and sum(map(len, problems.values())) * sampling.n_samples == len(
            finished(target.output_dir, list(problems))
        ):
            print(f"{target.output_dir}: complete already; nothing is generated or judged")
        else:
            begin_session(target.output_dir, run, run_stamp(vars(args)))
            note_looks(target.output_dir, args.datasets, target.step, target.model_path, args.limit)
            generate_and_judge(target, problems, sampling, backend, leave_cores(judge, backend), run)
        return conclude(args, target, run)


def again(args: argparse.Namespace) -> int:
    """--rejudge and --recompute: from what is on disk, without the model."""
    if not args.output_dir and not args.step:
        raise BadInput(
            f"--{'rejudge' if args.rejudge else 'recompute'} needs --output_dir, the folder of an evaluation, "
            "or --step N"
        )
    output_dir = args.output_dir or HERE / "outputs" / f"eval_step_{args.step}"
    run = read_json(output_dir / "run.json")
    target = Target(Path(run["model"]["path"]), run["model"]["step"], False, output_dir)
    args.datasets = args.datasets or list(run["datasets"])
    if other := [d for d in args.datasets if d not in run["datasets"]]:
        raise BadInput(f"{output_dir}: holds no answers for {other[0]}; leave out --rejudge to have it generated")
    with only_one(output_dir / "lock", wait=args.lock_wait) as mine:
        refuse_if_taken(target, mine)
        if args.rejudge:
            if set(args.datasets) != set(run["datasets"]):
                raise BadInput(f"--rejudge judges every set of {output_dir} alike; leave out --datasets")
            problems, judge = stored_problems(output_dir, run, args.manifest_dir, args.datasets), config_from(args)
            identity = {"judge": judge_identity(judge), "datasets": data_identity(args.manifest_dir, problems)}
            set_aside_results(output_dir, run, identity, run["stamp"] | {"rejudged_by": run_stamp(vars(args))})
            note_looks(target.output_dir, args.datasets, target.step, target.model_path, args.limit)
            generate_and_judge(
                target, problems, Sampling(n_samples=run["sampling"].get("n_samples", 1)), None, judge, run
            )
        else:
            run["recomputed"] = run_stamp(vars(args))
            write_json(output_dir / "run.json", run)
        return conclude(args, target, run)


def refuse_if_taken(target: Target, mine: bool) -> None:
    if not mine:
        raise BadInput(
            f"{target.output_dir}: another evaluation is at work there "
            f"({(target.output_dir / 'lock').read_text()}); wait for it or stop it"
        )


def generate_and_judge(
    target: Target, problems: dict, sampling: Sampling, backend: Backend | None, judge: JudgeConfig, run: dict
) -> None:
    """Work off what is not finished; run.json says `interrupted` when it could not."""
    lost = run.get("sandbox", {}).get("lost_sandboxes", 0)  # by earlier sessions
    try:
        run |= asyncio.run(
            evaluate(target.output_dir, problems, target.model_path, sampling, backend, judge, len(run["sessions"]) - 1)
        )
    except BaseException as e:
        close_run(target.output_dir, run, "interrupted")
        if isinstance(e, asyncio.CancelledError):
            raise SystemExit("stopped by SIGTERM; run the same command again to go on") from None
        raise
    run["sandbox"]["lost_sandboxes"] += lost
    if run["sandbox"]["lost_sandboxes"]:
        print(
            f"warning: {run['sandbox']['lost_sandboxes']} sandboxes ended without a word and their programs "
            "were run again: "
            "verdicts stand, but the machine or a program interfered (docs/judge.md)",
            file=sys.stderr,
        )
    servers = run.get("generation", {}).get("servers", {})
    if found := sorted({s["vllm"] for s in servers.values() if s["vllm"]}):
        run["stamp"]["versions"]["vllm"] = ", ".join(found)  # of the servers, which may run from another environment


def conclude(args: argparse.Namespace, target: Target, run: dict) -> int:
    """Derive metrics and QA logs from the records, say whether the evaluation is complete."""
    records = read_results(target.output_dir, list(run["datasets"]))
    summary = write_metrics(target.output_dir, records)
    write_qa_logs(
        target.output_dir,
        records,
        extra={"step": target.step, "checkpoint": target.output_dir.name, "model": str(target.model_path)},
    )
    missing = unfinished(records, run)
    if run["status"] != "complete":
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
            f"begun: {' '.join(run['datasets'])}"
        )
    return 1 if missing else 0


def sampling_from(args: argparse.Namespace) -> Sampling:
    if args.n_samples > 1 and args.temperature == 0:
        raise BadInput(
            f"--n_samples {args.n_samples} with --temperature {args.temperature:g}: greedy answers are all the "
            "same; give a temperature above 0, 0.8 for example"
        )
    if not (
        0 <= args.temperature < math.inf
        and 0 < args.top_p <= 1
        and (args.top_k == -1 or args.top_k > 0)
        and 0 < args.repetition_penalty < math.inf
    ):
        raise BadInput(
            f"--temperature {args.temperature:g} --top_p {args.top_p:g} --top_k {args.top_k} "
            f"--repetition_penalty {args.repetition_penalty:g}: "
            "expected temperature from 0, top_p above 0 and at most 1, top_k -1 or from 1, a penalty above 0"
        )
    return Sampling(
        args.temperature,
        args.top_p,
        args.top_k,
        args.repetition_penalty,
        args.max_new_tokens,
        args.max_model_len,
        args.dtype,
        args.n_samples,
        args.seed,
    )


def choose_backend(args: argparse.Namespace, target: Target) -> Backend:
    """The backend of --backend, or what is there: running servers, vLLM with a GPU, a named vLLM, else transformers."""
    python = os.path.abspath(shutil.which(args.vllm_python) or args.vllm_python) if args.vllm_python else sys.executable
    wanted = args.backend
    if wanted == "auto":
        possible = args.vllm_url or ((args.vllm_python or usable_gpus()) and vllm_version(python))
        wanted = "vllm" if possible else "transformers"
    base = training_model(args.checkpoint_dir)
    if args.batch_invariant and wanted == "transformers":
        raise BadInput("--batch_invariant is a mode of vLLM's; it needs --backend vllm")
    if wanted == "transformers":
        return Backend("transformers", args.batch_size, base_model=base)
    concurrent = min(args.max_concurrent, 255) if args.batch_invariant else args.max_concurrent
    try:
        more_args = tuple(shlex.split(args.vllm_args))
    except ValueError as e:
        raise BadInput(f"--vllm_args {args.vllm_args}: {e}") from None
    servers = None
    if not args.vllm_url:
        if vllm_version(python) is None:
            raise BadInput(
                f"--backend vllm: {python} has no vLLM; name an interpreter that has with --vllm_python, "
                "running servers with --vllm_url, or --backend transformers"
            )
        servers = ServerConfig(
            target.model_path,
            (target.output_dir / "logs").resolve(),
            args.num_servers,
            args.tensor_parallel_size,
            args.dtype,
            context_limit(target.model_path, args.max_model_len),
            concurrent,
            args.gpu_memory_utilization,
            args.batch_invariant,
            args.start_timeout,
            python,
            more_args,
        )
    return Backend(
        "vllm",
        args.batch_size,
        tuple(args.vllm_url),
        servers,
        args.served_model_name,
        concurrent,
        args.request_timeout,
        args.stall_timeout,
        base,
    )


def training_model(checkpoint_dir: Path | None) -> Path | None:
    """The model that training started from, where train_run.json names one that is still there: its chat template was
    training's."""
    path = (checkpoint_dir or Path("/")) / "train_run.json"
    command = read_json(path).get("command", []) if path.is_file() else []
    named = [
        Path(word.split("=", 1)[1]) for word in command if word.startswith(("model.partial_pretrain=", "model.path="))
    ]
    return next((p for p in named if (p / "tokenizer_config.json").is_file()), None)


def leave_cores(judge: JudgeConfig, backend: Backend) -> JudgeConfig:
    """Two cores for each server of our own, which keeps an API process and an engine busy, but never more than half of
    them."""
    if judge.workers or judge.reserve_cores or not backend.servers:
        return judge
    servers = backend.servers.num_servers or max(1, len(usable_gpus()) // backend.servers.tensor_parallel_size)
    return replace(judge, reserve_cores=min(2 * servers, judge.parallel // 2))


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
    # A best_checkpoint.json of another run says nothing here: its model lies in this folder, or was kept beside the
    # file.
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
        raise BadInput(
            f"{path}: no config.json there; a checkpoint without huggingface/ is converted by convert_fsdp_to_hf.py"
        )
    return path


def guard_test_sets(args: argparse.Namespace, target: Target) -> None:
    """The test-only sets are for the chosen checkpoint and for Phase 0: whoever looks at them earlier selects on
    them."""
    test_only = [d for d in args.datasets if EVAL_SETS[d].test_only]
    if test_only and target.step is not None and not target.is_best and not args.final:
        raise BadInput(
            f"--datasets {test_only[0]} is test-only and step {target.step} is not the best step of "
            f"{args.best_checkpoint}; choose the best first, or say --final"
        )


if __name__ == "__main__":
    run_script(main)
