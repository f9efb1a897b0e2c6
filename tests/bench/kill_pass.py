"""SIGKILL at ten moments of a pass over three checkpoints: nothing asked twice, nothing mixed, the same metrics.

    python tests/bench/kill_pass.py --work /tmp/kills                # a check, not a benchmark; some minutes

run_eval_checkpoints.sh over three checkpoints, with a stub for vLLM that says in each answer which weights gave it, and
the real judge: once undisturbed, once killed ten times, by turns the pass alone and the pass with all of its group,
when a further share of all answers is on disk, and started again. Exit 1 where an answer that was on disk at a kill is
asked for again, an answer comes from another checkpoint's weights, one is there twice or missing, a server outlives
its pass, or a verdict or metric differs from the undisturbed pass.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from phase1.contract.problems import load_problems
from phase1.files import read_json, read_jsonl
from phase1.model.tokenizer import chat_ids, load_chat_tokenizer
from tests.bench.bench_warm import SAMPLES, make_checkpoints
from tests.generate.stub_servers import stub_interpreter
from tests.generate.stub_vllm import key, weights_of

ROOT = Path(__file__).resolve().parents[2]
SETS = ("codecontests_valid", "mbpp_reg")
VERDICT = ("completion", "error_type", "accepted", "pass_ratio", "test_verdicts")


@dataclass(frozen=True)
class Kill:
    """When it came, and the answers on disk then: (step, set, problem)."""

    time: float
    done: set[tuple[int, str, str]]


def main() -> int:
    args = parse_args()
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    build = [
        sys.executable,
        str(ROOT / "data" / "samples" / "build_model.py"),
        "--output_dir",
        str(args.work / "model"),
    ]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    models = dict(enumerate(make_checkpoints(args.work / "model", args.work / "checkpoints"), 1))
    (args.work / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("3")
    calm, killed = args.work / "calm", args.work / "killed"
    start_pass(args, calm).wait()
    kills = kill_ten_times(args, killed, len(answers(calm)))
    wrong = faults(args, models, calm, killed, kills)
    for line in wrong:
        print(f"WRONG {line}")
    starts = (killed / "attempts.json").read_text().count('"started"')
    print(f"{len(kills)} kills at {[len(k.done) for k in kills]} of {len(answers(calm))} answers; {starts} attempts")
    return int(bool(wrong) or len(kills) < args.kills)


def start_pass(args: argparse.Namespace, outputs: Path) -> subprocess.Popen:
    """A pass in a group of its own."""
    outputs.mkdir(exist_ok=True)
    env = {**os.environ, "CKPT_DIR": str(args.work / "checkpoints"), "OUTPUT_DIR": str(outputs)}
    env["PYTHON"] = sys.executable
    env["MANIFEST_DIR"] = str(SAMPLES)
    stub = f"--log {outputs / 'asked.jsonl'} --mark --seconds {args.seconds} --places 4"
    flags = ["--settle", "0", "--tier2_every", "1000000", "--limit", str(args.limit), "--num_servers", "1"]
    flags += ["--backend", "vllm", "--vllm_python", str(stub_interpreter(args.work)), f"--vllm_args={stub}"]
    with open(outputs / "pass.log", "ab") as log:
        command = ["bash", str(ROOT / "run_eval_checkpoints.sh"), *flags]
        return subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)


def kill_ten_times(args: argparse.Namespace, outputs: Path, total: int) -> list[Kill]:
    """Pass after pass until one ends by itself with all answers."""
    kills: list[Kill] = []
    while True:
        process = start_pass(args, outputs)
        wanted = total * (len(kills) + 1) // (args.kills + 1)
        while process.poll() is None and (len(kills) == args.kills or len(answers(outputs)) < wanted):
            time.sleep(0.01)
        if process.poll() is not None:
            if len(answers(outputs)) == total and all_complete(outputs):
                return kills
            time.sleep(0.5)  # the one before is still ending: "another evaluation is at work"
            continue
        if len(kills) % 2:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        while alive := servers_of(outputs):  # what it had started ends with it, without a word from us
            time.sleep(0.1)
            if kills and time.time() - kills[-1].time > 60:
                sys.exit(f"processes outlive the pass: {alive}")
        kills.append(Kill(time.time(), set(answers(outputs))))


def faults(args: argparse.Namespace, models: dict[int, Path], calm: Path, killed: Path, kills: list[Kill]) -> list[str]:
    """What is not as it must be."""
    tokenizer = load_chat_tokenizer(args.work / "model")
    keys = {(d, p.problem_id): key(chat_ids(tokenizer, p.user)) for d in SETS for p in load_problems(SAMPLES, d)}
    asked = [row for _, row in read_jsonl(killed / "asked.jsonl") if row["event"] == "asked"]
    weights = {step: weights_of(str(model)) for step, model in models.items()}
    wrong = []
    for kill in kills:
        later = {(row["weights"], row["key"]) for row in asked if row["time"] > kill.time}
        wrong += [f"asked again: {a}" for a in kill.done if (weights[a[0]], keys[a[1], a[2]]) in later]
    for answer, count in answers(killed).items():
        wrong += [f"{count} times: {answer}"] if count > 1 else []
    for step in models:
        one, other = verdicts(calm, step), verdicts(killed, step)
        wrong += [f"step {step}: other verdicts"] if one != other else []
        wrong += [f"step {step}: mixed" for v in other.values() if not v[0].endswith(f"by {weights[step]}")]
        wrong += [f"step {step}: other metrics"] if metrics(calm, step) != metrics(killed, step) else []
    return wrong


def answers(outputs: Path) -> Counter[tuple[int, str, str]]:
    """The whole lines of completions on disk, by step, set and problem."""
    found: Counter[tuple[int, str, str]] = Counter()
    for path in outputs.glob("eval_step_*/completions/*.jsonl"):
        for line in path.read_text().split("\n")[:-1]:
            row = json.loads(line)
            found[int(path.parts[-3].rpartition("_")[2]), row["dataset"], row["problem_id"]] += 1
    return found


def verdicts(outputs: Path, step: int) -> dict[tuple[str, str], list[object]]:
    paths = (outputs / f"eval_step_{step}" / "results").glob("*.jsonl")
    rows = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return {(r["dataset"], r["problem_id"]): [r[name] for name in VERDICT] for r in rows}


def metrics(outputs: Path, step: int) -> dict[str, dict[str, object]]:
    """summary.json's, without what a clock measured."""
    sets = read_json(outputs / f"eval_step_{step}" / "summary.json")["datasets"]
    return {d: {k: v for k, v in m.items() if "time" not in k and k != "throughput"} for d, m in sets.items()}


def all_complete(outputs: Path) -> bool:
    runs = [path / "run.json" for path in outputs.glob("eval_step_*")]
    return len(runs) == 3 and all(path.exists() and read_json(path)["status"] == "complete" for path in runs)


def servers_of(outputs: Path) -> list[int]:
    """Processes that serve for this output folder, or evaluate into it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if str(outputs).encode() in line:
            found.append(int(path.parts[2]))
    return found


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", type=Path, required=True, help="emptied first")
    p.add_argument("--kills", type=int, default=10, help="default: 10")
    p.add_argument("--limit", type=int, default=16, help="problems of each set (default: 16)")
    p.add_argument("--seconds", type=float, default=0.4, help="an answer takes (default: 0.4)")
    args = p.parse_args()
    args.work = args.work.resolve()
    return args


if __name__ == "__main__":
    sys.exit(main())
