"""How programs are judged: the settings, and the flags that every script which judges has for them."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass

from pydantic import JsonValue

from phase1.contract.extraction import EXTRACTIONS
from phase1.files import BadInput
from phase1.judge.compare import MODES, PROBLEM


@dataclass(frozen=True)
class JudgeConfig:
    """How to judge.

    Attributes:
        judge: where programs run, `local` or `sandbox_fusion`.
        compare: the rule for outputs, one of `phase1.judge.compare.MODES`.
        workers: programs judged at a time; 0 means one for each core that this process may use, less `reserve_cores`.
        reserve_cores: cores left to others, such as vLLM; at least one program is judged at a time all the same.
        run_timeout: CPU seconds a test; a problem's own `time_limit` takes precedence.
        memory_limit_mb: MiB a test; a problem's own `memory_limit_mb` takes precedence.
        sandbox_urls: SandboxFusion servers, for `sandbox_fusion`.
        unsafe: judge even where the sandbox does not isolate.
        extraction: which program of an answer is judged, one of `phase1.contract.extraction.EXTRACTIONS`.
    """

    judge: str = "local"
    compare: str = PROBLEM
    workers: int = 0
    reserve_cores: int = 0
    run_timeout: float = 30.0
    memory_limit_mb: int = 1024
    sandbox_urls: tuple[str, ...] = ()
    unsafe: bool = False
    extraction: str = "contract"

    def identity(self) -> dict[str, JsonValue]:
        """What a verdict depends on: what run.json keeps, and what two evaluations must share to be comparable."""
        names = ("judge", "compare", "run_timeout", "memory_limit_mb", "extraction")
        return {name: getattr(self, name) for name in names}

    @property
    def parallel(self) -> int:
        """Programs judged at a time."""
        return self.workers or max(1, len(os.sched_getaffinity(0)) - self.reserve_cores)


def add_judge_arguments(parser: argparse.ArgumentParser, answers: bool = True) -> None:
    """Add the judge's flags, the same in every script that judges.

    Args:
        answers: the script judges a model's answers, so `--extraction` is among the flags.
    """
    group = parser.add_argument_group("judge", "where and how programs are run and compared (docs/judge.md)")
    group.add_argument("--judge", choices=("local", "sandbox_fusion"), default="local", help="where programs run")
    group.add_argument("--compare", choices=MODES, default=PROBLEM, help="rule for outputs (docs/judge.md)")
    group.add_argument(
        "--workers",
        type=int,
        default=0,
        help="programs judged at a time, also processes of filters; 0: all cores less --reserve_cores",
    )
    group.add_argument("--reserve_cores", type=int, default=0, help="cores left to others, such as vLLM")
    group.add_argument(
        "--run_timeout", type=float, default=30.0, help="CPU seconds a test; a problem's time_limit takes precedence"
    )
    group.add_argument(
        "--memory_limit_mb", type=int, default=1024, help="MiB a test; a problem's memory_limit_mb takes precedence"
    )
    group.add_argument(
        "--sandbox_url", action="append", default=[], metavar="URL", help="a SandboxFusion server; repeatable"
    )
    parser.set_defaults(extraction="contract")
    if answers:
        group.add_argument(
            "--extraction",
            choices=EXTRACTIONS,
            default="contract",
            help="which program of an answer is measured (docs/judge.md)",
        )
    group.add_argument("--unsafe", action="store_true", help="judge even where isolation does not hold")


def config_from(args: argparse.Namespace) -> JudgeConfig:
    """The settings in parsed `add_judge_arguments`. Raises BadInput for a value outside its range."""
    if not 0 < args.run_timeout < 1e9 or args.memory_limit_mb <= 0 or args.workers < 0 or args.reserve_cores < 0:
        raise BadInput(
            "--run_timeout and --memory_limit_mb must be positive, --workers and --reserve_cores not negative"
        )
    return JudgeConfig(
        judge=args.judge,
        compare=args.compare,
        workers=args.workers,
        reserve_cores=args.reserve_cores,
        run_timeout=args.run_timeout,
        memory_limit_mb=args.memory_limit_mb,
        sandbox_urls=tuple(args.sandbox_url),
        unsafe=args.unsafe,
        extraction=args.extraction,
    )
