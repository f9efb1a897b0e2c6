"""Three checkpoints of one model: a server's start for each, beside one pass that starts once.

    python tests/bench/bench_warm.py --work /tmp/bench --model DIR                   # on a GPU; needs no network
    python tests/bench/bench_warm.py --work /tmp/bench --model DIR --limit 8 -- --dtype float32 \\
        --vllm_python .venv-vllm/bin/python --vllm_args=--enforce-eager              # tried out on a CPU

Makes three checkpoints of DIR (the model itself, and two whose every weight is another), evaluates them one after the
other by phase1_eval.py, each with servers of its own (--rival: by that of another checkout), then again by one pass of
run_eval_checkpoints.sh. --later_pass: then a pass over one more checkpoint, which finds vLLM's compile cache filled.
--shape 05b makes DIR first: random weights in the shape of Qwen2.5-0.5B, with the tokenizer of --tokenizer. What lies
in --work from an earlier start (--models_only) is used again. Prints where the time went, from run.json. Exit 1 where
an evaluation fails, the pass did not start once and swap twice, is less than --limit_factor times as fast, or takes
more than --limit_seconds for a further checkpoint beside generation and the tail.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from phase1.files import read_json

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "data" / "samples" / "manifests"
COLUMNS = ("first_answer", "wait", "start", "swap", "generation", "judging", "tail")
STEPS = (1, 2, 3)


@dataclass(frozen=True)
class Evaluated:
    """One evaluation: its wall time in all (of a pass: since the one before had ended), and run.json's seconds."""

    wall: float
    seconds: dict[str, float]

    @property
    def beside(self) -> float:
        """Seconds beside generation and what was judged after it."""
        return self.wall - self.seconds.get("generation", 0.0) - self.seconds.get("tail", 0.0)


def main() -> int:
    args = parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.shape and not (args.model / "config.json").exists():
        from tests.bench.bench_gpu_eval import build_model

        build_model(args.model, args.tokenizer, args.shape)
    home = args.work / "checkpoints"
    models = {step: home / f"global_step_{step}" / "huggingface" for step in STEPS}
    if not all((model / "config.json").exists() for model in models.values()):
        make_checkpoints(args.model, home)
    (home / "latest_checkpointed_iteration.txt").write_text(str(STEPS[-1]))
    if args.models_only:
        return 0
    probe = [sys.executable, "-m", "phase1.judge", "--probe"]
    isolated = subprocess.run(probe, cwd=ROOT, capture_output=True).returncode == 0
    flags = ["--backend", "vllm", "--max_new_tokens", str(args.max_new_tokens), *([] if isolated else ["--unsafe"])]
    flags += [*(["--limit", str(args.limit)] if args.limit else []), *args.more]
    print(f"judge: {'isolated' if isolated else 'NOT isolated here, --unsafe'}")
    print("| way | checkpoint | in all s | " + " | ".join(f"{c} s" for c in COLUMNS) + " |")
    print("|---|---|---|" + "---|" * len(COLUMNS), flush=True)
    own = [evaluate(args, step, model, flags) for step, model in models.items()]
    own_wall = sum(e.wall for e in own)
    shutil.rmtree(args.work / "one start", ignore_errors=True)
    stay, stay_wall = run_pass(args, STEPS, flags, "one start")
    factor = own_wall / stay_wall
    print(f"in all: {own_wall:.1f} s with a start for each, {stay_wall:.1f} s with one: {factor:.2f} times faster")
    for step, done in zip(STEPS, stay, strict=True):
        print(f"checkpoint {step}: {done.beside:.1f} s beside generation and tail; {equal_answers(args, step)}")
    if args.later_pass:
        shutil.rmtree(args.work / "one start" / f"eval_step_{STEPS[-1]}")
        _, wall = run_pass(args, STEPS[-1:], flags, "later pass")
        print(f"a later pass over one checkpoint: {wall:.1f} s")
    well = ["swap" in e.seconds for e in stay] == [False, True, True]
    return int(not well or factor < args.limit_factor or max(e.beside for e in stay[1:]) > args.limit_seconds)


def make_checkpoints(model: Path, home: Path) -> list[Path]:
    """The model, and two copies with noise on every weight."""
    import torch
    from safetensors.torch import load_file, save_file

    made = []
    for n in range(3):
        folder = home / f"global_step_{n + 1}" / "huggingface"
        shutil.rmtree(folder, ignore_errors=True)
        made.append(shutil.copytree(model, folder))
        noise = torch.Generator().manual_seed(n)
        for path in folder.glob("*.safetensors") if n else []:
            weights = load_file(path)
            moved = {
                k: (v.float() * (1 + 0.01 * torch.randn(v.shape, generator=noise))).to(v.dtype)
                for k, v in weights.items()
            }
            save_file(moved, path, metadata={"format": "pt"})
    return made


