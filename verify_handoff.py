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
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from phase1.files import BadInput, fingerprint, read_json, replacing, run_script, run_stamp, write_json, write_text

HERE = Path(__file__).resolve().parent


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # what to verify
    p.add_argument("--model_path", help="HF directory to verify")
    p.add_argument("--best_checkpoint", help="best_checkpoint.json: names the directory, its evaluation lies beside it")
    p.add_argument("--base_model", help="HF directory or cached hub id of the model training started from")
    # where to
    p.add_argument("--output_dir", default=HERE / "outputs" / "handoff", help="default: outputs/handoff")
    p.add_argument("--export", metavar="DIR", help="also put the model there: hard links, copies on another disk")
    p.add_argument(
        "--checklist",
        action="store_true",
        help="also print the items of the phase's end-to-end plan as the run left them",
    )
    # checks
    p.add_argument("--max_new_tokens", type=int, default=256, help="of each generated answer (default: 256)")
    p.add_argument("--generation_timeout", type=float, default=1800, help="s for loading and answering (default: 1800)")
    p.add_argument("--min_exec_success_rate", type=float, help="gate on codecontests_valid, 0 to 1 (default: none)")
    p.add_argument(
        "--dtype",
        default="bfloat16",
        choices=["bfloat16", "float32"],
        help="of generation and of the vLLM server (default: bfloat16; in float32 both answer alike to the letter)",
    )
    p.add_argument("--skip_vllm", action="store_true", help="do not start a vLLM server")
    p.add_argument("--vllm_python", default=sys.executable, help="the interpreter that has vLLM (default: this one)")
    p.add_argument("--vllm_timeout", type=float, default=900, help="s until the vLLM server must answer (default: 900)")
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
    from phase1.handoff.checks import Check, Handoff
    from phase1.handoff.written import grpo_yaml, model_card

    handoff = Handoff(*found)
    results: list[Check] = []
    for check in checks(args):
        results += attempt(check, handoff)
    failed = any(c.status == "fail" for c in results)
    show(results, handoff.model)
    output = Path(args.output_dir)
    target = export(handoff.model, Path(args.export)) if args.export and not failed else handoff.model
    report(args, handoff, results, target, failed)
    for name, text in (
        ("grpo_model.yaml", lambda: grpo_yaml(target, HERE)),
        ("MODEL_CARD.md", lambda: model_card(args.base_model, handoff, results, HERE)),
    ):
        if failed:
            (output / name).unlink(missing_ok=True)  # of an earlier verdict: it must not outlive this one
        else:
            write_text(output / name, text())
    if args.checklist:
        from phase1.handoff.checklist import checklist, show_checklist

        items = checklist(HERE, handoff, results)
        show_checklist(items)
        write_json(output / "checklist.json", {"items": items, "stamp": run_stamp(vars(args))})
    print(
        f"{'FAIL: not to be handed over' if failed else 'PASS: Phase 3 may start from'} {target}; see "
        f"{output}/handoff.json"
    )
    return int(failed)


def locate(args: argparse.Namespace) -> tuple[Path, Path | None, Path | None, dict | None]:
    """(model, base model, evaluation, best_checkpoint.json). BadInput when something named does not exist."""
    best = evaluation = None
    model = Path(args.model_path or "")
    if args.best_checkpoint:
        best = read_json(args.best_checkpoint)
        if not isinstance(best, dict) or not isinstance(best.get("model_path"), str) or "best_step" not in best:
            raise BadInput(f"{args.best_checkpoint}: needs model_path and best_step; run_eval_checkpoints.sh writes it")
        model = Path(best["model_path"])
        evaluation = Path(args.best_checkpoint).parent / f"eval_step_{best['best_step']}"
    if not model.is_dir():
        hint = "; rebuild it with convert_fsdp_to_hf.py" if model.parent.is_dir() else ""
        raise BadInput(f"{model}: no such directory{hint}")
    if not any(model.iterdir()):
        raise BadInput(f"{model}: empty; rebuild it with convert_fsdp_to_hf.py")
    if args.export and Path(args.export).exists() and any(Path(args.export).iterdir()):  # told before minutes of checks
        raise BadInput(f"{args.export}: exists; remove it or name another --export")
    base = base_directory(args.base_model) if args.base_model else None
    return model.resolve(), base, evaluation, best


