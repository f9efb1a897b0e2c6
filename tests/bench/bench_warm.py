"""Three checkpoints of one model: a server's start for each, beside one start a pass.

    python tests/bench/bench_warm.py --work /tmp/bench --model DIR                   # on a GPU; needs no network
    python tests/bench/bench_warm.py --work /tmp/bench --model DIR --limit 8 -- --dtype float32 \\
        --vllm_python .venv-vllm/bin/python --vllm_args=--enforce-eager              # tried out on a CPU

Makes three checkpoints of DIR (the model itself, and two whose every weight is another), evaluates them one after the
other by phase1_eval.py, each with servers of its own, then again as run_eval_checkpoints.sh does, with servers that
stay. --shape 05b makes DIR first: random weights in the shape of Qwen2.5-0.5B, with the tokenizer of --tokenizer.
Prints where the time went, from run.json. Exit 1 where an evaluation fails, or the pass did not start once and swap
twice.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from phase1.checkpoints.child import run_child
from phase1.files import read_json
from phase1.generate.kept_servers import held_servers

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "data" / "samples" / "manifests"
COLUMNS = ("start", "swap", "generation", "judging", "tail")


@dataclass(frozen=True)
class Evaluated:
    """One evaluation: its wall time in all, and the seconds that its run.json tells."""

    wall: float
    seconds: dict[str, float]


def main() -> int:
    args = parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.shape and not (args.model / "config.json").exists():
        from tests.bench.bench_gpu_eval import build_model

        build_model(args.model, args.tokenizer, args.shape)
    models = make_checkpoints(args.model, args.work / "checkpoints")
    probe = [sys.executable, "-m", "phase1.judge", "--probe"]
    isolated = subprocess.run(probe, cwd=ROOT, capture_output=True).returncode == 0
    unsafe = [] if isolated else ["--unsafe"]
    print(f"judge: {'NOT isolated here, --unsafe' if unsafe else 'isolated'}")
    print("| way | checkpoint | in all s | " + " | ".join(f"{c} s" for c in COLUMNS) + " |")
    print("|---|---|---|" + "---|" * len(COLUMNS))
    own = [evaluate(args, "own", n, model, {}, unsafe) for n, model in enumerate(models)]
    began = time.monotonic()
    with held_servers(args.work / "kept" / "servers") as kept:
        stay = [evaluate(args, "kept", n, model, kept, unsafe) for n, model in enumerate(models)]
    stay_wall, own_wall = time.monotonic() - began, sum(e.wall for e in own)
    factor = f"{own_wall / stay_wall:.2f} times faster"
    print(f"in all: {own_wall:.1f} s with a start for each, {stay_wall:.1f} s with one: {factor}")
    for n, done in enumerate(stay):
        beside = done.wall - done.seconds.get("generation", 0.0) - done.seconds.get("tail", 0.0)
        print(f"checkpoint {n}: {beside:.1f} s beside generation and tail; answers equal: {equal_answers(args, n)}")
    return int(["swap" in e.seconds for e in stay] != [False, True, True])


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


def evaluate(
    args: argparse.Namespace, way: str, n: int, model: Path, environment: dict[str, str], unsafe: list[str]
) -> Evaluated:
    """One evaluation as a pass runs it; prints its row."""
    out, log = args.work / way / f"eval_step_{n}", args.work / way / f"log_{n}"
    shutil.rmtree(out, ignore_errors=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    arguments = ["--model_path", str(model), "--output_dir", str(out), "--manifest_dir", str(args.manifest_dir)]
    arguments += ["--backend", "vllm", "--max_new_tokens", str(args.max_new_tokens), *unsafe]
    arguments += [*(["--limit", str(args.limit)] if args.limit else []), *args.more]
    began = time.monotonic()
    if error := run_child("phase1_eval.py", arguments, log, environment):
        sys.exit(f"{error}; see {log}")
    wall, run = time.monotonic() - began, read_json(out / "run.json")
    done = Evaluated(wall, run["seconds"])
    cells = [f"{done.seconds[c]:.1f}" if c in done.seconds else "-" for c in COLUMNS]
    print(f"| {way} | {n} | {wall:.1f} | " + " | ".join(cells) + " |", flush=True)
    return done


def equal_answers(args: argparse.Namespace, n: int) -> str:
    """How many answers of the two ways are equal; batches differ, so on a GPU without --batch_invariant not all are."""
    found = []
    for way in ("own", "kept"):
        paths = (args.work / way / f"eval_step_{n}" / "completions").glob("*.jsonl")
        rows = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
        found.append({(r["dataset"], r["problem_id"]): r["completion"] for r in rows})
    same = sum(found[1].get(key) == text for key, text in found[0].items())
    return f"{same} of {len(found[0])}"


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", type=Path, required=True, help="where checkpoints and outputs go")
    p.add_argument("--model", type=Path, required=True, help="HF directory of the first checkpoint")
    p.add_argument("--shape", help="make --model first: 05b or tiny, as bench_gpu_eval.py has them")
    p.add_argument("--tokenizer", type=Path, help="with --shape: the HF directory whose tokenizer it takes")
    p.add_argument("--manifest_dir", type=Path, default=SAMPLES, help="of the problems (default: data/samples)")
    p.add_argument("--max_new_tokens", type=int, default=256, help="of each answer (default: 256)")
    p.add_argument("--limit", type=int, help="only the first N problems of each set")
    p.add_argument("more", nargs="*", help="after --: more arguments of phase1_eval.py")
    return p.parse_args()


if __name__ == "__main__":
    sys.exit(main())
