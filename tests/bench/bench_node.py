"""A whole node: training at 7B with its save and its resume, one server a GPU, evaluation beside training.

    python tests/bench/bench_node.py --gpus 8 --site070 SITE --site091 SITE --site_vllm SITE --data DIR \\
        --public_data DIR --out OUT                        # every part, 20 minutes; needs no network
    python tests/bench/bench_node.py … --gpus 4 --parts train,resume        # some of them, in this order
    python tests/bench/bench_node.py … --gpus 1 --cpu --shape tiny --beside_shape tiny      # does it run at all?

SITE and DIR of --data are those of bench_train.py, DIR of --public_data that of bench_gpu_eval.py; SITE of --site_vllm
is a folder for PYTHONPATH that holds vLLM. Parts:
  train   TRAINER=engine, COMPILE=1, ACTIVATION_MEMORY_BUDGET=.5, 128 rows a step, one save of everything at the end
  background  the same with BACKGROUND_SAVE=1: how long training stands still, and what the copy costs its steps
  resume  goes on from the last save, three steps, and saves the model alone (no optimizer)
  spec    the spec's trainer (verl 0.7.0, padded rows, micro batches of two), four steps
  eval    phase1_eval.py on the model that was saved, a server a GPU
  beside  run_sft.sh on the first half of the GPUs, run_eval_checkpoints.sh --gpus on the other half
Each prints what it found as soon as it is there, and a line of OUT/results.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.bench_train import SHAPES, make_model, sample_gpu, summary

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("train", "background", "resume", "spec", "eval", "beside")
ROWS = 128  # a step
EVERYTHING, NO_OPTIMIZER = "[model,optimizer,extra,hf_model]", "[model,extra,hf_model]"


def main() -> int:
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args.models.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(args.out).free / 1e9
    print(f"disk: {disk_rate(args.out):.2f} GB/s, 4 GiB written and synced; free {free:.0f} GB", flush=True)
    parts = {
        "train": train,
        "background": background,
        "resume": resume,
        "spec": spec,
        "eval": evaluate,
        "beside": beside,
    }
    for name in args.parts.split(","):
        began = time.monotonic()
        try:
            found = parts[name](args)
        except (OSError, KeyError, ValueError, StopIteration, subprocess.SubprocessError) as e:
            found = {"failed": f"{type(e).__name__}: {e}"}
        found = {"part": name, "wall": round(time.monotonic() - began, 1), **found}
        with open(args.out / "results.jsonl", "a") as f:
            f.write(json.dumps(found) + "\n")
        print(json.dumps(found), flush=True)
    return 0


def train(args: argparse.Namespace) -> dict:
    """Six steps and one save of everything: speed, memory beside the estimate, the save's seconds and bytes."""
    return run_training(args, "train", args.shape, steps=6, contents=EVERYTHING)


def resume(args: argparse.Namespace) -> dict:
    """Goes on from the last save for three steps; saves without the optimizer; profiles the second of the three."""
    last = int((args.out / "ckpt" / "latest_checkpointed_iteration.txt").read_text())
    contents = args.resume_saves
    found = run_training(args, "resume", args.shape, steps=last + 3, contents=contents, profile_step=1)
    return {"from_step": last} | found


