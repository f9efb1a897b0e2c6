"""The training job as it is asked for: run_sft.sh's environment and trailing Hydra overrides -> verl's command line.

The defaults of contract 3 stand in run_sft.sh, each an environment variable; SETTINGS of verl_version.py says under
which key each trainer takes them.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from phase1.files import BadInput
from phase1.model.hub import cached_model
from phase1.train.hydra_grammar import hydra_text, parse_override
from phase1.train.saving import staging_folder
from phase1.train.verl_version import (
    ATTENTION,
    FLASH_ATTENTION,
    SAVE_CONTENTS,
    SEQUENCE_PARALLEL,
    SETTINGS,
    TRAINERS,
    Setting,
    default_trainer,
)

ROOT = Path(__file__).resolve().parents[2]
BF16 = ("bf16", "bfloat16")
FP32 = ("fp32", "float32")


@dataclass(frozen=True)
class Job:
    """One training run.

    Attributes:
        trainer: fsdp or engine.
        config: verl's settings by SETTINGS' keys, as Hydra reads them, trailing overrides applied.
        overrides: verl's arguments, word by word.
        nproc: processes on this node.
        environ: the environment that run_sft.sh started with.
    """

    trainer: str
    config: dict[str, object]
    overrides: tuple[str, ...]
    nproc: int
    nnodes: int
    node_rank: int
    on_cpu: bool
    environ: dict[str, str]

    @property
    def world_size(self) -> int:
        """Processes on all nodes."""
        return self.nproc * self.nnodes

    @property
    def data_ranks(self) -> int:
        """Processes that get rows of their own: with Ulysses several share a row's tokens.

        Raises:
            BadInput: the size of a sequence's group is no number that divides the processes.
        """
        key = SEQUENCE_PARALLEL[self.trainer]
        size = self.number(key) if key in self.config else 1
        if self.world_size % size:
            raise BadInput(f"{key}={size} does not divide the {self.world_size} processes; give one that does")
        return self.world_size // size

    @property
    def ckpt_dir(self) -> Path:
        """The folder of global_step_N and train_run.json."""
        return Path(self.text("trainer.default_local_dir"))

    @property
    def model_folder(self) -> Path | None:
        """The model's folder on this machine, None where it is not here yet."""
        return cached_model(self.text("model.partial_pretrain"))

    @property
    def save_contents(self) -> list[str]:
        """What each checkpoint is to hold, in verl's words."""
        return list_of(self.config["trainer.checkpoint.save_contents"])

    @property
    def loggers(self) -> list[str]:
        """Where verl sends its metrics: console, wandb, …"""
        return list_of(self.config["trainer.logger"])

    @property
    def master_bytes(self) -> int:
        """Bytes of a parameter in the master weights."""
        return 2 if self.config["model.fsdp_config.model_dtype"] in BF16 else 4

    @property
    def background_save(self) -> bool:
        """Whether checkpoints go through memory while training goes on."""
        return self.environ.get("BACKGROUND_SAVE") == "1"

    @property
    def compiled(self) -> bool:
        """Whether torch.compile is used, which the fsdp trainer has not."""
        return self.trainer == "engine" and self.environ.get("COMPILE") == "1"

    def text(self, key: str) -> str:
        """A value of the config as text."""
        return str(self.config[key])

    def number(self, key: str, least: int = 1) -> int:
        """A whole number of the config.

        Raises:
            BadInput: it is none, or less than `least`; the message names the variable that sets it.
        """
        value = self.config.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise BadInput(f"{key}={value}: a whole number of at least {least} is needed; {how_to_set(key)}")
        return value

    def files(self, key: str) -> list[Path]:
        """The file of a config key, or its files where a trailing override gives a list of shards."""
        return [Path(name) for name in list_of(self.config[key])]


def list_of(value: object) -> list[str]:
    """A config value that may be one text or a list of them; empty for null."""
    return [str(v) for v in (value if isinstance(value, list) else [] if value is None else [value])]


