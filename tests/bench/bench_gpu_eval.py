"""phase1_eval.py on a GPU, end to end: a real vLLM server it starts itself, a random model of Qwen2.5-0.5B's shape, all
of HumanEval and MBPP and a sample of CodeContests, the real judge.

    python tests/bench/bench_gpu_eval.py --work /tmp/bench --data DIR --tokenizer outputs/demo/base_model
    python tests/bench/bench_gpu_eval.py --work /tmp/bench --data DIR --tokenizer T --shape tiny --cpu --limit 8

DIR holds HumanEval.jsonl.gz, mbpp.jsonl.gz and codecontests_sample.jsonl.gz. Needs no network. Prints what the records
and the GPU's own counters say: tokens/s, time to the first verdict, time from the last completion to the last verdict,
and how much of the time between first request and last completion the GPU stood idle. A random model never ends an
answer, so each has --max_new_tokens; its programs are mostly syntax errors, so the judge's share is smaller than a
trained model's.
"""

import argparse
import gzip
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from phase1.data import public_sets as eval_sources
from phase1.files import read_json, read_jsonl
from phase1.machine import usable_gpus

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {
    "05b": (896, 24, 14, 2, 4864, 151936),
    "tiny": (128, 2, 4, 2, 352, 2048),
}  # hidden, layers, heads, kv heads, mlp, vocabulary
SETS = ["codecontests_valid", "mbpp_reg", "humaneval"]


def main() -> int:
    args = parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    model, output = args.work / "model", args.work / "out"
    if not (model / "config.json").exists():
        build_model(model, args.tokenizer, args.shape)
    prepare_data(args.work / "data", args.data)
    shutil.rmtree(output, ignore_errors=True)
    probe = subprocess.run([sys.executable, "-m", "phase1.judge", "--probe"], cwd=ROOT, capture_output=True, text=True)
    isolated = probe.returncode == 0
    print(
        "sandbox:",
        "isolated"
        if isolated
        else (
            f"NOT isolated here, judged with --unsafe ({(probe.stderr or probe.stdout).strip().splitlines()[-1][:200]})"
        ),
        flush=True,
    )
    command = [
        sys.executable,
        str(ROOT / "phase1_eval.py"),
        "--model_path",
        str(model),
        "--output_dir",
        str(output),
        "--manifest_dir",
        str(args.work / "data" / "manifests"),
        "--datasets",
        *SETS,
        "--backend",
        "vllm",
        "--max_new_tokens",
        str(args.max_new_tokens),
        "--dtype",
        "float32" if args.cpu else "bfloat16",
        *([] if isolated else ["--unsafe"]),
        *(["--limit", str(args.limit)] if args.limit else []),
        *args.more,
    ]
    samples: list[tuple[float, float]] = []
    stop = threading.Event()
    threading.Thread(target=sample_gpu, args=(samples, stop), daemon=True).start()
    started = time.time()
    code = subprocess.run(command).returncode
    ended = time.time()
    stop.set()
    if code == 0:
        report(output, samples, started, ended)
    if args.handoff:
        subprocess.run(
            [
                sys.executable,
                str(ROOT / "verify_handoff.py"),
                "--model_path",
                str(model),
                "--output_dir",
                str(args.work / "handoff"),
            ]
        )
        [check] = [c for c in read_json(args.work / "handoff" / "handoff.json")["checks"] if c["name"] == "vllm"]
        print(f"verify_handoff.py, vLLM check: {check['status']}: {check['evidence']}")
    return code


