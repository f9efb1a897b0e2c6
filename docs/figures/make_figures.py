"""Make the pictures in docs/figures again, from what run_demo.sh left: its report, its status page, its last lines.

Also the first screen of four verdicts. Two of them need evaluations of their own, which take a minute: the base model
with another token limit is not comparable, and twelve problems are too few to tell two late checkpoints apart.

    .venv/bin/python docs/figures/make_figures.py                        # needs outputs/demo and a Chromium
    .venv/bin/python docs/figures/make_figures.py --output_dir /tmp/new  # to look at first

The pages are opened as a person would open them, and the terminal is the real output with its colours; only the folders
in front of outputs/demo and data/samples are left out. Exit 2 without demo or Chromium.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from phase1.files import BadInput, replacing, run_script
from tests import chromium
from tests.evaluate.running import run_eval
from tests.report.running import generate

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = 140  # of the terminal
HEIGHT = "document.documentElement.scrollHeight"
FOLDERS = re.compile(r"[^\s\"'<>]*/(?=outputs/demo\b|data/samples\b)")


def main() -> None:
    args = parse_args()
    demo = args.demo.resolve()
    if not (demo / "handoff" / "handoff.json").exists():
        raise BadInput(f"{demo}: the demo has not been run to its end; bash run_demo.sh")
    if chromium.BINARY is None:
        raise BadInput("no Chromium on PATH; apt-get install chromium")
    terminal = terminal_page(last_lines(demo))  # first: it writes the status page anew
    report = (demo / "report" / "report.html").read_text(encoding="utf-8")
    take(terminal, args.output_dir / "terminal.png", 1140)
    take((demo / "status.html").read_text(encoding="utf-8"), args.output_dir / "status.png", 1280)
    take(report, args.output_dir / "report.png", 1280, 900)
    take(
        report,
        args.output_dir / "report_plots.png",
        1280,
        900,
        "[...document.querySelectorAll('h2')].find(h => h.textContent == 'Plots').scrollIntoView()",
    )
    for verdict, page in verdicts(demo):
        take(page, args.output_dir / f"verdict_{verdict}.png", 1280, 700)


def verdicts(demo: Path) -> Iterator[tuple[str, str]]:
    """Reports that say IMPROVED, WORSE, NOT COMPARABLE and TOO SMALL TO TELL: (name, page)."""
    checkpoint = next((demo / "checkpoints").glob("*/*"))
    with tempfile.TemporaryDirectory() as temp:

        def evaluated(name: str, model: Path, *flags: str) -> Path:
            out = Path(temp) / name
            done = run_eval("--model_path", model, "--datasets", "codecontests_valid", "--output_dir", out, *flags)
            if done.returncode:
                raise BadInput(f"{model}: cannot be evaluated: {done.said}")
            return out

        few = ("--dtype", "float32", "--max_new_tokens", "96", "--limit", "12")
        early, late = (checkpoint / f"global_step_{step}" / "huggingface" for step in (330, 440))
        cut = evaluated("cut", demo / "base_model", "--dtype", "float32", "--max_new_tokens", "64")
        base, best = demo / "phase0", demo / "eval_final"
        for name, sides in {
            "improved": (base, best),
            "worse": (best, base),
            "not_comparable": (cut, best),
            "too_small": (evaluated("early", early, *few), evaluated("late", late, *few)),
        }.items():
            phase0, phase1 = (side / "metrics.json" for side in sides)
            done = generate(
                "--output_dir", f"{temp}/{name}", "--phase0_metrics", phase0, "--phase1_metrics", phase1, plots=True
            )
            if done.returncode and name != "not_comparable":
                raise BadInput(f"{name}: no report: {done.stderr}")
            yield name, (Path(temp) / name / "report.html").read_text(encoding="utf-8").replace(temp, "outputs")


def take(page: str, png: Path, width: int, height: int | None = None, script: str = "null") -> None:
    """A picture of the page's first screen, or of all of it where no height is given."""
    with tempfile.TemporaryDirectory() as temp:
        file, shot = Path(temp) / "page.html", Path(temp) / "shot.png"
        file.write_text(FOLDERS.sub("", page), encoding="utf-8")
        height = height or chromium.look(file, width, 100, script=HEIGHT)["value"]
        chromium.look(file, width, height, shot, script)
        with replacing(png) as new:
            Image.open(shot).convert("RGB").save(new, optimize=True)
    print(f"{png}: {width} x {height}, {png.stat().st_size / 1000:.0f} kB")


def last_lines(demo: Path) -> str:
    """What run_demo.sh prints at its end, with its colours."""
    checkpoints = next((demo / "checkpoints").glob("*/*/latest_checkpointed_iteration.txt")).parent
    command = [
        sys.executable,
        "-m",
        "phase1.checkpoints",
        "status",
        "--checkpoint_dir",
        checkpoints,
        "--output_dir",
        demo,
        "--phase0_metrics",
        demo / "phase0" / "metrics.json",
        "--phase1_metrics",
        demo / "eval_final" / "metrics.json",
    ]
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    table = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    verdict = (demo / "report" / "summary.txt").read_text(encoding="utf-8").splitlines()[0]
    return FOLDERS.sub("", f"{table}{verdict}")


def terminal_page(text: str) -> str:
    console = Console(width=COLUMNS, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(Text.from_ansi(text))
    form = (
        '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><style>{stylesheet} body {{ '
        "background: {background}; color: {foreground};"
        ' margin: 16px; }} pre {{ font: 13px/1.25 "DejaVu Sans Mono", monospace; margin: 0; }}</style><pre>{code}</pre>'
    )
    return console.export_html(theme=MONOKAI, code_format=form)


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--demo", type=Path, default=ROOT / "outputs" / "demo", help="what run_demo.sh left (default: outputs/demo)"
    )
    p.add_argument(
        "--output_dir",
        type=Path,
        default=Path(__file__).resolve().parent,
        help="where the PNG files go (default: docs/figures)",
    )
    return p.parse_args()


if __name__ == "__main__":
    run_script(main)
