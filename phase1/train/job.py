"""The training job as it is asked for: run_sft.sh's environment and trailing Hydra overrides -> verl's command line.

The defaults of contract 3 stand in run_sft.sh, each an environment variable; this file maps them to the trainer's keys.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phase1.files import BadInput
from phase1.train.estimate import CHECKPOINT_COPIES

ROOT = Path(__file__).resolve().parents[2]
TRAINERS = {  # TRAINER -> verl's module, ours that it loads (patches/)
    "fsdp": ("verl.trainer.fsdp_sft_trainer", "phase1_verl_hook"),  # removed after verl 0.7.0
    "engine": ("verl.trainer.sft_trainer", "phase1_engine_hook"),
}


@dataclass(frozen=True)
class Setting:
    """A row of contract 3: the key and its value, or in capitals the environment variable that holds it.

    `key` is the spec's, which is that of verl 0.7.0's FSDPSFTTrainer, and the name that this toolkit uses throughout;
    `engine` is the engine trainer's where that differs.
    """

    key: str
    value: str
    kind: str = (
        "literal"  # literal: passed on as it is; text: quoted where Hydra reads something else; list: a,b -> [a,b]
    )
    engine: str | None = ""  # "": the same key; None: the engine trainer has no such setting
    only: str = ""  # the one trainer that knows it

    def key_of(self, trainer: str) -> str | None:
        """The trainer's own key, None where it has none."""
        if self.only and self.only != trainer:
            return None
        return self.key if trainer == "fsdp" or self.engine == "" else self.engine


# In the contract's order. An empty value leaves verl's own default. What the engine trainer's defaults are is not ours
# (lr 1e-3, constant schedule, betas .999): every hyperparameter is passed.
SETTINGS = (
    Setting("data.train_files", "TRAIN_FILE", "text"),
    Setting("data.val_files", "VAL_FILE", "text"),
    Setting("data.multiturn.enable", "true", engine=None),
    Setting("data.multiturn.messages_key", "messages", engine="data.messages_key"),
    Setting("data.max_length", "MAX_LENGTH"),
    Setting("data.truncation", "right"),
    Setting("data.train_batch_size", "TRAIN_BATCH_SIZE"),
    Setting("data.micro_batch_size_per_gpu", "MICRO_BATCH_SIZE"),
    Setting("data.balance_dp_token", "True"),
    Setting("data.pad_mode", "no_padding", only="engine"),
    Setting("data.use_dynamic_bsz", "True", only="engine"),
    Setting("data.max_token_len_per_gpu", "MAX_TOKENS_PER_GPU", only="engine"),
    Setting("model.partial_pretrain", "MODEL_PATH", "text", engine="model.path"),
    Setting("model.trust_remote_code", "True"),
    Setting("model.enable_gradient_checkpointing", "GRADIENT_CHECKPOINTING"),
    Setting("model.use_remove_padding", "True", only="engine"),
    Setting("+model.override_config.attn_implementation", "ATTENTION", only="engine"),
    Setting("model.strategy", "fsdp2", engine="engine.strategy"),
    Setting("model.fsdp_config.model_dtype", "MODEL_DTYPE", engine="engine.model_dtype"),
    Setting("engine.reshard_after_forward", "RESHARD", only="engine"),
    Setting("engine.use_torch_compile", "False", only="engine"),  # of verl's entropy, which SFT does not compute
    Setting("optim.lr", "LR"),
    Setting("optim.betas", "[0.9,0.95]"),
    Setting("optim.weight_decay", "0.01"),
    Setting("optim.lr_warmup_steps_ratio", "WARMUP_RATIO"),
    Setting("optim.clip_grad", "1.0"),
    Setting("optim.lr_scheduler", "cosine", engine="optim.lr_scheduler_type"),
    Setting(
        "optim.override_optimizer_config", "{fused:True}", only="engine"
    ),  # AdamW in one kernel, no temporary copies
    Setting("trainer.total_epochs", "EPOCHS"),
    Setting("trainer.total_training_steps", "TOTAL_STEPS"),
    Setting("trainer.save_freq", "SAVE_FREQ"),
    Setting("trainer.test_freq", "TEST_FREQ"),
    Setting("trainer.max_ckpt_to_keep", "MAX_CKPT_TO_KEEP"),
    Setting("trainer.logger", "LOGGER", "list"),
    Setting("trainer.seed", "42"),
    Setting("trainer.resume_mode", "RESUME_MODE"),
    Setting("trainer.project_name", "PROJECT_NAME", "text"),
    Setting("trainer.experiment_name", "EXPERIMENT_NAME", "text"),
    Setting("trainer.default_local_dir", "CKPT_DIR", "text"),
    Setting("trainer.checkpoint.save_contents", "[model,optimizer,extra,hf_model]", engine="checkpoint.save_contents"),
)