def build_model(directory: Path, tokenizer: Path, shape: str) -> None:
    """Random weights as safetensors, written without transformers: its versions 4 and 5 write different configurations.

    Rows of the vocabulary that the tokenizer does not have are zero, so a greedy answer is text all the same; the
    layers' outputs are larger than usual, or with tied embeddings the most likely next token is the last one again.
    """
    import torch
    from safetensors.torch import save_file

    hidden, layers, heads, kv, mlp, vocabulary = SHAPES[shape]
    directory.mkdir(parents=True)
    for path in tokenizer.iterdir():
        if path.is_file() and path.suffix != ".safetensors" and path.name != "config.json":
            shutil.copy(path, directory)
    known = len(read_json(tokenizer / "tokenizer.json")["model"]["vocab"])
    config = read_json(tokenizer / "config.json") | {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": mlp,
        "vocab_size": vocabulary,
        "layer_types": ["full_attention"] * layers,
        "dtype": "bfloat16",
        "max_window_layers": layers,
    }
    (directory / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    kv_size = hidden // heads * kv
    weights = {
        "model.embed_tokens.weight": torch.randn(vocabulary, hidden) * 0.02,
        "model.norm.weight": torch.ones(hidden),
    }
    weights["model.embed_tokens.weight"][known:] = 0
    for i in range(layers):
        name = f"model.layers.{i}."
        for part, size in (("q", hidden), ("k", kv_size), ("v", kv_size)):
            weights |= {
                f"{name}self_attn.{part}_proj.weight": torch.randn(size, hidden) * 0.02,
                f"{name}self_attn.{part}_proj.bias": torch.zeros(size),
            }
        weights[f"{name}self_attn.o_proj.weight"] = torch.randn(hidden, hidden) * 0.02
        weights |= {
            f"{name}mlp.{part}_proj.weight": torch.randn(*size) * (0.2 if part == "down" else 0.02)
            for part, size in (("gate", (mlp, hidden)), ("up", (mlp, hidden)), ("down", (hidden, mlp)))
        }
        weights |= {f"{name}{norm}_layernorm.weight": torch.ones(hidden) for norm in ("input", "post_attention")}
    save_file(
        {k: v.to(torch.bfloat16).contiguous() for k, v in weights.items()},
        directory / "model.safetensors",
        {"format": "pt"},
    )
    print(f"model: {sum(v.numel() for v in weights.values()) / 1e6:.0f} M parameters, random, {shape}", flush=True)


def prepare_data(directory: Path, public: Path) -> None:
    """HumanEval and MBPP's regression set by prepare_eval_data.py; then the rest of MBPP and the CodeContests sample
    beside them."""
    subprocess.run(
        [
            sys.executable,
            str(ROOT / "prepare_eval_data.py"),
            "--output_dir",
            str(directory),
            "--datasets",
            "humaneval",
            "mbpp_reg",
            "--humaneval_file",
            str(public / "HumanEval.jsonl.gz"),
            "--mbpp_file",
            str(public / "mbpp.jsonl.gz"),
        ],
        check=True,
    )
    mbpp = []
    for row in lines(public / "mbpp.jsonl.gz"):
        try:
            mbpp.append(eval_sources.mbpp_record(row))
        except eval_sources.Refused as e:
            print(f"MBPP {row['task_id']} left out: {e}")
    for name, records in (("mbpp_reg", mbpp), ("codecontests_valid", lines(public / "codecontests_sample.jsonl.gz"))):
        for kind, rows in (
            ("manifests/{}_manifest.jsonl", [{"problem_id": r["problem_id"]} for r in records]),
            ("raw/{}_raw.jsonl", records),
        ):
            (directory / kind.format(name)).write_text("".join(json.dumps(r) + "\n" for r in rows))


def lines(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def sample_gpu(samples: list[tuple[float, float]], stop: threading.Event) -> None:
    """(Unix time, mean utilisation of the visible GPUs in percent), ten times a second through NVML, else about once by
    nvidia-smi."""
    try:
        import pynvml

        pynvml.nvmlInit()
        gpus = [pynvml.nvmlDeviceGetHandleByIndex(int(i)) for i in usable_gpus()]

        def read() -> list[float]:
            return [pynvml.nvmlDeviceGetUtilizationRates(g).gpu for g in gpus]
    except Exception:  # no pynvml, or no driver: NVML has an exception class for each reason
        if shutil.which("nvidia-smi") is None:
            return

        def read() -> list[float]:
            asked = subprocess.run(
                [
                    "nvidia-smi",
                    "-i",
                    ",".join(usable_gpus()),
                    "--query-gpu=utilization.gpu",
                    "--format=csv,noheader,nounits",
                ],
                capture_output=True,
                text=True,
            )
            return [float(word) for word in asked.stdout.split()]

    while not stop.wait(0.1):
        if now := read():
            samples.append((time.time(), sum(now) / len(now)))


def report(output: Path, samples: list[tuple[float, float]], started: float, ended: float) -> None:
    """The table, from the records' own times."""
    records = [r for d in SETS for _, r in read_jsonl(output / "results" / f"{d}.jsonl")]
    first = min(r["started"] for r in records)
    last_completion = max(r["started"] + r["gen_time"] for r in records)
    first_verdict, last_verdict = (f(r["finished"] for r in records) for f in (min, max))
    tokens, tests = sum(r["gen_tokens"] for r in records), sum(r["tests_run"] for r in records)
    busy = [u for t, u in samples if first <= t <= last_completion]
    counts: dict[str, int] = {}
    for r in records:
        counts[r["error_type"]] = counts.get(r["error_type"], 0) + 1
    run = read_json(output / "run.json")
    rows = [
        ("problems", f"{len(records)}: {counts}"),
        (
            "versions",
            json.dumps(
                {k: v for k, v in run["stamp"]["versions"].items() if k in ("python", "torch", "transformers", "vllm")}
            ),
        ),
        ("sandbox, workers", f"{run['sandbox']['mode']}, {run['sandbox']['workers']}"),
        ("start to first request (servers, checks)", f"{first - started:.1f} s"),
        (
            "generation",
            f"{last_completion - first:.2f} s, {sum(r['prompt_tokens'] for r in records):,} tokens in, {tokens:,} out",
        ),
        ("output tokens/s", f"{tokens / (last_completion - first):,.0f}"),
        (
            "first completion to first verdict",
            f"{first_verdict - min(r['started'] + r['gen_time'] for r in records):.2f} s",
        ),
        ("first request to first verdict", f"{first_verdict - first:.2f} s"),
        ("last completion to last verdict", f"{last_verdict - last_completion:.2f} s"),
        ("judging", f"{sum(r['judge_time'] for r in records):.1f} s of tests, {tests:,} tests run"),
        (
            "GPU idle between first request and last completion",
            (
                f"{100 - sum(busy) / len(busy):.1f}% (utilisation), "
                f"{100 * sum(u == 0 for u in busy) / len(busy):.1f}% of {len(busy)} samples at 0"
            )
            if busy
            else "no GPU seen",
        ),
        ("last verdict to the end of the command", f"{ended - last_verdict:.1f} s"),
    ]
    for name, value in rows:
        print(f"| {name} | {value} |")
    waited = sorted(((r["finished"] - r["started"] - r["gen_time"], r) for r in records), key=lambda pair: -pair[0])
    print(
        "longest from completion to verdict: "
        + "; ".join(f"{s:.1f} s {r['problem_id']} {r['error_type']} {r['detail'][:60]!r}" for s, r in waited[:4])
    )


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", type=Path, required=True, help="where model, data and outputs go")
    p.add_argument("--data", type=Path, required=True, help="folder of the three public files")
    p.add_argument(
        "--tokenizer", type=Path, required=True, help="HF directory whose tokenizer and config the model takes"
    )
    p.add_argument("--shape", choices=list(SHAPES), default="05b")
    p.add_argument("--max_new_tokens", type=int, default=512, help="of each answer (default: 512)")
    p.add_argument("--limit", type=int, help="only the first N problems of each set")
    p.add_argument("--cpu", action="store_true", help="float32, to try the benchmark out")
    p.add_argument(
        "--handoff", action="store_true", help="then run verify_handoff.py on the model and print its vLLM check"
    )
    p.add_argument("more", nargs="*", help="after --: more arguments of phase1_eval.py")
    return p.parse_args()


if __name__ == "__main__":
    sys.exit(main())