def base_directory(base_model: str) -> Path:
    """A local directory, or the local cache of a hub model."""
    if Path(base_model).is_dir():
        return Path(base_model)
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(base_model, local_files_only=True))
    except Exception as e:  # not cached, not a repository id: huggingface_hub has a class for each
        raise BadInput(
            f"{base_model}: neither a directory nor a cached hub model ({type(e).__name__}); download it first"
        ) from None


def checks(args: argparse.Namespace) -> list[Callable]:
    """Every check in order, cheap ones first. Later ones look at the weights that check_index opened and at the answers
    of check_generation, where these were got."""
    from phase1.handoff import checks as c
    from phase1.handoff.vllm_check import check_vllm

    return [
        c.check_files,
        c.check_index,
        c.check_dtype,
        c.check_parameters,
        c.check_values,
        c.check_base_difference,
        c.check_config,
        c.check_tokenizer,
        c.check_chat_template,
        named("generation", lambda h: c.check_generation(h, args.max_new_tokens, args.generation_timeout, args.dtype)),
        named(
            "vllm",
            lambda h: check_vllm(
                h,
                args.skip_vllm,
                args.vllm_python,
                args.dtype,
                args.max_new_tokens,
                args.vllm_timeout,
                Path(args.output_dir).resolve() / "logs",
            ),
        ),
        named("metrics", lambda h: c.check_metrics(h, args.min_exec_success_rate)),
    ]


def named(name: str, check: Callable) -> Callable:
    check.__name__ = f"check_{name}"
    return check


def attempt(check: Callable, handoff) -> list:
    """Run one check; damage that stops it is that check's failure, and the others still run."""
    from phase1.handoff.checks import Check

    try:
        result = check(handoff)
    except Exception as e:
        text = str(e) if isinstance(e, BadInput) else f"{type(e).__name__}: {e}"
        result = Check(check.__name__.removeprefix("check_").replace("index", "weights_index"), "fail", text)
    return list(result) if isinstance(result, tuple) else [result]


# --------------------------------------------------------------------------------------------------------- reporting
def show(results: list, model: Path) -> None:
    """The verdict as a table."""
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


def report(args: argparse.Namespace, handoff, results: list, target: Path, failed: bool) -> None:
    """OUTPUT/handoff.json: the verdict and everything it rests on."""
    from phase1.handoff.written import report_of

    by_name = {c.name: c for c in results}
    write_json(
        Path(args.output_dir) / "handoff.json",
        {
            "verdict": "fail" if failed else "pass",
            "model_path": str(target),
            "fingerprint": fingerprint(handoff.model),
            "step": (handoff.best or {}).get("best_step"),
            "base_model": args.base_model,
            "sha256": by_name["weights_index"].data.get("sha256"),
            "metrics": by_name["metrics"].data.get("metrics"),
            "report": report_of(handoff, HERE),
            "checks": [c.__dict__ for c in results],
            "stamp": run_stamp(vars(args)),
        },
    )


def export(model: Path, target: Path) -> Path:
    """The model's files at `target`, hard-linked where the disk allows; whole or not at all."""
    with replacing(target) as temp:
        temp.mkdir()
        for path in sorted(p for p in model.rglob("*") if p.is_file()):
            copy = temp / path.relative_to(model)
            copy.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path.resolve(), copy)  # the file itself: a link of a hub cache would lead nowhere from here
            except OSError:  # another file system, or one without hard links
                shutil.copy2(path, copy)
    return target


if __name__ == "__main__":
    run_script(main)
