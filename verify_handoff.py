"""Prove that a checkpoint is what Phase 3 (GRPO) may start from, and write its configuration.

    python verify_handoff.py --best_checkpoint outputs/best_checkpoint.json --base_model Qwen/Qwen2.5-Coder-7B-Instruct
    python verify_handoff.py --model_path checkpoints/…/global_step_500/huggingface
    python verify_handoff.py --best_checkpoint outputs/best_checkpoint.json --export /models/phase1_sft --checklist

Writes OUTPUT/handoff.json (the verdict and everything it rests on) and, unless a check failed, OUTPUT/grpo_model.yaml
and OUTPUT/MODEL_CARD.md. Exit codes: 0 no check failed (warnings are allowed), 1 one failed, 2 bad input.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phase1.arguments import Parser, output_folder, show_next
from phase1.contract.state import handoff as handoff_file
from phase1.contract.state.best_checkpoint import BestCheckpoint
from phase1.contract.state.handoff import CheckResult, HandoffResult
from phase1.files import BadInput, fingerprint, run_script, run_stamp, write_json, write_together
from phase1.model.hub import how_to_get, local_model

if TYPE_CHECKING:
    from phase1.handoff.handoff import Handoff, Settings

HERE = Path(__file__).resolve().parent


def parse_args() -> argparse.Namespace:
    p = Parser(__doc__)
    what = p.add_argument_group("what to verify")
    what.add_argument("--model_path", help="Hugging Face directory to verify")
    what.add_argument("--best_checkpoint", help="best_checkpoint.json: names it, and its evaluation lies beside it")
    what.add_argument("--report", help="comparison_data.json (default: of the report beside the evaluations)")
    what.add_argument("--base_model", help="directory or cached Hub name of the model that training started from")
    out = p.add_argument_group("where to")
    handoff = HERE / "outputs" / "handoff"
    out.add_argument("--output_dir", type=output_folder, default=handoff, help="default: outputs/handoff")
    out.add_argument(
        "--export",
        type=output_folder,
        metavar="DIR",
        help="also put the model there: hard links, copies on another disk",
    )
    out.add_argument("--checklist", action="store_true", help="also print the items of the phase's end-to-end plan")
    how = p.add_argument_group("checks")
    how.add_argument("--max_new_tokens", type=int, default=256, help="of each generated answer (default: 256)")
    how.add_argument("--generation_timeout", type=float, default=1800, help="s to load and answer (default: 1800)")
    how.add_argument(
        "--min_exec_success_rate",
        type=float,
        help="share of codecontests_valid that must run to its end, 0 to 1 (default: none)",
    )
    how.add_argument("--accept", metavar="REASON", help="hand over although the report condemns it, or there is none")
    how.add_argument(
        "--dtype",
        default="bfloat16",
        choices=["bfloat16", "float32"],
        help="of generation and of the vLLM server (default: bfloat16; in float32 both answer alike to the letter)",
    )
    how.add_argument("--skip_vllm", action="store_true", help="do not start a vLLM server")
    how.add_argument("--vllm_python", default=sys.executable, help="the interpreter that has vLLM (default: this one)")
    how.add_argument("--vllm_timeout", type=float, default=900, help="s until the server must answer (default: 900)")
    args = p.parse_args()
    if bool(args.model_path) == bool(args.best_checkpoint):
        p.error("give either --model_path or --best_checkpoint")
    if args.min_exec_success_rate is not None:
        if not 0 <= args.min_exec_success_rate <= 1:
            p.error(f"--min_exec_success_rate {args.min_exec_success_rate:g}: give a share between 0 and 1")
        if not args.best_checkpoint:
            p.error("--min_exec_success_rate needs --best_checkpoint: the gate reads that checkpoint's evaluation")
    return args


def main() -> int:
    args = parse_args()
    found = locate(args)  # before torch is imported: a wrong path is told at once
    from phase1.handoff.export import export_model
    from phase1.handoff.grpo import NAME, grpo_command, grpo_yaml
    from phase1.handoff.handoff import Handoff
    from phase1.handoff.model_card import model_card
    from phase1.handoff.run_checks import run_checks
    from phase1.handoff.run_folders import run_folders

    output = Path(args.output_dir)
    handoff = Handoff(
        model=found.model, base=found.base, evaluation=found.evaluation, best=found.best, settings=settings(args)
    )
    folders = run_folders(handoff, HERE)
    handoff.report = Path(args.report) if args.report else folders.comparison
    results = run_checks(handoff)
    failed = any(c.status == "fail" for c in results)
    show(results, handoff.model)
    target = export_model(handoff.model, args.export) if args.export and not failed else handoff.model
    texts = {handoff_file.NAME: summary(args, handoff, results, target=target).text()}
    if not failed:
        texts[NAME] = grpo_yaml(target, HERE, handoff.context_length)
        texts["MODEL_CARD.md"] = model_card(args.base_model, handoff, results, folders)
    write_together(output, texts)
    for name in {NAME, "MODEL_CARD.md"} - set(texts):
        (output / name).unlink(missing_ok=True)  # of an earlier verdict: it must not outlive this one
    if args.checklist:
        from phase1.handoff.seed_checklist import checklist, show_checklist

        items = checklist(folders, handoff, results)
        show_checklist(items)
        write_json(output / "checklist.json", {"items": [asdict(i) for i in items], "stamp": run_stamp(vars(args))})
    accepted = next((c.data.get("accepted") for c in results if c.name == "report"), None)
    print(
        f"{'FAIL: not to be handed over' if failed else 'PASS: Phase 3 may start from'} {target}"
        f"{f', accepted against the report: {accepted}' if accepted and not failed else ''}; see "
        f"{output}/{handoff_file.NAME}"
    )
    if failed:
        show_next("mend what failed above, or take another checkpoint, and start this command again")
    else:
        show_next("start GRPO; prepare_sft_data.py --grpo_raw makes its data", grpo_command(output, HERE / "data"))
    return int(failed)


@dataclass(frozen=True)
class Located:
    """What the arguments name; see phase1.handoff.handoff.Handoff."""

    model: Path
    base: Path | None
    evaluation: Path | None
    best: BestCheckpoint | None


def locate(args: argparse.Namespace) -> Located:
    """What the arguments name. BadInput when something named does not exist."""
    best = evaluation = None
    model = Path(args.model_path or "")
    if args.best_checkpoint:
        best = BestCheckpoint.read(Path(args.best_checkpoint))
        named = best.model_dir(Path(args.best_checkpoint))
        if named is None:
            raise BadInput(f"{args.best_checkpoint}: names no model_path; run_eval_checkpoints.sh writes it")
        model = named
        evaluation = Path(args.best_checkpoint).parent / f"eval_step_{best.best_step}"
    if not model.is_dir():
        fix = "rebuild it with convert_fsdp_to_hf.py" if model.parent.is_dir() else how_to_get(args.model_path or "")
        raise BadInput(f"{model}: no such directory; {fix}")
    if not any(model.iterdir()):
        raise BadInput(f"{model}: empty; rebuild it with convert_fsdp_to_hf.py")
    if args.export and args.export.exists() and any(args.export.iterdir()):  # told before minutes of checks
        raise BadInput(f"{args.export}: exists; remove it or name another --export")
    if args.report and not Path(args.report).is_file():
        raise BadInput(f"{args.report}: no such file; --report is the comparison_data.json of generate_report.py")
    base = local_model(args.base_model) if args.base_model else None
    return Located(model.resolve(), base, evaluation, best)


def settings(args: argparse.Namespace) -> Settings:
    """How the checks run."""
    from phase1.handoff.handoff import Settings

    return Settings(
        max_new_tokens=args.max_new_tokens,
        generation_timeout=args.generation_timeout,
        dtype=args.dtype,
        min_exec_success_rate=args.min_exec_success_rate,
        accept=args.accept,
        skip_vllm=args.skip_vllm,
        vllm_python=args.vllm_python,
        vllm_timeout=args.vllm_timeout,
        log_dir=Path(args.output_dir).resolve() / "logs",
    )


def show(results: list[CheckResult], model: Path) -> None:
    """Print the verdict as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"Hand-off of {model}", title_justify="left")
    for column in ("check", "verdict", "evidence"):
        table.add_column(column, overflow="fold")
    colours = {"pass": "green", "warn": "yellow", "fail": "bold red"}
    for c in results:
        table.add_row(c.name, Text(c.status, style=colours[c.status]), Text(c.evidence))
    Console(width=None if os.isatty(1) else 140).print(table)


def summary(args: argparse.Namespace, handoff: Handoff, results: list[CheckResult], *, target: Path) -> HandoffResult:
    """handoff.json: the verdict and everything it rests on."""
    by_name = {c.name: c for c in results}
    report = by_name["report"].data
    record = {
        "verdict": "fail" if any(c.status == "fail" for c in results) else "pass",
        "model_path": str(target),
        "fingerprint": fingerprint(handoff.model),
        "step": handoff.best.best_step if handoff.best else None,
        "base_model": args.base_model,
        "sha256": by_name["weights_index"].data.get("sha256"),
        "metrics": by_name["metrics"].data.get("metrics"),
        "report": {key: report[key] for key in ("path", "verdict")} if report.get("verdict") else None,
        "accepted": report.get("accepted"),
        "checks": results,
        "stamp": run_stamp(vars(args)),
    }
    result: HandoffResult = HandoffResult.model_validate(record)
    return result


if __name__ == "__main__":
    run_script(main)