def how_to_set(key: str) -> str:
    """What the user does to change a key of the config."""
    variable = next((s.variable for s in SETTINGS if s.key == key and s.variable), None)
    return f"set the environment variable {variable}" if variable else f"give {key}=… behind run_sft.sh's own arguments"


# ---------------------------------------------------------------------------------------------------- from run_sft.sh
def read_job(environ: dict[str, str], trailing: list[str]) -> Job:
    """The job that run_sft.sh's variables and its trailing arguments describe.

    Raises:
        BadInput: a variable is missing, Hydra cannot read an override, or a value would be taken for something else.
    """
    missing = sorted({s.variable for s in SETTINGS if s.variable} - environ.keys())
    if missing:
        raise BadInput(
            f"the environment lacks {', '.join(missing)}; start the training with run_sft.sh, which sets them"
        )
    trainer = environ.get("TRAINER") or default_trainer()
    if trainer not in TRAINERS:
        raise BadInput(f"TRAINER={trainer}: expected {' or '.join(TRAINERS)}")
    if environ["DEVICE"] not in ("cuda", "cpu"):
        raise BadInput(f"DEVICE={environ['DEVICE']}: expected cuda or cpu")
    on_cpu = environ["DEVICE"] == "cpu"
    ours = [word for s in SETTINGS if (word := override_of(s, trainer, environ, on_cpu))]
    spec_key = {s.key_of(trainer): s.key for s in SETTINGS}
    config: dict[str, object] = {}
    for override in [*ours, *trailing]:
        config |= {spec_key.get(k, k): v for k, v in parse_override(override).items()}
    # Hydra writes its log and its configuration there; by default it would make outputs/<date>/<time>/ in the current
    # directory.
    ours.append(f"hydra.run.dir={hydra_text(str(Path(str(config['trainer.default_local_dir'])) / 'hydra'))}")
    if on_cpu:
        ours += TRAINERS[trainer].on_cpu
    job = Job(
        trainer=trainer,
        config=config,
        overrides=(*ours, *trailing),
        nproc=_count(environ, "NPROC"),
        nnodes=_count(environ, "NNODES"),
        node_rank=_count(environ, "NODE_RANK", least=0),
        on_cpu=on_cpu,
        environ=environ,
    )
    if job.node_rank >= job.nnodes:
        raise BadInput(
            f"NODE_RANK={job.node_rank} of NNODES={job.nnodes}: nodes are counted from 0, the last one is "
            f"{job.nnodes - 1}"
        )
    refuse_misspelt(job)
    return job


def override_of(setting: Setting, trainer: str, environ: dict[str, str], on_cpu: bool) -> str | None:
    """A setting as the trainer's command line has it, None where it has not: no such key, or no value."""
    key = setting.key_of(trainer)
    value = environ[setting.variable] if setting.variable else setting.value
    if key is None or value == "":
        return None
    if setting.key == f"+{ATTENTION}" and not on_cpu and importlib.util.find_spec("flash_attn"):
        value = FLASH_ATTENTION
    if setting.kind == "list" and not value.startswith("["):
        value = f"[{value}]"
    return f"{key}={hydra_text(value) if setting.kind == 'text' else value}"


def _count(environ: dict[str, str], name: str, least: int = 1) -> int:
    if not environ[name].isdecimal() or int(environ[name]) < least:
        raise BadInput(f"{name}={environ[name]}: a whole number of at least {least} is needed")
    return int(environ[name])