def evaluate(args: argparse.Namespace, step: int, model: Path, flags: list[str]) -> Evaluated:
    """One evaluation with servers of its own; prints its row."""
    out, log = args.work / "own" / f"eval_step_{step}", args.work / "own" / f"log_{step}"
    shutil.rmtree(out, ignore_errors=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(args.rival / "phase1_eval.py"), "--model_path", str(model)]
    command += ["--output_dir", str(out), "--manifest_dir", str(args.manifest_dir), *flags]
    began = time.monotonic()
    with open(log, "wb") as f:
        if subprocess.run(command, stdout=f, stderr=f).returncode:
            sys.exit(f"the evaluation failed; see {log}")
    return row("own", step, time.monotonic() - began, out)


def run_pass(
    args: argparse.Namespace, steps: tuple[int, ...], flags: list[str], way: str
) -> tuple[list[Evaluated], float]:
    """One pass over these steps; prints a row for each. Returns them, and the seconds of the whole pass."""
    outputs = args.work / "one start"
    env = os.environ | {"CKPT_DIR": str(args.work / "checkpoints"), "OUTPUT_DIR": str(outputs)}
    env |= {"PYTHON": sys.executable, "MANIFEST_DIR": str(args.manifest_dir)}
    command = ["bash", str(ROOT / "run_eval_checkpoints.sh"), "--settle", "0", "--tier2_every", "1000000"]
    outputs.mkdir(exist_ok=True)
    began, clock = time.time(), time.monotonic()
    with open(outputs / "pass.log", "ab") as f:
        if subprocess.run([*command, "--steps", *map(str, steps), *flags], env=env, stdout=f, stderr=f).returncode:
            sys.exit(f"the pass failed; see {outputs / 'pass.log'}")
    wall, done, before = time.monotonic() - clock, [], began
    for step in steps:
        out = outputs / f"eval_step_{step}"
        ended = (out / "run.json").stat().st_mtime
        done.append(row(way, step, ended - before, out))
        before = ended
    return done, wall


def row(way: str, step: int, wall: float, out: Path) -> Evaluated:
    """An evaluation's times; prints them."""
    seconds = read_json(out / "run.json")["seconds"]
    cells = [f"{seconds[c]:.1f}" if c in seconds else "-" for c in COLUMNS]
    print(f"| {way} | {step} | {wall:.1f} | " + " | ".join(cells) + " |", flush=True)
    return Evaluated(wall, seconds)


def equal_answers(args: argparse.Namespace, step: int) -> str:
    """How many answers of the two ways are equal; batches differ, so on a GPU without --batch_invariant not all are."""
    found = []
    for way in ("own", "one start"):
        paths = (args.work / way / f"eval_step_{step}" / "completions").glob("*.jsonl")
        rows = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
        found.append({(r["dataset"], r["problem_id"]): r["completion"] for r in rows})
    same = sum(found[1].get(key) == text for key, text in found[0].items())
    return f"answers equal: {same} of {len(found[0])}"


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", type=Path, required=True, help="where checkpoints and outputs go")
    p.add_argument("--model", type=Path, required=True, help="HF directory of the first checkpoint")
    p.add_argument("--shape", help="make --model first: 05b or tiny, as bench_gpu_eval.py has them")
    p.add_argument("--tokenizer", type=Path, help="with --shape: the HF directory whose tokenizer it takes")
    p.add_argument("--models_only", action="store_true", help="make the checkpoints and end")
    p.add_argument("--rival", type=Path, default=ROOT, help="checkout that evaluates with starts of its own")
    p.add_argument("--later_pass", action="store_true", help="measure the start of a later pass too")
    p.add_argument("--manifest_dir", type=Path, default=SAMPLES, help="of the problems (default: data/samples)")
    p.add_argument("--max_new_tokens", type=int, default=256, help="of each answer (default: 256)")
    p.add_argument("--limit", type=int, help="only the first N problems of each set")
    p.add_argument("--limit_factor", type=float, default=2.5, help="exit 1 below it (default: 2.5)")
    p.add_argument("--limit_seconds", type=float, default=15.0, help="exit 1 above it (default: 15)")
    p.add_argument("more", nargs="*", help="after --: more arguments of phase1_eval.py")
    args = p.parse_args()
    args.work, args.model = args.work.resolve(), args.model.resolve()
    return args


if __name__ == "__main__":
    sys.exit(main())