@dataclass(frozen=True)
class Job:
    """One training run. `config` maps keys as SETTINGS spells them to parsed values, trailing overrides applied."""

    trainer: str  # fsdp or engine
    config: dict[str, Any]
    overrides: tuple[str, ...]  # verl's arguments, word by word
    nproc: int  # processes on this node
    nnodes: int
    node_rank: int
    on_cpu: bool
    environ: dict[str, str]

    @property
    def world_size(self) -> int:
        return self.nproc * self.nnodes

    @property
    def ckpt_dir(self) -> Path:
        return Path(str(self.config["trainer.default_local_dir"]))

    def number(self, key: str, least: int = 1) -> int:
        """A whole number of the config. BadInput names the knob that sets it."""
        value = self.config.get(key)
        if type(value) is not int or value < least:
            raise BadInput(f"{key}={value}: a whole number of at least {least} is needed; {how_to_set(key)}")
        return value

    def files(self, key: str) -> list[Path]:
        """The file of a config key, or its files where a trailing override gives a list of shards."""
        value = self.config[key]
        return [Path(str(v)) for v in (value if isinstance(value, list) else [value])]


def how_to_set(key: str) -> str:
    knob = next((s.value for s in SETTINGS if s.key == key and s.value.isupper()), None)
    return f"set the environment variable {knob}" if knob else f"give {key}=… behind run_sft.sh's own arguments"


def read_job(environ: dict[str, str], trailing: list[str]) -> Job:
    """The job that run_sft.sh's variables and its trailing arguments describe. BadInput for what Hydra cannot read."""
    missing = sorted({s.value for s in SETTINGS if s.value.isupper()} - environ.keys())
    if missing:
        raise BadInput(
            f"the environment lacks {', '.join(missing)}; start the training with run_sft.sh, which sets them"
        )
    trainer = environ.get("TRAINER") or default_trainer()
    if trainer not in TRAINERS:
        raise BadInput(f"TRAINER={trainer}: expected {' or '.join(TRAINERS)}")
    on_cpu = environ["DEVICE"] == "cpu"
    environ = environ | {"ATTENTION": environ["ATTENTION"] or best_attention(on_cpu)}
    overrides = []
    for setting in SETTINGS:
        key, value = setting.key_of(trainer), environ[setting.value] if setting.value.isupper() else setting.value
        if key is None or value == "":
            continue
        if setting.kind == "list" and not value.startswith("["):
            value = f"[{value}]"
        overrides.append(f"{key}={hydra_text(value) if setting.kind == 'text' else value}")
    spec_key = {s.key_of(trainer): s.key for s in SETTINGS}
    config: dict[str, Any] = {}
    for override in [*overrides, *trailing]:
        config |= {spec_key.get(k, k): v for k, v in parse_override(override).items()}
    # Hydra writes its own log and config there; by default it would make outputs/<date>/<time>/ wherever the shell
    # stands.
    overrides.append(f"hydra.run.dir={hydra_text(str(Path(str(config['trainer.default_local_dir'])) / 'hydra'))}")
    if on_cpu:
        overrides.append("trainer.device=cpu")
        if trainer == "engine":  # most CPUs emulate bf16: fp32 throughout
            overrides.append("+engine.mixed_precision={param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}")
    numbers = {}
    for name, least in (("NPROC", 1), ("NNODES", 1), ("NODE_RANK", 0)):
        if not environ[name].isdecimal() or int(environ[name]) < least:
            raise BadInput(f"{name}={environ[name]}: a whole number of at least {least} is needed")
        numbers[name] = int(environ[name])
    if numbers["NODE_RANK"] >= numbers["NNODES"]:
        raise BadInput(f"NODE_RANK={numbers['NODE_RANK']} of NNODES={numbers['NNODES']}: nodes are counted from 0")
    refuse_misspelt(config, environ)
    return Job(
        trainer,
        config,
        (*overrides, *trailing),
        numbers["NPROC"],
        numbers["NNODES"],
        numbers["NODE_RANK"],
        on_cpu,
        environ,
    )


