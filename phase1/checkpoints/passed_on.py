"""The flags that a pass hands on to phase1_eval.py, read by that script's own command line before anything is done."""

from __future__ import annotations

import importlib.util
from importlib.machinery import SourceFileLoader

from phase1.checkpoints.child import ROOT
from phase1.checkpoints.evaluate_one import evaluation_arguments
from phase1.checkpoints.settings import Settings

SCRIPT = "phase1_eval.py"


def refuse_wrong_flags(settings: Settings) -> None:
    """Refuse now what phase1_eval.py would refuse for every checkpoint, converted for nothing and counted as tried.

    Raises:
        SystemExit: it does not know a flag; said, with exit code 2.
        BadInput: a value is none that it takes.
    """
    loader = SourceFileLoader("phase1_eval", str(ROOT / SCRIPT))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    script = importlib.util.module_from_spec(spec)
    loader.exec_module(script)
    args = script.parse_args(evaluation_arguments(0, settings.checkpoint_dir, settings))
    script.sampling_from(args)
    script.config_from(args)
