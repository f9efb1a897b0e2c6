"""The hand-off on a GPU: a 0.5B-shaped model through verify_handoff.py, with a real vLLM server under the seed's
arguments.

    python tests/bench/gpu_handoff.py --model M05 --work_dir /tmp/handoff

M05: an HF directory of that shape with random weights. Such a model answers no Python, so it is first trained for some
seconds to give one program for the hand-off's questions (what comes out is sure of every token, so greedy answers of
two kernels can be compared). Then convert_fsdp_to_hf.py --slim, verify_handoff.py against the untrained model, and a
look at the GPU: the server must be gone. Prints the checks; exits with verify_handoff.py's code.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
ANSWER = """import sys

def solve(numbers):
    best = 0
    seen = {}
    for index, value in enumerate(numbers):
        if value in seen:
            best = max(best, index - seen[value])
        else:
            seen[value] = index
    return best + sum(numbers)

numbers = []
for word in sys.stdin.read().split():
    try:
        numbers.append(int(word))
    except ValueError:
        numbers.append(len(word))
print(solve(numbers))"""


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, help="HF directory with random weights, its tokenizer included")
    p.add_argument("--work_dir", required=True, help="where the trained model and the verdict go (3 GB)")
    p.add_argument(
        "--steps", type=int, default=200, help="at most; training ends when the answer is learned (default: 200)"
    )
    args = p.parse_args()
    work = Path(args.work_dir)
    run(
        [sys.executable, __file__, "--train", args.model, str(work / "model"), str(args.steps)]
    )  # its GPU memory goes with it
    run([sys.executable, ROOT / "convert_fsdp_to_hf.py", "--slim", work / "model", "--verify"])
    before = gpu_memory()
    started = time.monotonic()
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "verify_handoff.py",
            "--model_path",
            work / "model",
            "--base_model",
            args.model,
            "--output_dir",
            work / "handoff",
            "--max_new_tokens",
            "256",
            "--vllm_timeout",
            "300",
        ]
    )
    print(
        f"verify_handoff.py: exit {done.returncode} after {time.monotonic() - started:.0f} s; GPU memory in "
        f"use before {before}, after {gpu_memory()}"
    )
    checks = json.loads((work / "handoff/handoff.json").read_text())["checks"]
    print(json.dumps(next(c for c in checks if c["name"] == "vllm"), indent=1)[:3000])
    return done.returncode


def train(start: str, folder: str, steps: str) -> None:
    """Train the model in `start` to answer the hand-off's questions with one program; save fp32 weights, as verl
    does."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from phase1.contract.prompts import answer, chat
    from phase1.handoff.ask_model import PROMPTS

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(start)
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32).to(device)
    asked = [
        tokenizer(
            tokenizer.apply_chat_template(chat(q), add_generation_prompt=True, tokenize=False), add_special_tokens=False
        ).input_ids
        for q in PROMPTS
    ]
    told = tokenizer(answer(ANSWER) + tokenizer.eos_token + "\n", add_special_tokens=False).input_ids
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.0)
    recent: list[float] = []
    for step in range(int(steps)):
        ids = torch.tensor([asked[step % len(asked)] + told], device=device)
        labels = ids.clone()
        labels[:, : -len(told)] = -100
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        recent.append(loss.item())
        if max(recent[-len(asked) :]) < 0.005:
            break
    print(f"trained {len(recent)} steps, loss {recent[0]:.2f} -> {recent[-1]:.4f}")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def run(command: list) -> None:
    print("$", *command, flush=True)
    subprocess.run([str(c) for c in command], check=True, env=os.environ)


def gpu_memory() -> str:
    try:
        return subprocess.check_output(
            ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader"], text=True
        ).strip()
    except OSError:
        return "unknown (no nvidia-smi)"


if __name__ == "__main__":
    if "--train" in sys.argv[1:2]:
        train(*sys.argv[2:])
    else:
        sys.exit(main())