def refuse_misspelt(config: dict[str, Any], environ: dict[str, str]) -> None:
    """Values that the trainer would take for something else in silence, or trip over once the weights are loaded."""
    for name in ("FUSED_LOSS", "COMPILE"):
        if environ.get(name, "0") not in ("0", "1"):
            raise BadInput(f"{name}={environ[name]}: 1 or 0 is needed")
    if not 0 <= activation_budget(environ) <= 1:
        raise BadInput(f"ACTIVATION_MEMORY_BUDGET={environ['ACTIVATION_MEMORY_BUDGET']}: a share from 0 to 1 is needed")
    if activation_budget(environ) and (
        environ.get("COMPILE") != "1" or config["model.enable_gradient_checkpointing"] is False
    ):
        raise BadInput(
            f"ACTIVATION_MEMORY_BUDGET={environ['ACTIVATION_MEMORY_BUDGET']} is read where COMPILE=1 and "
            "GRADIENT_CHECKPOINTING=True; set both, or leave it 0"
        )
    for key in ("model.enable_gradient_checkpointing", "engine.reshard_after_forward"):
        if config.get(key, True) not in (True, False):
            raise BadInput(f"{key}={config[key]}: True or False is needed; {how_to_set(key)}")
    for key in ("optim.lr", "optim.lr_warmup_steps_ratio"):
        if type(config[key]) not in (int, float) or not 0 <= config[key] < float("inf"):
            raise BadInput(f"{key}={config[key]}: a number of at least 0 is needed; {how_to_set(key)}")
    if config["trainer.resume_mode"] not in ("auto", "disable", "resume_path"):
        raise BadInput(
            f"trainer.resume_mode={config['trainer.resume_mode']}: auto, disable or resume_path; "
            f"{how_to_set('trainer.resume_mode')}"
        )
    contents = config["trainer.checkpoint.save_contents"]
    if not isinstance(contents, list) or not all(str(c) in CHECKPOINT_COPIES for c in contents):
        raise BadInput(
            f"trainer.checkpoint.save_contents={contents}: a list of {', '.join(CHECKPOINT_COPIES)} is needed; "
            "verl leaves out in silence what it does not know"
        )
    if str(config["trainer.default_local_dir"]) != environ["CKPT_DIR"]:  # lock, record and watcher look there
        raise BadInput(
            f"trainer.default_local_dir={config['trainer.default_local_dir']} is not "
            f"CKPT_DIR={environ['CKPT_DIR']}; set CKPT_DIR instead"
        )


def activation_budget(environ: dict[str, str]) -> float:
    """ACTIVATION_MEMORY_BUDGET as a number, NaN where it is none."""
    try:
        return float(environ.get("ACTIVATION_MEMORY_BUDGET") or 0)
    except ValueError:
        return float("nan")


