"""Preflight: whether the installed verl knows every key, logger and schedule that the command names."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from phase1.files import BadInput
from phase1.train.job import Job, how_to_set
from phase1.train.preflight.outcome import Outcome, passes, warns
from phase1.train.verl_version import (
    LOGGER_PACKAGES,
    SCHEDULERS,
    TRAINERS,
    known_loggers,
    verl_folder,
)

# Other trainers' names for what verl calls otherwise, where the spelling does not lead there.
OTHER_NAMES = {
    "learning_rate": "lr",
    "max_grad_norm": "clip_grad",
    "num_train_epochs": "total_epochs",
    "max_steps": "total_training_steps",
}
_COULD_NOT = re.compile(r"Could not (?:override|append|delete).*?'([^']+)'")


def settings(job: Job) -> Outcome:
    """Resolve the overrides through the installed verl's own configuration, and look up logger and schedule.

    verl itself would say it minutes later, once torch is loaded in every process.
    """
    verl = verl_folder()
    refuse_unknown_loggers(job, verl)
    refuse_unknown_scheduler(job)
    folder = verl / "trainer" / "config"
    schema = TRAINERS[job.trainer].schema
    if not (folder / f"{schema}.yaml").is_file():
        return warns(f"the overrides were not resolved: {folder} has no {schema}.yaml")
    refuse_unknown_keys(job.overrides, folder, schema)
    return passes(f"{len(job.overrides)} overrides resolved through {folder / schema}.yaml")


def refuse_unknown_loggers(job: Job, verl: Path) -> None:
    """Refuse a logger that verl does not know, or whose package is not installed.

    Raises:
        BadInput: names it, and the nearest one or the package.
    """
    known = known_loggers(verl)
    for name in job.loggers:  # wandb has a check of its own
        if known and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"{near[0]} is meant?" if near else "none is near."
            raise BadInput(f"LOGGER={name}: verl has no such logger; {meant} Known are {', '.join(known)}")
        package = LOGGER_PACKAGES.get(name, name)
        if package and name != "wandb" and importlib.util.find_spec(package) is None:
            raise BadInput(f"LOGGER names {name}, which is not installed; pip install {package}, or set LOGGER=console")


def refuse_unknown_scheduler(job: Job) -> None:
    """Refuse a schedule of the learning rate that the trainer has not.

    Raises:
        BadInput: names it and those there are.
    """
    name, known = job.text("optim.lr_scheduler"), SCHEDULERS[job.trainer]
    if name not in known:
        raise BadInput(
            f"optim.lr_scheduler={name}: TRAINER={job.trainer} has {' and '.join(known)}; "
            f"{how_to_set('optim.lr_scheduler')}"
        )


def refuse_unknown_keys(overrides: tuple[str, ...], folder: Path, schema: str) -> None:
    """Refuse an override that Hydra cannot bring into verl's configuration.

    Args:
        overrides: of verl's command line.
        folder: verl/trainer/config.
        schema: the configuration's name in it.

    Raises:
        BadInput: names the key and the nearest one that there is.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    with initialize_config_dir(str(folder.absolute()), version_base=None):
        try:
            compose(config_name=schema, overrides=list(overrides))
        except (HydraException, OmegaConfBaseException) as e:
            said = " ".join(str(e).split())
            wrong = _COULD_NOT.search(said)
            if wrong is None:
                raise BadInput(f"verl's {schema}.yaml does not take the overrides: {said}") from None
            there = OmegaConf.to_container(compose(config_name=schema), resolve=False)
            raise BadInput(_unknown(wrong[1], list(_keys("", there)), schema)) from None


def _unknown(key: str, there: list[str], schema: str) -> str:
    """The message for a key that is not there."""
    parent, _, leaf = key.rpartition(".")
    leaf = OTHER_NAMES.get(leaf, leaf)
    alike = [known for known in there if known.rpartition(".")[2] == leaf]
    alike.sort(key=lambda known: known != f"{parent}.{leaf}")
    near = alike[:1] or difflib.get_close_matches(key, there, n=1, cutoff=0.5)
    advice = f"{near[0]} is the nearest" if near else "none is near"
    return (
        f"{key}: no such key in verl's {schema}.yaml; {advice}; to add one that verl reads all the same, give +{key}=…"
    )


def _keys(prefix: str, value: object) -> Iterator[str]:
    """The dotted keys of nested settings."""
    if not isinstance(value, Mapping):
        return
    for key, inner in value.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        yield name
        yield from _keys(name, inner)
