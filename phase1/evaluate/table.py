"""What phase1_eval.py prints at its end: a row a data set, and what should make a reader pause (contract 5 and 7)."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from phase1.contract.records import MODEL_ERRORS


def show(summary: dict, model_path: Path) -> None:
    """A row a data set, and what should make a reader pause."""
    print(model_path)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for column in (
        "data set",
        "n",
        "accepted@1",
        "pass_ratio",
        "exec_success",
        "syntax",
        "runtime",
        "timeout",
        "wrong",
        "tokens",
        "judge s",
        "cut off",
    ):
        table.add_column(column, justify="left" if column == "data set" else "right", no_wrap=True)
    for name, m in summary["datasets"].items():
        rates = [
            m[f"{k}_rate"]
            for k in ("exec_success", "syntax_error", "runtime_error", "timeout", "wrong_answer", "truncation")
        ]
        accepted, *shown, cut = ["-" if r is None else f"{r:.1%}" for r in (m["accepted_at_1"], *rates)]
        ratio, tokens, seconds = (
            "-" if m[k] is None else f"{m[k]:.{d}f}"
            for k, d in (("pass_ratio_mean", 3), ("avg_gen_tokens", 0), ("avg_judge_time", 2))
        )
        table.add_row(name, str(m["total_problems"]), accepted, ratio, *shown, tokens, seconds, cut)
    Console(width=max(Console().width, 140)).print(table)  # narrower, its figures would be dots
    for name, m in summary["datasets"].items():
        if sampled := m.get("pass_at_k"):
            print(f"{name}: " + ", ".join(f"pass@{k} {rate:.1%}" for k, rate in sampled.items()))
        if (extraction := m.get("extraction")) and extraction["differ"]:
            both = ", ".join(
                (
                    f"{e} {extraction[e]['accepted_at_1']:.1%} accepted, {extraction[e]['exec_success_rate']:.1%} "
                    "exec_success"
                )
                for e in ("contract", "reader")
            )
            print(f"{name}: {extraction['differ']} answers hold another program for a careful reader: {both}")
        others = {k: n for k, n in m["error_counts"].items() if n and k not in MODEL_ERRORS}
        if others:
            print(
                f"warning: {name}: {', '.join(f'{n} {k}' for k, n in others.items())}: not the model's "
                "programs at fault, but counted as not solved"
            )
        if (m["truncation_rate"] or 0) > 0.05:
            print(
                f"warning: {name}: {m['truncation_rate']:.1%} of the answers were cut off at the token limit "
                f"(more than 5%), {m['wrong_answer_truncated_count']} of them wrong answers"
            )
        if (m["timeout_rate"] or 0) > 0.10:
            print(f"warning: {name}: {m['timeout_rate']:.1%} of the programs timed out (more than 10%)")