# ------------------------------------------------------------------------------------------------ what is installed
def verl_folder() -> Path:
    """The verl package that this Python would import; verl itself is not imported (it takes seconds)."""
    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise BadInput(
            f"verl is not installed for {sys.executable}; activate the environment that has it, or name it: PYTHON=…"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def default_trainer() -> str:
    """fsdp where verl still has it (0.7.0 and before), else engine."""
    return "fsdp" if (verl_folder().parent / (TRAINERS["fsdp"][0].replace(".", "/") + ".py")).is_file() else "engine"


def best_attention(on_cpu: bool) -> str:
    """The engine trainer's attention over packed rows: flash-attn where it is installed, else torch's own kernels."""
    return "flash_attention_2" if not on_cpu and importlib.util.find_spec("flash_attn") else "phase1_packed"


# ------------------------------------------------------------------------------------------------- Hydra's grammar
@functools.cache
def overrides_parser() -> Any:
    """Hydra's parser. BadInput where Hydra, and so verl, is not installed."""
    try:
        from hydra.core.override_parser.overrides_parser import OverridesParser
    except ImportError:
        raise BadInput(
            f"hydra-core is not installed for {sys.executable}; activate the environment that has verl, or "
            "name it: PYTHON=…"
        ) from None
    return OverridesParser.create()


def parse_override(override: str) -> dict[str, Any]:
    """{key: value} of one `key=value` word, {} for a deletion, by Hydra's own parser."""
    parser = overrides_parser()
    from hydra.errors import HydraException

    try:
        parsed = parser.parse_override(override)
    except HydraException as e:
        reason = str(e).splitlines()[0]
        raise BadInput(
            f"{override!r} is not a Hydra override ({reason}); expected key=value, special characters in quotes"
        ) from None
    if parsed.is_sweep_override():
        raise BadInput(f"{override!r} is a sweep to Hydra; write a list as [a,b] and a text with commas as \"'a,b'\"")
    return {} if parsed.is_delete() else {parsed.key_or_group: parsed.value()}


def hydra_text(text: str) -> str:
    """`text` as the value of an override: bare where Hydra reads it back as this very string, else quoted.

    Source: https://hydra.cc/docs/advanced/override_grammar/basic/ ("Quoted values"); `${` is OmegaConf's and escaped.
    """
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    if escaped == text and text == text.strip() != "":
        try:
            if next(iter(parse_override(f"k={text}").values())) == text:
                return text
        except BadInput:
            pass
    # Inside quotes a backslash counts as an escape only in front of a quote, the closing one included.
    escaped = re.sub(r"(\\*)('|\Z)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), escaped)
    return f"'{escaped}'"


# ------------------------------------------------------------------------------------------------------ the command
def launch_command(job: Job, wandb_offline: bool, schedule_steps: int) -> list[str]:
    """The whole command, environment included: torchrun by module, so that this very Python's one is taken."""
    module, hook = TRAINERS[job.trainer]
    modules = [m for m in job.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(",") if m and m != hook]
    variables = {
        "VERL_USE_EXTERNAL_MODULES": ",".join([*modules, hook]),
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
    }
    paths = [p for p in job.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    variables["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(ROOT / "patches"), *paths]))
    if job.trainer == "engine":
        variables |= {
            f"PHASE1_{name}": job.environ.get(name) or "0"
            for name in ("FUSED_LOSS", "COMPILE", "ACTIVATION_MEMORY_BUDGET")
        }
        variables |= {
            "PHASE1_BALANCE": str(int(job.config["data.balance_dp_token"] is True)),
            "PHASE1_SCHEDULE_STEPS": str(schedule_steps),
        }
    if job.on_cpu:
        variables["CUDA_VISIBLE_DEVICES"] = ""  # verl takes a visible GPU whatever trainer.device says
    if wandb_offline:
        variables["WANDB_MODE"] = "offline"
    if job.nnodes == 1:
        nodes = ["--standalone", "--nnodes=1"]
    else:
        if not job.environ.get("MASTER_ADDR"):
            raise BadInput(
                "NNODES is more than 1 and MASTER_ADDR is empty; set it to the first node's address on every node"
            )
        nodes = [f"--nnodes={job.nnodes}"] + [
            f"--{name}={job.environ[name.upper()]}" for name in ("node_rank", "master_addr", "master_port")
        ]
    launcher = [sys.executable, "-m", "torch.distributed.run", *nodes, f"--nproc_per_node={job.nproc}"]
    return ["env", *(f"{k}={v}" for k, v in variables.items()), *launcher, "-m", module, *job.overrides]