def refuse_misspelt(job: Job) -> None:
    """Refuse values that the trainer would silently take for something else, or fail on once the weights are loaded.

    Raises:
        BadInput: names the value and what is expected.
    """
    config, environ = job.config, job.environ
    refuse_lora(config)
    if environ.get("COMPILE", "0") not in ("0", "1"):
        raise BadInput(f"COMPILE={environ['COMPILE']}: 1 or 0 is needed")
    refuse_background_save(job)
    budget = activation_budget(environ)
    if not 0 <= budget <= 1:
        raise BadInput(f"ACTIVATION_MEMORY_BUDGET={environ['ACTIVATION_MEMORY_BUDGET']}: a share from 0 to 1 is needed")
    if budget and (environ.get("COMPILE") != "1" or config["model.enable_gradient_checkpointing"] is False):
        raise BadInput(
            f"ACTIVATION_MEMORY_BUDGET={environ['ACTIVATION_MEMORY_BUDGET']} only works with COMPILE=1 and "
            "GRADIENT_CHECKPOINTING=True; set both, or leave it 0"
        )
    for key in ("model.enable_gradient_checkpointing", "engine.reshard_after_forward"):
        if not isinstance(config.get(key, True), bool):
            raise BadInput(f"{key}={config[key]}: True or False is needed; {how_to_set(key)}")
    for key in ("optim.lr", "optim.lr_warmup_steps_ratio"):
        value = config[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise BadInput(f"{key}={value}: a number of at least 0 is needed; {how_to_set(key)}")
    warmup = config["optim.lr_warmup_steps_ratio"]
    if isinstance(warmup, int | float) and warmup > 1:  # verl would warm up for ever
        raise BadInput(
            f"optim.lr_warmup_steps_ratio={warmup}: a share of all steps, from 0 to 1, is needed; set WARMUP_RATIO "
            "to 0.05 for 5%"
        )
    mode = config["trainer.resume_mode"]
    if mode not in ("auto", "disable", "resume_path"):
        raise BadInput(
            f"trainer.resume_mode={mode}: auto, disable or resume_path is needed; {how_to_set('trainer.resume_mode')}"
        )
    contents = config["trainer.checkpoint.save_contents"]
    if not isinstance(contents, list) or not set(job.save_contents) <= set(SAVE_CONTENTS):
        raise BadInput(
            f"trainer.checkpoint.save_contents={contents}: a list of {', '.join(SAVE_CONTENTS)} is needed; "
            "verl silently leaves out what it does not know"
        )
    if job.text("trainer.default_local_dir") != environ["CKPT_DIR"]:  # the lock and the records are there
        raise BadInput(
            f"trainer.default_local_dir={job.text('trainer.default_local_dir')} is not "
            f"CKPT_DIR={environ['CKPT_DIR']}; set CKPT_DIR instead"
        )
    for name in ("CKPT_DIR", "OUTPUT_DIR"):
        wanted = Path(environ.get(name) or ".").absolute()
        there = next(p for p in (wanted, *wanted.parents) if p.exists())
        if not there.is_dir():
            raise BadInput(f"{name}={environ[name]}: {there} is a file, a folder is needed; set {name} to another")


def refuse_background_save(job: Job) -> None:
    """Refuse BACKGROUND_SAVE=1 where it cannot be had, or where a failed copy would lose everything.

    Raises:
        BadInput: names what it does not go with.
    """
    if job.environ.get("BACKGROUND_SAVE", "0") not in ("0", "1"):
        raise BadInput(f"BACKGROUND_SAVE={job.environ['BACKGROUND_SAVE']}: 1 or 0 is needed")
    if not job.background_save:
        return
    if job.trainer != "engine":
        raise BadInput(f"BACKGROUND_SAVE=1 does not work with TRAINER={job.trainer}; set TRAINER=engine or leave it 0")
    if job.nnodes > 1:
        raise BadInput(f"BACKGROUND_SAVE=1 does not work with NNODES={job.nnodes}, only on one node; leave it 0")
    if job.config["trainer.max_ckpt_to_keep"] == 1:  # verl removes the old one once the new one is in memory
        raise BadInput(
            "BACKGROUND_SAVE=1 does not work with MAX_CKPT_TO_KEEP=1, where a copy that fails would lose everything; "
            "set it to 2 or more"
        )


_LORA = re.compile(r"lora.*(rank|path)$|lora\.r$", re.IGNORECASE)


def refuse_lora(config: Mapping[str, object]) -> None:
    """Refuse an override that turns on LoRA in any spelling: model.lora_rank, model.lora_adapter_path, model.lora.

    Its checkpoints hold adapters beside wrapped layers. As a model their huggingface/ is random weights, and verl's
    merger makes the base model of them.

    Raises:
        BadInput: names the override.
    """
    for key, value in _leaves("", config):
        if _LORA.search(key) and not (value is None or (isinstance(value, int | float) and value <= 0)):
            raise BadInput(
                f"{key}={value}: LoRA is not trained here, since every later stage needs whole models; leave it out, "
                "or train the adapter elsewhere and merge it with PEFT (docs/05, 'LoRA')"
            )


def _leaves(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    """Each value of nested settings with its dotted key."""
    if not isinstance(value, dict):
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _leaves(f"{prefix}.{key}" if prefix else str(key), inner)


def activation_budget(environ: dict[str, str]) -> float:
    """ACTIVATION_MEMORY_BUDGET as a number, NaN where it is none."""
    try:
        return float(environ.get("ACTIVATION_MEMORY_BUDGET") or 0)
    except ValueError:
        return math.nan


# ------------------------------------------------------------------------------------------------------ the command
def launch_command(job: Job, *, wandb_offline: bool, schedule_steps: int | None) -> list[str]:
    """The whole command, environment included. torchrun is started as a module, so that it is this Python's.

    Args:
        job: the training run.
        wandb_offline: whether W&B must log to files.
        schedule_steps: steps over which the learning rate falls; None where they cannot be counted, for people alone.

    Raises:
        BadInput: several nodes, and no address at which they meet.
    """
    trainer = TRAINERS[job.trainer]
    modules = [m for m in job.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(",") if m and m != trainer.hook]
    paths = [p for p in job.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    variables = {
        "VERL_USE_EXTERNAL_MODULES": ",".join([*modules, trainer.hook]),
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([str(ROOT / "patches"), str(ROOT), *paths])),
    }
    if job.trainer == "engine":  # read by patches/phase1_engine_hook.py
        variables |= {
            "PHASE1_COMPILE": job.environ.get("COMPILE") or "0",
            "PHASE1_ACTIVATION_MEMORY_BUDGET": job.environ.get("ACTIVATION_MEMORY_BUDGET") or "0",
            "PHASE1_BALANCE": str(int(job.config["data.balance_dp_token"] is True)),
            "PHASE1_SCHEDULE_STEPS": "?" if schedule_steps is None else str(schedule_steps),
        }
        if job.background_save:
            variables["PHASE1_BACKGROUND_SAVE"] = str(staging_folder(job.ckpt_dir))
    if job.on_cpu:
        variables["CUDA_VISIBLE_DEVICES"] = ""  # verl takes a visible GPU whatever trainer.device says
    if wandb_offline:
        variables["WANDB_MODE"] = "offline"
    nodes = ["--standalone", "--nnodes=1"]
    if job.nnodes > 1:
        if not job.environ.get("MASTER_ADDR"):
            raise BadInput(
                "NNODES is more than 1 and MASTER_ADDR is empty; set it to the first node's address on every node"
            )
        nodes = [
            f"--nnodes={job.nnodes}",
            f"--node_rank={job.environ['NODE_RANK']}",
            f"--master_addr={job.environ['MASTER_ADDR']}",
            f"--master_port={job.environ['MASTER_PORT']}",
        ]
    launcher = [sys.executable, "-m", "torch.distributed.run", *nodes, f"--nproc_per_node={job.nproc}"]
    settings = [f"{name}={value}" for name, value in variables.items()]
    return ["env", *settings, *launcher, "-m", trainer.module, *job.overrides]
