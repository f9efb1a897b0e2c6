"""verl_version.py against every verl that is installed."""

import ast
import contextlib
import io
import math
import os
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from phase1.train.step_log import Step, console_steps
from phase1.train.verl_version import (
    REQUIREMENTS_OF_ENGINE,
    SETTINGS,
    TRAINERS,
    VERL_OF_ENGINE,
    VERL_OF_FSDP,
    removes_last_before_saving,
)
from tests.train.sft_runs import job_of, words

ROOT = Path(__file__).resolve().parents[2]
LATEST = Path(os.environ.get("VENV_LATEST", ROOT / ".venv-latest"))
SITES = {"fsdp": Path(sys.prefix), "engine": LATEST}  # verl 0.7.0 and 0.9.1


def installed(trainer: str, path: str) -> Path:
    """A file of the verl that has this trainer."""
    found = list(SITES[trainer].glob(f"lib/python3*/site-packages/verl/{path}"))
    if not found:
        pytest.skip(f"{SITES[trainer]} is not there: setup_cpu.sh makes it")
    return found[0]


@pytest.mark.parametrize(
    ("wanted", "file"),
    [
        (VERL_OF_FSDP, "requirements.txt"),
        (VERL_OF_FSDP, "requirements-cpu.txt"),
        (VERL_OF_ENGINE, REQUIREMENTS_OF_ENGINE),
        (VERL_OF_ENGINE, "requirements-latest-cpu.txt"),
    ],
)
def test_the_requirements_pin_the_version_that_is_named(wanted, file):
    pins = [line.split()[0] for line in (ROOT / file).read_text().splitlines() if line.startswith("verl==")]
    assert pins == [wanted]


LOGGED = {  # what the trainers hand to their logger (training_step, fit), and what is to be read
    "fsdp": (
        {"train/loss": 1.5, "train/lr(1e-3)": 0.02, "train/grad_norm": 2.25, "train/time(s)": np.float64(0.5)},
        {"train/loss": 1.5, "train/lr": 2e-5, "train/grad_norm": 2.25, "train/time(s)": 0.5},
    ),
    "engine": (
        {"train/loss": np.float32(1.5), "train/grad_norm": math.nan, "train/lr": 2e-05, "train/global_tokens": 4096},
        {"train/loss": 1.5, "train/grad_norm": math.nan, "train/lr": 2e-5, "train/global_tokens": 4096.0},
    ),
}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_what_verls_own_console_logger_prints_is_read(trainer):
    file = installed(trainer, "utils/logger/aggregate_logger.py")
    spec = spec_from_file_location(f"logger_of_{trainer}", file)
    logger = module_from_spec(spec)
    spec.loader.exec_module(logger)
    metrics, expected = LOGGED[trainer]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for step in (1, 2):
            logger.LocalLogger().log(metrics, step)
        logger.LocalLogger().log({"val/loss": 1.75}, 2)
    lines = printed.getvalue().splitlines()
    one, two, val = (step for line in lines for step in console_steps(line))
    assert (one.number, two.number) == (1, 2) and one.values == pytest.approx(expected, nan_ok=True) == two.values
    assert val == Step(2, {"val/loss": 1.75})
    glued = console_steps("".join(lines))  # as when a pipe loses the line ends
    assert [s.number for s in glued] == [1, 2, 2] and glued[0].values == pytest.approx(expected, nan_ok=True)


METRICS = {  # names that the trainers' own files must hold
    "fsdp": ("trainer/fsdp_sft_trainer.py", ["train/loss", "train/lr(1e-3)", "val/loss"]),
    "engine": ("trainer/sft_trainer.py", ["train/global_tokens", "val/loss"]),
}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_metrics_that_are_read_are_those_that_the_trainer_logs(trainer):
    file, names = METRICS[trainer]
    text = installed(trainer, file).read_text()
    assert [name for name in names if name not in text] == []


ENSURE = "ensure_checkpoint_capacity"


