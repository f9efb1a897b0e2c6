"""Checkpoints of a training run: which are whole, which are evaluated, which is the best; one evaluator at a time.

    python -m phase1.checkpoints evaluate --checkpoint_dir DIR     # what run_eval_checkpoints.sh runs
    python -m phase1.checkpoints status --checkpoint_dir DIR       # a table of the steps
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError, safe_open

from phase1.files import BadInput, only_one, read_json, run_script, run_stamp, sha256_file, write_json
from phase1.problems import EVAL_SETS, manifest_path, read_manifest

HERE = Path(__file__).resolve().parent.parent
SELECTION_SET = "codecontests_valid"
SELECTION_METRIC = f"summary.datasets.{SELECTION_SET}.exec_success_rate"


@dataclass(frozen=True)
class Checkpoint:
    """A `global_step_N` folder. `problem` says why it cannot be evaluated yet; empty when it can."""

    step: int
    path: Path
    problem: str

    @property
    def model_path(self) -> Path:
        return self.path / "huggingface"


def find_checkpoints(checkpoint_dir: Path) -> list[Checkpoint]:
    """The checkpoints of a run by step. verl writes the tracker file last, so a later step than it names is unfinished."""
    tracker = checkpoint_dir / "latest_checkpointed_iteration.txt"
    try:
        latest, unfinished = int(tracker.read_text()), "still being written"
    except (FileNotFoundError, ValueError):
        latest, unfinished = -1, f"no {tracker.name} beside it says that it was saved to its end"
    found = []
    for path in checkpoint_dir.glob("global_step_*"):
        if re.fullmatch(r"global_step_\d+", path.name):
            step = int(path.name.removeprefix("global_step_"))
            found.append(Checkpoint(step, path, unfinished if step > latest else model_problem(path / "huggingface")))
    return sorted(found, key=lambda c: c.step)


def model_problem(model: Path) -> str:
    """What keeps an HF directory from being loaded; empty when its weights and tokenizer are whole."""
    if not model.is_dir():
        return "no huggingface/; convert it with convert_fsdp_to_hf.py"
    for name in ("config.json", "tokenizer_config.json"):
        if not (model / name).is_file():
            return f"huggingface/{name} is missing"
    try:
        index = model / "model.safetensors.index.json"
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]
        for shard in shards:
            with safe_open(model / shard, "np"):  # reads the header and holds it against the file's size
                pass
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as e:
        return f"huggingface/ has no whole safetensors ({e})"
    return ""


def evaluated_steps(output_dir: Path) -> dict[int, dict]:
    """The summaries of all complete `eval_step_N` folders by step, each with its run.json as `run`."""
    found = {}
    for folder in output_dir.glob("eval_step_*"):
        if re.fullmatch(r"eval_step_\d+", folder.name) and (folder / "run.json").exists():
            run = read_json(folder / "run.json")
            if run.get("status") == "complete":
                found[int(folder.name.removeprefix("eval_step_"))] = read_json(folder / "summary.json") | {"run": run}
    return dict(sorted(found.items()))


def choose_best(evaluated: dict[int, dict]) -> dict | None:
    """best_checkpoint.json from all complete evaluations, None where none has the metric.

    The highest exec_success_rate on codecontests_valid; ties go to the higher accepted_at_1, then to the earlier step.
    Only like is ranked with like: of evaluations over other problems, prompts, sampling or judging than the rest, those
    over the most problems count (then the largest group); `not_comparable` names the steps left out.
    """
    groups: dict[str, dict[int, dict]] = {}
    for step, summary in evaluated.items():
        metrics = summary["datasets"].get(SELECTION_SET) or {}
        if metrics.get("exec_success_rate") is not None:
            rate = {k: metrics.get(k) for k in ("exec_success_rate", "accepted_at_1", "total_problems", "not_judged_count")}
            groups.setdefault(_how_measured(summary["run"]), {})[step] = rate
    if not groups:
        return None
    rates = max(groups.values(), key=lambda g: (max(r["total_problems"] or 0 for r in g.values()), len(g)))
    best = min(rates, key=lambda s: (-rates[s]["exec_success_rate"], -(rates[s]["accepted_at_1"] or 0.0), s))
    return {
        "best_step": best,
        "best_exec_success_rate": rates[best]["exec_success_rate"],
        "best_accepted_at_1": rates[best]["accepted_at_1"],
        "model_path": evaluated[best]["run"]["model"]["path"],
        "selection_metric": SELECTION_METRIC,
        "all_checkpoints": {str(s): {k: r[k] for k in ("exec_success_rate", "accepted_at_1")} for s, r in rates.items()},
        "problems": rates[best]["total_problems"],
        "not_judged": rates[best]["not_judged_count"],  # failures that are not the model's, counted against it in the rate
        "not_comparable": sorted(s for group in groups.values() if group is not rates for s in group),
    }


def _how_measured(run: dict) -> str:
    hashes = (run.get("datasets") or {}).get(SELECTION_SET)
    return json.dumps([hashes, run.get("prompts_sha256"), run.get("sampling"), run.get("judge")], sort_keys=True)


def is_evaluated(summary: dict | None, datasets: list[str], manifest_dir: Path) -> bool:
    """Whether a complete evaluation holds every one of these sets, over all problems of the present manifests."""
    if summary is None:
        return False
    have = summary["run"].get("datasets") or {}
    return all(
        d in have and have[d]["manifest_sha256"] == sha256_file(manifest_path(manifest_dir, d)) and have[d]["problems"] == len(read_manifest(manifest_dir, d))
        for d in datasets
    )


# --------------------------------------------------------------------------------------------------------- commands
def parse_args() -> tuple[argparse.Namespace, list[str]]:
    p = argparse.ArgumentParser(prog="phase1.checkpoints", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                epilog="Further flags go to phase1_eval.py as they are.")  # fmt: skip
    p.add_argument("command", choices=["evaluate", "status"])
    p.add_argument("--checkpoint_dir", type=Path, default=HERE / "checkpoints/rlvr_coding_model/phase1_sft_qwen7b_coder", help="folder of the global_step_N folders (default: checkpoints/rlvr_coding_model/phase1_sft_qwen7b_coder)")
    p.add_argument("--output_dir", type=Path, default=HERE / "outputs", help="eval_step_N folders and best_checkpoint.json go here (default: outputs)")
    p.add_argument("--manifest_dir", type=Path, default=HERE / "data/manifests", help="default: data/manifests")
    p.add_argument("--tier2_every", type=int, default=2000, metavar="STEPS", help="evaluate the tier 2 set too at multiples of this step (default: 2000)")
    p.add_argument("--phase0_metrics", type=Path, help="with status: metrics.json of the base model …")
    p.add_argument("--phase1_metrics", type=Path, help="… and of the final evaluation, to show the two side by side")
    p.add_argument("--steps", type=int, nargs="+", help="only these steps")
    p.add_argument("--dry_run", action="store_true", help="print what would be done and why each other step is skipped")
    return p.parse_known_args()


def main() -> int:
    args, passed_on = parse_args()
    if not args.checkpoint_dir.is_dir():
        raise BadInput(f"{args.checkpoint_dir}: no such folder; name the one that holds the global_step_N folders with --checkpoint_dir")
    args.checkpoint_dir, args.output_dir = args.checkpoint_dir.resolve(), args.output_dir.resolve()
    if args.command == "status":
        if bool(args.phase0_metrics) != bool(args.phase1_metrics):
            raise BadInput("--phase0_metrics and --phase1_metrics go together")
        if passed_on:
            raise BadInput(f"status knows no {passed_on[0]}")
        return show_status(args)
    if args.phase0_metrics or args.phase1_metrics:
        raise BadInput("--phase0_metrics and --phase1_metrics go with status, together")
    with only_one(args.output_dir / "eval.lock") as mine:
        if not mine:
            print(f"another evaluation is at work ({(args.output_dir / 'eval.lock').read_text()}); nothing to do")
            return 0
        return evaluate_all(args, passed_on)


def evaluate_all(args: argparse.Namespace, passed_on: list[str]) -> int:
    """Evaluate every whole checkpoint that has no complete evaluation; one failure does not stop the others."""
    done, failed = evaluated_steps(args.output_dir), []
    for checkpoint in find_checkpoints(args.checkpoint_dir):
        datasets = [s.name for s in EVAL_SETS.values() if s.tier == 1 or (s.tier == 2 and checkpoint.step % args.tier2_every == 0)]
        skip = checkpoint.problem or ("not in --steps" if args.steps and checkpoint.step not in args.steps else "")
        if not skip and is_evaluated(done.get(checkpoint.step), datasets, args.manifest_dir):
            skip = "evaluated"
        print(f"step {checkpoint.step}: {'skipped, ' + skip if skip else 'evaluating ' + ' '.join(datasets)}", flush=True)
        if skip or args.dry_run:
            continue
        command = [sys.executable, str(HERE / "phase1_eval.py"), "--checkpoint_dir", str(args.checkpoint_dir), "--step", str(checkpoint.step),
                   "--datasets", *datasets, "--manifest_dir", str(args.manifest_dir), "--output_dir", str(args.output_dir / f"eval_step_{checkpoint.step}"), *passed_on]  # fmt: skip
        if code := subprocess.run(command).returncode:
            failed.append(checkpoint.step)
            print(f"step {checkpoint.step}: phase1_eval.py exited with {code}; run again to resume it", flush=True)
    if not args.dry_run:
        publish_best(args)
    return 1 if failed else 0


def publish_best(args: argparse.Namespace) -> None:
    """Recompute best_checkpoint.json from all complete evaluations."""
    best = choose_best(evaluated_steps(args.output_dir))
    if best is None:
        print(f"no complete evaluation holds {SELECTION_METRIC} yet; best_checkpoint.json is left as it is")
        return
    write_json(args.output_dir / "best_checkpoint.json", best | {"stamp": run_stamp(vars(args))})
    print(f"best step {best['best_step']}: exec_success_rate {best['best_exec_success_rate']:.1%}, accepted@1 {percent(best['best_accepted_at_1'])} over {best['problems']} problems"
          + (f"; {best['not_judged']} of them not judged" if best["not_judged"] else "")
          + (f"; left out, measured otherwise: steps {best['not_comparable']}" if best["not_comparable"] else ""))  # fmt: skip


def show_status(args: argparse.Namespace) -> int:
    """A row a step: what training left, what evaluation says, which is the best."""
    done = evaluated_steps(args.output_dir)
    on_disk = {c.step: c for c in find_checkpoints(args.checkpoint_dir)}
    best = (choose_best(done) or {}).get("best_step")
    print(args.checkpoint_dir)
    table = Table()
    for column in ("step", "checkpoint", "exec_success", "accepted@1", "MBPP", "best"):
        table.add_column(column, justify="left" if column == "checkpoint" else "right")
    for step in sorted(on_disk.keys() | done.keys()):
        sets = done.get(step, {}).get("datasets", {})
        rates = [sets.get(d, {}).get(k) for d, k in ((SELECTION_SET, "exec_success_rate"), (SELECTION_SET, "accepted_at_1"), ("mbpp_reg", "accepted_at_1"))]
        state = (on_disk[step].problem or "whole") if step in on_disk else "gone"
        table.add_row(str(step), state, *map(percent, rates), "*" if step == best else "")
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    if args.phase0_metrics and args.phase1_metrics:
        console.print(base_against_best(args.phase0_metrics, args.phase1_metrics))
    return 0


def percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1%}"


def base_against_best(phase0_metrics: Path, phase1_metrics: Path) -> Table:
    """A row a data set: the base model's rates and the chosen checkpoint's, from the summary.json beside each file."""
    base, best = (read_json(path.with_name("summary.json"))["datasets"] for path in (phase0_metrics, phase1_metrics))
    table = Table(title="base -> SFT", title_justify="left")
    for column in ("data set", "problems", "exec_success", "accepted@1", "syntax_error"):
        table.add_column(column, justify="left" if column == "data set" else "right")
    for name in [s for s in EVAL_SETS if s in base and s in best]:
        change = [f"{percent(base[name].get(k))} -> {percent(best[name].get(k))}" for k in ("exec_success_rate", "accepted_at_1", "syntax_error_rate")]
        table.add_row(name, str(best[name]["total_problems"]), *change)
    return table


if __name__ == "__main__":
    run_script(main)
