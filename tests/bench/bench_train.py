"""Training throughput on one GPU, 7B on two: the spec's command (verl 0.7.0, padded) against TRAINER=engine (verl
0.9.1), by run_sft.sh itself.

    python tests/bench/bench_train.py --site070 SITE --site091 SITE --data DIR --out OUT            # the whole list
    python tests/bench/bench_train.py … --runs 05b/spec,05b/engine,15b/engine --seconds 500    # some, within a time
    python tests/bench/bench_train.py … --runs 05b/engine --cpu    # does it run at all?

SITE is a folder for PYTHONPATH that holds verl 0.7.0 (with transformers 4) or verl 0.9.1 and what they need beyond this
Python's own packages. DIR holds train.parquet and val.parquet (column messages), lengths.json (tokens of each training
row) and tok/ (a tokenizer). Models are random: Qwen2.5 shapes of 0.5B, 1.5B and 7B. A row of the table is printed and
written to OUT/results.jsonl as soon as it is measured; OUT/<run>/ keeps the trainer's log, its metrics and the command.

A step is the time between two logged steps, the median from the fourth on. Tokens are real ones, padding left out. MFU
= (6 N T + 6 L h sum of s^2) / time / 989.4 TFLOP/s (H100 and H200, bf16 dense), N weights in matrix products with the
head once, causal attention, no recomputation: what the model's definition needs, whoever computes less or more; a GPU's
share where there are several, while tokens/s are those of all. The engine sends only answer tokens through the head;
"done" counts those alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEAK_FLOPS = 989.4e12
BATCH = 32
SHAPES = {  # hidden, layers, heads, key heads, intermediate, vocabulary, tied
    "05b": (896, 24, 14, 2, 4864, 151936, True),
    "15b": (1536, 28, 12, 2, 8960, 151936, True),
    "7b": (3584, 28, 28, 4, 18944, 152064, False),
    "tiny": (64, 2, 2, 1, 128, 8192, True),
}
SPEC = {"TRAINER": "fsdp", "MAX_LENGTH": 4096, "MICRO_BATCH_SIZE": 2, "GRADIENT_CHECKPOINTING": True, "steps": 20}
ENGINE = {
    "TRAINER": "engine",
    "MAX_LENGTH": 4096,
    "MAX_TOKENS_PER_GPU": 32768,
    "GRADIENT_CHECKPOINTING": False,
    "COMPILE": 0,
    "overrides": ["engine.reshard_after_forward=False"],
    "steps": 14,
}
LARGE = ENGINE | {
    "MAX_TOKENS_PER_GPU": 16384,
    "GRADIENT_CHECKPOINTING": True,
    "overrides": [],
    "steps": 7,
    "rows": 128,
    "NPROC": 2,
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
}
RUNS = {  # the most informative first
    "05b/engine": ENGINE | {"steps": 30},
    "05b/spec": SPEC,
    "05b/engine compiled": ENGINE | {"COMPILE": 1, "steps": 30},
    "15b/engine compiled": ENGINE | {"COMPILE": 1},
    "15b/engine": ENGINE,
    "05b/engine 16k": ENGINE | {"MAX_TOKENS_PER_GPU": 16384},
    "05b/engine 16k checkpointing": ENGINE | {"MAX_TOKENS_PER_GPU": 16384, "GRADIENT_CHECKPOINTING": True},
    "05b/engine 16k checkpointing; logits": ENGINE
    | {"MAX_TOKENS_PER_GPU": 16384, "GRADIENT_CHECKPOINTING": True, "PHASE1_FUSED_LOSS": 0},
    "15b/engine 16k checkpointing": ENGINE | {"MAX_TOKENS_PER_GPU": 16384, "GRADIENT_CHECKPOINTING": True},
    "15b/engine checkpointing compiled": ENGINE | {"GRADIENT_CHECKPOINTING": True, "COMPILE": 1},
    "15b/spec": SPEC | {"steps": 5},
    "7b/engine": LARGE,
    "7b/engine compiled": LARGE | {"COMPILE": 1},
    "7b/engine compiled; shares as they come": LARGE | {"COMPILE": 1, "overrides": ["data.balance_dp_token=False"]},
    "7b/engine compiled 16k keeping .08": LARGE | {"COMPILE": 1, "ACTIVATION_MEMORY_BUDGET": ".08"},
    "7b/engine compiled 8k keeping .15": LARGE
    | {"COMPILE": 1, "MAX_TOKENS_PER_GPU": 8192, "ACTIVATION_MEMORY_BUDGET": ".15"},
    "7b/engine compiled 24k": LARGE | {"COMPILE": 1, "MAX_TOKENS_PER_GPU": 24576},
    "05b/engine 16k checkpointing; sdpa": ENGINE
    | {
        "MAX_TOKENS_PER_GPU": 16384,
        "GRADIENT_CHECKPOINTING": True,
        "overrides": [*ENGINE["overrides"], "model.override_config.attn_implementation=sdpa"],
        "steps": 5,
    },
    "05b/spec bf16": SPEC | {"MODEL_DTYPE": "bf16", "steps": 10},
    "tiny/engine": ENGINE | {"steps": 4},
    "tiny/spec": SPEC | {"steps": 4},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("site070", "site091", "data", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--models", type=Path, help="where the random models are made (default: OUT/models)")
    parser.add_argument(
        "--runs", default="", help="comma-separated names (default: all but tiny and 7b), in this order"
    )
    parser.add_argument("--seconds", type=float, default=1e9, help="start no run whose expected end lies beyond this")
    parser.add_argument(
        "--limit",
        type=float,
        default=300,
        help="seconds after which one run is stopped; compiling takes up to two minutes of them",
    )
    parser.add_argument("--batch", type=int, default=BATCH, help="rows a step")
    parser.add_argument("--skip_kernels", action="store_true", help="no check of the kernels against float64 first")
    parser.add_argument("--cpu", action="store_true", help="no GPU: whether it runs, not how fast")
    args = parser.parse_args()
    args.site070, args.site091, args.data, args.out = (
        p.resolve() for p in (args.site070, args.site091, args.data, args.out)
    )
    args.end = time.monotonic() + args.seconds
    args.models = (args.models or args.out / "models").resolve()
    for folder in (args.out, args.models):
        folder.mkdir(parents=True, exist_ok=True)
    names = [n.strip() for n in args.runs.split(",") if n.strip()] or [
        n for n in RUNS if not n.startswith(("tiny", "7b"))
    ]

    subprocess.run(
        [sys.executable, ROOT / "patches" / "apply_verl_patch.py", "--verl_dir", args.site070 / "verl"], check=True
    )
    if not args.cpu and not args.skip_kernels:
        subprocess.run([sys.executable, __file__, "--kernels"], check=False)
    makers = {}
    for shape in dict.fromkeys(n.split("/")[0] for n in names):
        makers[shape] = None if (args.models / shape / "config.json").exists() else make_model(args, shape)
    print(
        (
            f"{'run':40} {'s/step':>7} {'tokens/s':>9} {'MFU':>6} {'done':>6} {'GiB':>6} {'used':>6} {'busy':>5} "
            f"{'W':>4}  loss at 1, 5, 10, 20, 30"
        ),
        flush=True,
    )
    for name in names:
        shape = name.split("/")[0]
        if makers[shape] is not None and makers[shape].wait():
            print(f"{name:40} no model: see {args.models}/{shape}.log", flush=True)
            continue
        if time.monotonic() > args.end - 25:
            print(f"{name:40} left out: the time is up", flush=True)
            continue
        row = measure(args, name, RUNS[name])
        with open(args.out / "results.jsonl", "a") as f:
            f.write(json.dumps(row) + "\n")
        print(line(row), flush=True)
    return 0


def make_model(args: argparse.Namespace, shape: str) -> subprocess.Popen:
    """Random weights, bf16, a fixed seed, written by transformers 4 so that both verls read them."""
    hidden, layers, heads, kv, inter, vocab, tied = SHAPES[shape]
    script = f"""