def background(args: argparse.Namespace) -> dict:
    """A save that goes through memory: how long training stands still for it, and its steps while it is copied."""
    model_of(args, args.shape)
    folder, ckpt, last = args.out / "background", args.out / "ckpt", args.save_at + args.steps_after
    for old in (folder, ckpt):
        shutil.rmtree(old, ignore_errors=True)
    variables = engine_variables(args, args.shape, folder) | {"CKPT_DIR": ckpt, "BACKGROUND_SAVE": 1}
    # Without steps after it the save is the run's last; else the run is stopped before it would save again.
    variables |= {"SAVE_FREQ": args.save_at, "TOTAL_STEPS": last + 2 if args.steps_after else last}
    variables |= {"MAX_CKPT_TO_KEEP": 2}
    overrides = [f"checkpoint.save_contents={EVERYTHING}", f"data.val_max_samples={args.rows}"]
    command, env = sft_command(variables, overrides)
    metrics, began = folder / "train_metrics.jsonl", time.time()
    goes_on = None
    with open(folder_file(folder, "screen.txt"), "w") as screen:
        training = subprocess.Popen(command, env=env, stdout=screen, stderr=screen, start_new_session=True)
    try:
        while training.poll() is None and time.time() - began < args.limit:
            if goes_on is None and "\ntraining goes on while" in (folder / "screen.txt").read_text(errors="replace"):
                goes_on = time.time()
            if args.steps_after and metrics.exists() and len(metrics.read_text().splitlines()) >= last:
                break
            time.sleep(0.1)
        copying = (ckpt / f".global_step_{args.save_at}.incoming").is_dir()
    finally:
        if training.poll() is None:
            os.killpg(training.pid, signal.SIGTERM)
        stopped = training.wait(300)  # run_sft.sh waits for the copy
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    before = [line for line in lines if line["step"] <= args.save_at and line.get("seconds")]
    after = [line["seconds"] for line in lines if line["step"] > args.save_at and line.get("seconds")]
    saved_from = max(line["time"] for line in lines if line["step"] == args.save_at)
    files = [p for p in (ckpt / f"global_step_{args.save_at}").rglob("*") if p.is_file()]
    whole = (ckpt / "latest_checkpointed_iteration.txt").stat().st_mtime
    said = (folder / "screen.txt").read_text(errors="replace").splitlines()
    return {
        "stopped_with": stopped,
        "first_step_after": round(min(line["time"] for line in lines) - began, 1),
        "stood_still": round(goes_on - saved_from, 1) if goes_on else None,
        "whole_on_disk_after": round(whole - saved_from, 1),
        "save_gb": round(sum(p.stat().st_size for p in files) / 1e9, 1),
        "s_step_before": round(statistics.median(line["seconds"] for line in before[2:]), 3),
        "s_step_while_copying": round(statistics.median(after), 3) if after else None,
        "still_copying_at_the_last_of_them": copying,
        "all_steps": [line.get("seconds") for line in lines],
        "said": [line[:200] for line in said if "copied" in line or "BACKGROUND_SAVE" in line][-6:],
    }


def run_training(
    args: argparse.Namespace, tag: str, shape: str, *, steps: int, contents: str, profile_step: int | None = None
) -> dict:
    """run_sft.sh with the engine trainer into OUT/ckpt, and what its files say."""
    model_of(args, shape)
    folder = args.out / tag
    variables = engine_variables(args, shape, folder) | {"TOTAL_STEPS": steps, "CKPT_DIR": args.out / "ckpt"}
    variables |= {"SAVE_FREQ": -1, "MAX_CKPT_TO_KEEP": 1}
    if profile_step is not None:
        paths = [str(ROOT / "tests" / "bench" / "profile_step"), str(variables["PYTHONPATH"])]
        variables |= {"PROFILE_STEP": profile_step, "PYTHONPATH": os.pathsep.join(paths)}
    overrides = [f"checkpoint.save_contents={contents}", f"checkpoint.load_contents={EVERYTHING}"]
    overrides.append(f"data.val_max_samples={args.rows}")
    found = measured(args, shape, folder, variables, overrides, rows=args.rows)
    last = args.out / "ckpt" / f"global_step_{steps}"
    marker = args.out / "ckpt" / "latest_checkpointed_iteration.txt"
    if last.is_dir() and marker.is_file():
        lines = [json.loads(line) for line in (folder / "train_metrics.jsonl").read_text().splitlines()]
        files = [p for p in last.rglob("*") if p.is_file()]
        found["save_seconds"] = round(marker.stat().st_mtime - max(line["time"] for line in lines), 1)
        found["save_gb"] = round(sum(p.stat().st_size for p in files) / 1e9, 1)
    return found


