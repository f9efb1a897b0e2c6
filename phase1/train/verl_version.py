"""What depends on verl's version: its trainers and their keys, what they print and save, and what of them is patched.

A new version of verl is this module, the hook modules of patches/ and tests/train/test_verl_version.py, which holds it
against every verl that is installed.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from phase1.files import BadInput


# ------------------------------------------------------------------------------------------------------ the trainers
@dataclass(frozen=True)
class Trainer:
    """One of verl's SFT trainers.

    Attributes:
        module: what torchrun starts.
        hook: our module in patches/ that verl imports at its start (VERL_USE_EXTERNAL_MODULES).
        schema: name of its Hydra configuration in verl/trainer/config/.
        needs: a folder of the verl package without which the hook cannot work; "" for none.
        on_cpu: overrides for a machine without GPUs.
    """

    module: str
    hook: str
    schema: str
    needs: str = ""
    on_cpu: tuple[str, ...] = ("trainer.device=cpu",)


TRAINERS = {
    # In verl 0.7.0 and before; removed in 0.7.1.
    "fsdp": Trainer("verl.trainer.fsdp_sft_trainer", hook="phase1_fsdp_hook", schema="sft_trainer"),
    # In verl 0.7.1 and later; its platforms came later, the hook is made for 0.9.1.
    "engine": Trainer(
        "verl.trainer.sft_trainer",
        hook="phase1_engine_hook",
        schema="sft_trainer_engine",
        needs="plugin/platform",
        on_cpu=(  # most CPUs emulate bf16: fp32 throughout
            "trainer.device=cpu",
            "+engine.mixed_precision={param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}",
        ),
    ),
}
# The learning rate's schedules that each trainer has; verl fails at any other once the weights are loaded.
SCHEDULERS = {"fsdp": ("cosine", "wsd"), "engine": ("constant", "cosine")}
# Processes that share the tokens of a row (Ulysses).
SEQUENCE_PARALLEL = {"fsdp": "ulysses_sequence_parallel_size", "engine": "engine.ulysses_sequence_parallel_size"}
# Columns beside the messages that verl reads where a file has them, and which change the prompt.
PROMPT_COLUMNS = ("images", "videos", "tools", "enable_thinking")
# What each loader worker holds ready in /dev/shm: torch's prefetch of 2 batches, in int64 ids, masks and positions.
LOADER_WORKERS, LOADER_PREFETCH, LOADER_BYTES_A_TOKEN = 8, 2, 4 * 8
# The package that a logger imports, where it has another name than the logger, or "" for none.
LOGGER_PACKAGES = {"console": "", "file": "", "vemlp_wandb": "volcengine_ml_platform"}
# What to install for each; requirements-latest.txt and requirements-latest-cpu.txt pin the second.
VERL_OF_FSDP, VERL_OF_ENGINE, REQUIREMENTS_OF_ENGINE = "verl==0.7.0", "verl==0.9.1", "requirements-latest.txt"


# ---------------------------------------------------------------------------------------------------------- settings
@dataclass(frozen=True)
class Setting:
    """A setting of contract 3, in both trainers' spelling.

    Attributes:
        key: that of verl 0.7.0's FSDPSFTTrainer, which is the specification's; this toolkit uses it throughout.
        value: the value, or in capitals the variable of run_sft.sh that holds it.
        kind: literal: passed on as it is; text: quoted where Hydra would read something else; list: a,b becomes [a,b].
        engine: the engine trainer's key; "" where it is the same, None where that trainer has no such setting.
        only: the one trainer that knows the setting; "" for both.
    """

    key: str
    value: str
    kind: Literal["literal", "text", "list"] = "literal"
    engine: str | None = ""
    only: str = ""

    @property
    def variable(self) -> str | None:
        """The variable of run_sft.sh that sets it, None where the value is fixed."""
        return self.value if self.value.isupper() else None

    def key_of(self, trainer: str) -> str | None:
        """The trainer's own key, None where it has none."""
        if self.only and self.only != trainer:
            return None
        return self.key if trainer == "fsdp" or self.engine == "" else self.engine


ATTENTION = "model.override_config.attn_implementation"  # of the engine trainer
PACKED_ATTENTION = "phase1_packed"  # our own, which patches/phase1_engine_hook.py registers
FLASH_ATTENTION = "flash_attention_2"  # transformers' name; taken instead where flash-attn is installed