@pytest.mark.parametrize("trainer", TRAINERS)
def test_when_the_only_checkpoint_is_removed_is_what_verls_own_code_does(trainer):
    """Its lines before the first save, run over a manager that has saved once and is to keep one."""
    manager = installed(trainer, "utils/checkpoint/fsdp_checkpoint_manager.py")
    removed: list[str] = []
    saved_once = SimpleNamespace(
        previous_saved_paths=["global_step_5"], remove_previous_save_local_path=removed.extend, rank=0
    )
    base = ast.parse((manager.parent / "checkpoint_manager.py").read_text())
    scope: dict = {}
    exec("\n".join(ast.unparse(f) for f in ast.walk(base) if getattr(f, "name", "") == ENSURE), scope)
    saved_once.ensure_checkpoint_capacity = lambda keep: scope[ENSURE](saved_once, keep)
    [save] = [f for f in ast.walk(ast.parse(manager.read_text())) if getattr(f, "name", "") == "save_checkpoint"]
    before = [node for node in save.body if isinstance(node, ast.If) and "torch.save" not in ast.unparse(node)]
    [first] = [node for node in before if "capacity" in ast.unparse(node) or "remove_previous" in ast.unparse(node)][:1]
    exec(ast.unparse(first), {"self": saved_once, "max_ckpt_to_keep": 1})
    assert removes_last_before_saving(manager.parents[2]) == (removed == ["global_step_5"])
    assert (trainer == "fsdp") == bool(removed)


@pytest.mark.slow
def test_every_key_of_the_command_is_one_of_verls_own_config(env):
    """Composed by Hydra from the installed verl's config folder, as the trainer does it."""
    from hydra import compose, initialize_config_dir

    package = Path(next(iter(find_spec("verl").submodule_search_locations)))
    command = words(env)
    overrides = [w for w in command[command.index(TRAINERS["fsdp"].module) + 1 :] if not w.startswith("hydra.")]
    with initialize_config_dir(str(package / "trainer" / "config"), version_base=None):
        config = compose("sft_trainer", overrides)
    assert config.trainer.default_local_dir == env["CKPT_DIR"] and config.data.train_batch_size == 8
    assert config.optim.lr == 2e-5 and list(config.optim.betas) == [0.9, 0.95]


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_setting_is_a_key_of_the_trainers_own_schema(trainer):
    """verl 0.7.0's and 0.9.1's configuration as Hydra composes it: a key that is not there would be refused at the
    start."""
    folder = installed(trainer, "trainer/config")
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(folder), version_base=None):
        schema = compose(TRAINERS[trainer].schema)
    keys = [s.key_of(trainer) for s in SETTINGS if s.key_of(trainer)]
    assert len(keys) > 30
    for key in keys:
        *sections, last = key.removeprefix("+").split(".")
        node = schema
        for section in sections:
            assert section in node, f"{trainer} has no {key}"
            node = node[section]
        assert key.startswith("+") or last in node, (
            f"{trainer} has no {key}"
        )  # +: added to a section that takes anything


def test_both_trainers_get_the_same_hyperparameters(env, engine_verl):
    """By the spec's names; what only one of them has is listed here, so that nothing is left to a trainer's own
    default."""
    jobs = {t: job_of(env | {"TRAINER": t, "PYTHONPATH": str(engine_verl)}).config for t in TRAINERS}
    assert jobs["fsdp"].keys() - jobs["engine"].keys() == {"data.multiturn.enable"}
    extra = {s.key.removeprefix("+") for s in SETTINGS if s.only == "engine"}
    assert jobs["engine"].keys() - jobs["fsdp"].keys() == extra
    shared = jobs["fsdp"].keys() & jobs["engine"].keys()
    assert {k: jobs["fsdp"][k] for k in shared} == {k: jobs["engine"][k] for k in shared} and len(shared) > 28


@pytest.mark.slow
def test_the_engine_trainers_command_names_its_own_module_hook_and_keys(env, engine_verl):
    got = words(env | {"PYTHONPATH": str(engine_verl)})  # a verl without the fsdp trainer: engine is the default
    assert {
        "VERL_USE_EXTERNAL_MODULES=phase1_engine_hook",
        "PHASE1_COMPILE=0",
        "PHASE1_ACTIVATION_MEMORY_BUDGET=0",
        "PHASE1_BALANCE=1",
        "PHASE1_SCHEDULE_STEPS=16",
        "verl.trainer.sft_trainer",
        f"model.path={env['MODEL_PATH']}",
        "optim.lr_scheduler_type=cosine",
        "optim.lr=2e-5",
        "optim.betas=[0.9,0.95]",
        "engine.strategy=fsdp2",
        "engine.model_dtype=fp32",
        "data.pad_mode=no_padding",
        "checkpoint.save_contents=[model,optimizer,extra,hf_model]",
    } <= set(got)
    assert not {w for w in got if w.startswith(("model.partial_pretrain", "optim.lr_scheduler="))}