def spec(args: argparse.Namespace) -> dict:
    """The spec's command on this node."""
    model_of(args, args.shape)
    folder = args.out / "spec"
    variables = variables_of(args, args.shape, folder, args.site070) | {
        "TRAINER": "fsdp",
        "MICRO_BATCH_SIZE": 2,
        "TOTAL_STEPS": 4,
        "SAVE_FREQ": -1,
        "CKPT_DIR": folder / "ckpt",
        "RESUME_MODE": "disable",
    }
    apply = [sys.executable, ROOT / "patches" / "apply_verl_patch.py", "--verl_dir", args.site070 / "verl"]
    subprocess.run(apply, check=True, stdout=subprocess.DEVNULL)
    overrides = ["trainer.checkpoint.save_contents=[extra]", f"data.val_max_samples={args.rows}"]
    found = measured(args, args.shape, folder, variables, overrides, rows=args.rows)
    shutil.rmtree(folder / "ckpt", ignore_errors=True)
    return found


def evaluate(args: argparse.Namespace) -> dict:
    """phase1_eval.py with a server on every GPU, by bench_gpu_eval.py, whose table is printed."""
    work = args.out / "eval"
    work.mkdir(parents=True, exist_ok=True)
    saved = sorted((args.out / "ckpt").glob("global_step_*/huggingface/config.json"))
    model = saved[-1].parent if saved else model_of(args, args.shape)
    (work / "model").unlink(missing_ok=True)
    (work / "model").symlink_to(model)
    command = [sys.executable, ROOT / "tests/bench/bench_gpu_eval.py", "--work", work, "--data", args.public_data]
    command += ["--tokenizer", model, "--max_new_tokens", "512" if not args.cpu else "8"]
    command += ["--cpu", "--limit", "3"] if args.cpu else []
    command += ["--", *args.eval_args]
    status = subprocess.run([str(word) for word in command], env=environment(args.site_vllm)).returncode
    run = json.loads((work / "out" / "run.json").read_text())
    return {
        "status": status,
        "model": str(model),
        "seconds": run.get("seconds"),
        "left_behind": left_behind(),
        "servers": evenness(run),
    }


def evenness(run: dict) -> list[dict]:
    """What each server of an evaluation answered, and when its last answer came."""
    servers = run.get("generation", {}).get("servers", {}).values()
    return [{key: server[key] for key in ("on", "answers", "tokens", "last_answer", "gone")} for server in servers]