# In the contract's order. An empty value leaves verl's own default. Every hyperparameter is passed, because the engine
# trainer's defaults are others (lr 1e-3, constant schedule, betas 0.999).
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
    Setting(f"+{ATTENTION}", PACKED_ATTENTION, only="engine"),
    Setting("model.strategy", "fsdp2", engine="engine.strategy"),
    Setting("model.fsdp_config.model_dtype", "MODEL_DTYPE", engine="engine.model_dtype"),
    Setting("engine.use_torch_compile", "False", only="engine"),  # of verl's entropy, which SFT does not compute
    Setting("optim.lr", "LR"),
    Setting("optim.betas", "[0.9,0.95]"),
    Setting("optim.weight_decay", "0.01"),
    Setting("optim.lr_warmup_steps_ratio", "WARMUP_RATIO"),
    Setting("optim.clip_grad", "1.0"),
    Setting("optim.lr_scheduler", "cosine", engine="optim.lr_scheduler_type"),
    # AdamW in one kernel, without temporary copies
    Setting("optim.override_optimizer_config", "{fused:True}", only="engine"),
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


# ------------------------------------------------------------------------------------------------------ what it prints
LOSS, VAL_LOSS, GRAD_NORM, LEARNING_RATE = "train/loss", "val/loss", "train/grad_norm", "train/lr"
TOKENS = "train/global_tokens"  # real tokens of a step over all ranks; under verl 0.7.0 our hook adds it


@dataclass(frozen=True)
class Spelling:
    """Another version's name for a metric, and what its number is to be multiplied by."""

    name: str
    factor: float


SPELLINGS = {"train/lr(1e-3)": Spelling(LEARNING_RATE, 1e-3)}  # verl 0.7.0

# ------------------------------------------------------------------------------------------------------- what it saves
SHARD_PREFIX = {"model": "model", "optimizer": "optim", "extra": "extra_state"}  # a file a rank, by save_contents
SAVE_CONTENTS = (*SHARD_PREFIX, "hf_model")  # every word that trainer.checkpoint.save_contents knows
RANKS_FILE = "fsdp_config.json"  # holds world_size


def files_to_resume(folder: Path, contents: Collection[str], world_size: int) -> list[str]:
    """Names of the files without which training cannot go on from a checkpoint, all of them written by torch.save.

    Args:
        folder: the checkpoint; it tells whose it is by the loader's state, one file (fsdp) or one a rank (engine).
        contents: verl's save_contents.
        world_size: ranks that saved it.
    """
    ranks = range(world_size)
    prefixes = [prefix for content, prefix in SHARD_PREFIX.items() if content in contents]
    shards = [f"{prefix}_world_size_{world_size}_rank_{rank}.pt" for prefix in prefixes for rank in ranks]
    by_engine = (folder / "data_0.pt").exists()
    return shards + ([f"data_{rank}.pt" for rank in ranks] if by_engine else ["data.pt"])


# ---------------------------------------------------------------------------------------- what is patched in its files
# patches/verl-0.7.0-grad_norm.patch adds GRAD_NORM to the fsdp trainer's metrics; later versions log it themselves.
PATCHED_VERSION, FIRST_WITHOUT_PATCH = "0.7.0", "0.7.1"
PATCH_TARGET = "trainer/fsdp_sft_trainer.py"
ORIGINAL_SHA256 = "d63f57ae240464b309413b2fd0caa3f6d06ce9536ac4889e8e06a4bf245f1fcf"
PATCHED_SHA256 = "72a54abe88cccaf49e61eb5d2ebf03d959e94293892839cfbee880f1158ccaf9"


# -------------------------------------------------------------------------------------------------- what is installed
def verl_folder(otherwise: str = "PYTHON=…") -> Path:
    """The verl package that this Python would import; verl itself is not imported, which would take seconds.

    Args:
        otherwise: how the caller's user names another one, for the message.

    Raises:
        BadInput: it is not installed.
    """
    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise BadInput(
            f"verl is not installed for {sys.executable}; activate the environment that has it, or name it: {otherwise}"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def has_trainer(verl: Path, trainer: str) -> bool:
    """Whether the verl package in the folder `verl` holds the trainer's module."""
    return (verl.parent / (TRAINERS[trainer].module.replace(".", "/") + ".py")).is_file()


def removes_last_before_saving(verl: Path) -> bool:
    """Whether the verl package in this folder, told to keep one checkpoint, removes it before the next one is written
    (0.7.0), and not after (0.9.1)."""
    manager = verl / "utils" / "checkpoint" / "checkpoint_manager.py"
    return not manager.is_file() or "def ensure_checkpoint_capacity" not in manager.read_text(encoding="utf-8")


def known_loggers(verl: Path) -> tuple[str, ...]:
    """What trainer.logger may name, as the package's own verl/utils/tracking.py lists it; empty where it does not."""
    path = verl / "utils" / "tracking.py"
    if not path.is_file():
        return ()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "supported_backend" for target in node.targets
        ):
            return tuple(str(name) for name in ast.literal_eval(node.value))
    return ()


def default_trainer() -> str:
    """fsdp where the installed verl still has it (0.7.0 and before), else engine."""
    return "fsdp" if has_trainer(verl_folder(), "fsdp") else "engine"