import torch
from transformers import AutoTokenizer, GenerationConfig, Qwen2Config, Qwen2ForCausalLM
tok = AutoTokenizer.from_pretrained({str(args.data / "tok")!r})
torch.manual_seed(0)
torch.set_default_dtype(torch.bfloat16)
config = Qwen2Config(vocab_size={vocab}, hidden_size={hidden}, intermediate_size={inter}, num_hidden_layers={layers},
    num_attention_heads={heads}, num_key_value_heads={kv}, max_position_embeddings=32768, rope_theta=1e6,
    tie_word_embeddings={tied}, use_sliding_window=False,
    eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id, bos_token_id=None)
with torch.device("cuda" if torch.cuda.is_available() else "cpu"): model = Qwen2ForCausalLM(config)
model.generation_config = GenerationConfig(eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
model.save_pretrained({str(args.models / shape)!r}, max_shard_size="2GB")
tok.save_pretrained({str(args.models / shape)!r})
"""
    env = os.environ | {"PYTHONPATH": f"{args.site070}"}
    with open(args.models / f"{shape}.log", "w") as log:
        return subprocess.Popen([sys.executable, "-c", script], env=env, stdout=log, stderr=log)


def measure(args: argparse.Namespace, name: str, knobs: dict) -> dict:
    """One run of run_sft.sh in a process group of its own; every number of its row."""
    shape, folder = name.split("/")[0], args.out / name.replace("/", "_").replace(" ", "_").replace(";", "")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    knobs = dict(knobs)
    steps, batch, overrides = knobs.pop("steps"), knobs.pop("rows", args.batch), knobs.pop("overrides", [])
    site = args.site070 if knobs["TRAINER"] == "fsdp" else args.site091
    contents = "trainer.checkpoint" if knobs["TRAINER"] == "fsdp" else "checkpoint"
    paths = [str(site.parent / "shims")] if (site.parent / "shims").is_dir() else []
    knobs |= {
        "MODEL_PATH": args.models / shape,
        "TRAIN_FILE": args.data / "train.parquet",
        "VAL_FILE": args.data / "train.parquet",
        "TRAIN_BATCH_SIZE": batch,
        "LR": "1e-5",
        "WARMUP_RATIO": "0.1",
        "EPOCHS": 1,
        "TOTAL_STEPS": steps,
        "SAVE_FREQ": -1,
        "TEST_FREQ": -1,
        "LOGGER": "console",
        "CKPT_DIR": folder / "ckpt",
        "OUTPUT_DIR": folder,
        "RESUME_MODE": "disable",
        "PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join([*paths, str(site)]),
        "HYDRA_FULL_ERROR": 1,
        "HF_HUB_OFFLINE": 1,
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": 4,
        "NPROC": knobs.get("NPROC", 1),
        "DEVICE": "cpu" if args.cpu else "cuda",
    }
    command = [
        "bash",
        str(ROOT / "run_sft.sh"),
        f"{contents}.save_contents=[extra]",
        f"data.val_max_samples={batch}",
        *overrides,
    ]
    (folder / "command.txt").write_text(" ".join([f"{k}='{v}'" for k, v in knobs.items()] + command) + "\n")
    env = os.environ | {k: str(v) for k, v in knobs.items()}
    samples: list[tuple[float, ...]] = []
    stop = threading.Event()
    sampler = threading.Thread(target=sample_gpu, args=(samples, stop), daemon=True)
    started = time.time()
    with open(folder / "screen.txt", "w") as screen:
        process = subprocess.Popen(command, env=env, stdout=screen, stderr=screen, start_new_session=True)
        if not args.cpu:
            sampler.start()
        try:
            status = process.wait(min(args.limit, args.end - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            status = "time"
    stop.set()
    metrics = folder / "train_metrics.jsonl"
    rows = [json.loads(x) for x in metrics.read_text().splitlines()] if metrics.exists() else []
    row = {
        "run": name,
        "status": status,
        "wall": round(time.time() - started, 1),
        "rows": batch,
        **summary(args, shape, knobs, batch, rows, samples),
    }
    if status != 0:
        screen = (folder / "screen.txt").read_text(errors="replace").splitlines()
        row["error"] = [
            x[:300] for x in screen if "Error" in x and "ChildFailed" not in x and "not available" not in x
        ][-3:] or screen[-3:]
    shutil.rmtree(folder / "ckpt", ignore_errors=True)
    return row


def summary(
    args: argparse.Namespace, shape: str, knobs: dict, batch: int, rows: list[dict], samples: list[tuple[float, ...]]
) -> dict:
    trained = [r for r in rows if "train/loss" in r]
    if not trained:
        return {}
    hidden, layers, heads, kv, inter, vocab, _ = SHAPES[shape]
    body = layers * (2 * hidden * hidden + 2 * hidden * (hidden // heads) * kv + 3 * hidden * inter)
    lengths, order = row_order(args)
    found = {
        "loss": {r["step"]: round(r["train/loss"], 4) for r in trained},
        "grad_norm": {r["step"]: round(r["train/grad_norm"], 3) for r in trained},
    }
    late = [r for r in trained if r["step"] > 3 and r.get("seconds")]
    if late:
        seconds = statistics.median(r["seconds"] for r in late)
        per_step = []
        for r in late:
            rows_of = [min(lengths[i], knobs["MAX_LENGTH"]) for i in order[(r["step"] - 1) * batch : r["step"] * batch]]
            per_step.append((sum(rows_of), sum(s * s for s in rows_of)))
        tokens, squares = (sum(x[i] for x in per_step) / len(per_step) for i in (0, 1))
        attention = 6 * layers * hidden * squares
        flops = 6 * (body + vocab * hidden) * tokens + attention
        done = (
            6 * body * tokens + 6 * vocab * hidden * tokens * args.answer_share + attention
            if knobs["TRAINER"] == "engine"
            else flops
        )
        span, peak = sum(r["seconds"] for r in late), PEAK_FLOPS * knobs["NPROC"]
        found |= {
            "s_step": round(seconds, 4),
            "s_steps": [r["seconds"] for r in late],
            "tokens_s": round(tokens / seconds),
            "tokens_s_mean": round(sum(x[0] for x in per_step) / span),
            "mfu": round(flops / seconds / peak, 4),
            "mfu_done": round(done / seconds / peak, 4),
        }
        inside = [s for s in samples if late[0]["time"] - late[0]["seconds"] <= s[0] <= late[-1]["time"]]
        if inside:
            found |= {
                "busy": round(statistics.mean(s[1] for s in inside)),
                "watts": round(statistics.mean(s[3] for s in inside)),
            }
    if samples:
        found["used_gib"] = round(max(s[2] for s in samples) / 1024, 1)
    if peak := trained[-1].get("perf/max_memory_allocated_gb"):
        found |= {"alloc_gib": round(peak, 1), "reserved_gib": round(trained[-1]["perf/max_memory_reserved_gb"], 1)}
    return found


def row_order(args: argparse.Namespace) -> tuple[list[int], list[int]]:
    """Lengths of the rows and the order of torch's DistributedSampler(shuffle=True, seed=0) in its first epoch."""
    if not hasattr(args, "order"):
        args.lengths = json.loads((args.data / "lengths.json").read_text())
        script = (
            "import torch, json; g = torch.Generator(); g.manual_seed(0); "
            f"print(json.dumps(torch.randperm({len(args.lengths)}, generator=g).tolist()))"
        )
        args.order = json.loads(
            subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        )
        args.answer_share = (
            json.loads((args.data / "answer_share.json").read_text())
            if (args.data / "answer_share.json").exists()
            else 0.375
        )
    return args.lengths, args.order


def sample_gpu(samples: list[tuple[float, ...]], stop: threading.Event) -> None:
    """(time, busy %, MiB used, W) about twice a second until told to stop."""
    query = [
        "nvidia-smi",
        "--query-gpu=utilization.gpu,memory.used,power.draw",
        "--format=csv,noheader,nounits",
        "-i",
        "0",
    ]
    while not stop.wait(0.4):
        done = subprocess.run(query, capture_output=True, text=True)
        try:
            samples.append((time.time(), *(float(x) for x in done.stdout.split(","))))
        except ValueError:
            continue


def line(row: dict) -> str:
    if "s_step" not in row:
        return f"{row['run']:40} status {row['status']} after {row['wall']} s: {row.get('error')}"
    losses = " ".join(f"{row['loss'].get(s, 0):.4f}" for s in (1, 5, 10, 20, 30) if s in row["loss"])
    flaw = "" if row["status"] == 0 else f"  status {row['status']}: {row.get('error')}"
    return (
        f"{row['run']:40} {row['s_step']:7.3f} {row['tokens_s']:9,} {row['mfu']:6.1%} {row['mfu_done']:6.1%} "
        f"{row.get('alloc_gib', 0):6.1f} "
        f"{row.get('used_gib', 0):6.1f} {row.get('busy', 0):4}% {row.get('watts', 0):4}  {losses}{flaw}"
    )


def check_kernels() -> None:
    """Both kernels of patches/phase1_kernels.py against float64, on the GPU and in bf16 as in training."""
    sys.path.insert(0, str(ROOT / "patches"))
    import torch
    from phase1_kernels import packed_attention, sum_log_probs

    def error(got: torch.Tensor, exact: torch.Tensor) -> float:
        return float(((got.double() - exact).norm() / exact.norm()).detach())

    torch.manual_seed(0)
    gpu = {"device": "cuda", "dtype": torch.bfloat16}
    print(
        f"kernels: {torch.cuda.get_device_name()}, torch {torch.__version__}; relative errors against float64",
        flush=True,
    )
    lengths = torch.tensor([0, 700, 33, 1500, 1, 64])
    starts = lengths.cumsum(0).to("cuda", torch.int32)
    for heads, kv, size in ((14, 2, 64), (12, 2, 128), (28, 4, 128)):
        q, k, v = (torch.randn(int(lengths.sum()), h, size, **gpu).requires_grad_() for h in (heads, kv, kv))
        upstream = torch.randn_like(q)
        out = packed_attention(q, k, v, starts, 1536)
        got = (out, *torch.autograd.grad(out, (q, k, v), upstream))
        exact_in = [x.detach().double().cpu().requires_grad_() for x in (q, k, v)]
        ref = packed_attention(*exact_in, starts.cpu(), 1536)
        exact = (ref, *torch.autograd.grad(ref, exact_in, upstream.double().cpu()))
        print(
            f"  attention {heads}/{kv} heads of {size}: "
            + ", ".join(
                f"{n} {error(a.cpu(), b):.1e}" for n, a, b in zip(("out", "dq", "dk", "dv"), got, exact, strict=True)
            ),
            flush=True,
        )
    for tokens, size, vocab in ((5000, 896, 151936), (1000, 3584, 152064)):
        hidden, weight = (
            torch.randn(tokens, size, **gpu).requires_grad_(),
            (torch.randn(vocab, size, **gpu) * 0.05).requires_grad_(),
        )
        labels = torch.randint(0, vocab, (tokens,), device="cuda")
        total = sum_log_probs(hidden, weight, labels)
        got = (total, *torch.autograd.grad(total, (hidden, weight)))
        h, w = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
        d_h, d_w, s = torch.zeros_like(h), torch.zeros_like(w), 0.0
        for at in range(0, tokens, 500):
            part = torch.log_softmax(h[at : at + 500] @ w.t(), 1).gather(1, labels[at : at + 500, None]).sum()
            a, b = torch.autograd.grad(part, (h, w))
            d_h, d_w, s = d_h + a, d_w + b, s + part.detach()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(5):
            torch.autograd.grad(sum_log_probs(hidden, weight, labels), (hidden, weight))
        torch.cuda.synchronize()
        spent = (time.perf_counter() - begin) / 5
        print(
            f"  loss {tokens} tokens x {size} x {vocab}: "
            + ", ".join(
                f"{n} {error(x, y):.1e}"
                for n, x, y in zip(("sum", "d hidden", "d weight"), got, (s, d_h, d_w), strict=True)
            )
            + f"; {spent * 1e3:.1f} ms, {6 * tokens * size * vocab / spent / 1e12:.0f} TFLOP/s",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(check_kernels() if "--kernels" in sys.argv else main())