def beside(args: argparse.Namespace) -> dict:
    """A training on the first half of the GPUs; two of its checkpoints evaluated on the other half meanwhile."""
    model_of(args, args.beside_shape)
    folder, half = args.out / "beside", max(1, args.gpus // 2)
    shutil.rmtree(folder, ignore_errors=True)
    variables = engine_variables(args, args.beside_shape, folder) | {"NPROC": half, "SAVE_FREQ": 40}
    variables |= {"COMPILE": 0, "ACTIVATION_MEMORY_BUDGET": 0}
    variables |= {"CKPT_DIR": folder / "ckpt", "MAX_CKPT_TO_KEEP": 3, "TRAIN_BATCH_SIZE": args.rows}
    command, env = sft_command(variables, [f"data.val_max_samples={args.rows}"])
    with open(folder_file(folder, "screen.txt"), "w") as screen:
        training = subprocess.Popen(command, env=env, stdout=screen, stderr=screen, start_new_session=True)
    try:
        wait_for(folder / "ckpt" / "global_step_40" / "huggingface" / "config.json", training, args.limit)
        time.sleep(15)  # what a step takes with the other half idle
        began = time.time()
        gpus = [] if args.cpu else ["--gpus", ",".join(str(n) for n in range(half, args.gpus))]
        command = ["bash", str(ROOT / "run_eval_checkpoints.sh"), "--once", *gpus, "--backend", "vllm"]
        command += ["--max_new_tokens", "256" if not args.cpu else "8", *args.eval_args]
        paths = {"CKPT_DIR": folder / "ckpt", "OUTPUT_DIR": folder / "evals"}
        paths["MANIFEST_DIR"] = ROOT / "data" / "samples" / "manifests"
        env = environment(args.site_vllm) | {k: str(v) for k, v in paths.items()} | {"PYTHON": sys.executable}
        with open(folder / "evals.txt", "w") as screen:
            status = subprocess.run(command, env=env, stdout=screen, stderr=screen).returncode
        ended = time.time()
    finally:
        os.killpg(training.pid, signal.SIGTERM)
        stopped = training.wait(120)
    lines = [json.loads(line) for line in (folder / "train_metrics.jsonl").read_text().splitlines()]
    steps = [(line["time"], line["seconds"]) for line in lines if line.get("seconds")]
    found = {"status": status, "training_stopped_with": stopped, "evaluating_seconds": round(ended - began, 1)}
    for name, (low, high) in {"alone": (0.0, began), "beside": (began, ended)}.items():
        within = [seconds for at, seconds in steps if low <= at <= high]
        found[f"s_step_{name}"] = round(statistics.median(within), 3) if within else None
    found["seconds"] = {
        path.parent.name: json.loads(path.read_text()).get("seconds")
        for path in sorted((folder / "evals").glob("eval_step_*/run.json"))
    }
    return found | {"screen": (folder / "evals.txt").read_text()[-1500:], "left_behind": left_behind()}


def engine_variables(args: argparse.Namespace, shape: str, folder: Path) -> dict:
    fast = {} if args.cpu else {"COMPILE": 1, "ACTIVATION_MEMORY_BUDGET": ".5"}
    return variables_of(args, shape, folder, args.site091) | {
        "TRAINER": "engine",
        "EPOCHS": 200,  # TOTAL_STEPS ends the run
        "MAX_TOKENS_PER_GPU": 16384,
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        **fast,
    }


def variables_of(args: argparse.Namespace, shape: str, folder: Path, site: Path) -> dict:
    """The environment of run_sft.sh that both trainers share."""
    shims = [str(site.parent / "shims")] if (site.parent / "shims").is_dir() else []
    return {
        "MODEL_PATH": args.models / shape,
        "TRAIN_FILE": args.data / "train.parquet",
        "VAL_FILE": args.data / "train.parquet",
        "MAX_LENGTH": 4096,
        "GRADIENT_CHECKPOINTING": True,
        "TRAIN_BATCH_SIZE": args.rows,
        "LR": "1e-5",
        "EPOCHS": 1,
        "TEST_FREQ": -1,
        "LOGGER": "console",
        "OUTPUT_DIR": folder,
        "PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join([*shims, str(site)]),
        "HYDRA_FULL_ERROR": 1,
        "HF_HUB_OFFLINE": 1,
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": 4,
        "NPROC": args.gpus,
        "DEVICE": "cpu" if args.cpu else "cuda",
    }


def sft_command(variables: dict, overrides: list[str]) -> tuple[list[str], dict[str, str]]:
    return ["bash", str(ROOT / "run_sft.sh"), *overrides], os.environ | {k: str(v) for k, v in variables.items()}


def measured(
    args: argparse.Namespace, shape: str, folder: Path, variables: dict, overrides: list[str], *, rows: int
) -> dict:
    """Runs run_sft.sh to its end; the estimate before it, speed and memory of its steps, times of its start."""
    shutil.rmtree(folder, ignore_errors=True)
    command, env = sft_command(variables, overrides)
    dry = subprocess.run([*command, "--dry_run"], env=env, capture_output=True, text=True).stdout.splitlines()
    print("\n".join(line for line in dry if " memory " in line or " time " in line or " disk " in line), flush=True)
    samples: list[tuple[float, ...]] = []
    stop = threading.Event()
    if not args.cpu:
        threading.Thread(target=sample_gpu, args=(samples, stop), daemon=True).start()
    began = time.time()
    with open(folder_file(folder, "screen.txt"), "w") as screen:
        process = subprocess.Popen(command, env=env, stdout=screen, stderr=screen, start_new_session=True)
        try:
            status = process.wait(args.limit)
        except subprocess.TimeoutExpired:
            status = "time"
        finally:  # also where this benchmark itself is stopped: nothing may hold the GPUs afterwards
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                wait_for_end(process)
    stop.set()
    ended = time.time()
    metrics = folder / "train_metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    screen_lines = (folder / "screen.txt").read_text(errors="replace").splitlines()
    print("\n".join(line.split("PROFILE", 1)[1] for line in screen_lines if "PROFILE" in line), flush=True)
    found = {"status": status, **summary(args, shape, variables, rows, lines, samples)}
    if lines:
        found["first_step_after"] = round(min(line["time"] for line in lines) - began, 1)
        found["all_steps"] = [line.get("seconds") for line in lines]
        found["end_after_last_step"] = round(ended - max(line["time"] for line in lines), 1)
    if status != 0:
        found["error"] = [line[:300] for line in screen_lines if "Error" in line or "error" in line][-6:]
        found["error"] += screen_lines[-3:]
    return found


def model_of(args: argparse.Namespace, shape: str) -> Path:
    """Random weights of that shape; made once."""
    folder = args.models / shape
    if not (folder / "config.json").exists() and make_model(args, shape).wait():
        sys.exit((args.models / f"{shape}.log").read_text()[-2000:])
    return folder


def environment(site: Path) -> dict[str, str]:
    extra = {"PYTHONPATH": str(site), "VLLM_USE_FLASHINFER_SAMPLER": "0", "HF_HUB_OFFLINE": "1"}
    return dict(os.environ) | extra


def folder_file(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def wait_for(path: Path, process: subprocess.Popen, limit: float) -> None:
    end = time.monotonic() + limit
    while not path.exists():
        if process.poll() is not None or time.monotonic() > end:
            raise ValueError(f"{path} did not appear; training's status: {process.poll()}")
        time.sleep(0.5)


def wait_for_end(process: subprocess.Popen) -> None:
    """Half a minute for a training to end in order, then it is killed."""
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def left_behind() -> str:
    """What still holds GPU memory; empty where nothing does or there is no GPU."""
    if shutil.which("nvidia-smi") is None:
        return ""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.strip()


def disk_rate(folder: Path) -> float:
    """GB/s of 4 GiB written and synced."""
    block, path = os.urandom(1 << 26), folder / "rate"
    began = time.monotonic()
    with open(path, "wb") as f:
        for _ in range(64):
            f.write(block)
        f.flush()
        os.fsync(f.fileno())
    spent = time.monotonic() - began
    path.unlink()
    return 64 * len(block) / 1e9 / spent


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("site070", "site091", "site_vllm", "data", "public_data", "out"):
        p.add_argument(f"--{name}", type=Path, required=True)
    p.add_argument("--gpus", type=int, required=True, help="GPUs of this node that are used")
    p.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}, in this order (default: all)")
    p.add_argument("--shape", choices=list(SHAPES), default="7b", help="of the model (default: 7b)")
    p.add_argument("--beside_shape", choices=list(SHAPES), default="05b", help="of the part beside (default: 05b)")
    p.add_argument("--rows", type=int, default=ROWS, help=f"a step (default: {ROWS})")
    contents = f"save_contents of the part resume (default: {NO_OPTIMIZER})"
    p.add_argument("--resume_saves", default=NO_OPTIMIZER, metavar="LIST", help=contents)
    p.add_argument("--save_at", type=int, default=15, help="step after which the part background saves (default: 15)")
    p.add_argument("--steps_after", type=int, default=12, help="its steps while that is copied (default: 12)")
    p.add_argument("--limit", type=float, default=420, help="seconds after which a training is stopped (default: 420)")
    p.add_argument("--cpu", action="store_true", help="no GPU: whether it runs, not how fast")
    p.add_argument("eval_args", nargs="*", help="after --: more arguments of phase1_eval.py")
    args = p.parse_args()
    for name in ("site070", "site091", "site_vllm", "data", "public_data", "out"):
        setattr(args, name, getattr(args, name).resolve())
    args.out.mkdir(parents=True, exist_ok=True)
    args.models = args.out / "models"
    return args


if __name__ == "__main__":
    sys.exit(main())
