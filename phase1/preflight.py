"""What can be known to go wrong before a GPU is taken: checks of a training job, a line each: pass, warn or fail.

A check is a function of the job. It returns (status, detail), or raises BadInput, which is a fail.
"""

from __future__ import annotations

import importlib.util
import json
import netrc
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from phase1.files import BadInput, read_json
from phase1.sft_job import ROOT, TRAINERS, Job, how_to_set, verl_folder


@dataclass(frozen=True)
class Check:
    name: str
    status: str  # pass, warn, fail
    detail: str


@dataclass(frozen=True)
class Schedule:
    """Steps as the trainer will count them: partial batches are dropped, the learning rate spans all epochs."""

    steps_per_epoch: int
    span: int  # steps of all epochs
    total_steps: int  # the last step of this run
    warmup_steps: int
    saves: int


def run_checks(job: Job) -> list[Check]:
    """All checks, cheapest first, none of which imports torch."""
    checks = []
    for name, check in CHECKS.items():
        try:
            checks.append(Check(name, *check(job)))
        except BadInput as e:
            checks.append(Check(name, "fail", str(e)))
            if check is batch:  # everything after it counts with these numbers
                break
    return checks


def show(checks: list[Check]) -> None:
    """One line a check, on stderr: stdout is the command's."""
    for c in checks:
        print(f"{c.status}  {c.name:<9} {c.detail}", file=sys.stderr)


# ---------------------------------------------------------------------------------------------------------- numbers
def batch(job: Job) -> tuple[str, str]:
    """train_batch_size is global and must divide by ranks x micro batch: the trainer asserts it, minutes later."""
    rows, micro = job.number("data.train_batch_size"), job.number("data.micro_batch_size_per_gpu")
    if rows % (job.world_size * micro):
        up = -(-rows // (job.world_size * micro)) * job.world_size * micro
        raise BadInput(
            f"data.train_batch_size={rows} does not divide by {job.world_size} processes x micro batch {micro}; "
            f"{how_to_set('data.train_batch_size')} to {up}, or change MICRO_BATCH_SIZE or the number of processes"
        )
    return "pass", f"{rows} rows a step = {job.world_size} processes x {micro} rows x {rows // job.world_size // micro} micro batches"


def schedule_of(job: Job) -> Schedule:
    """Steps of the whole run. BadInput when the data are too few for one step, or for the steps asked for."""
    rows, size = used_rows(job, "train"), job.number("data.train_batch_size")
    per_epoch = rows // job.world_size // (size // job.world_size)
    if per_epoch == 0:
        raise BadInput(f"{job.files('data.train_files')[0]}: {rows} rows are less than one batch of {size}; {how_to_set('data.train_batch_size')} lower")
    span = per_epoch * job.number("trainer.total_epochs")
    total = span
    if job.config.get("trainer.total_training_steps") is not None:
        total = job.number("trainer.total_training_steps")
        if total > span:  # the trainer would run out of data and end without the last save
            raise BadInput(f"trainer.total_training_steps={total}, but all epochs together have {span} steps; set EPOCHS to {-(-total // per_epoch)}")
    for key in ("trainer.save_freq", "trainer.test_freq"):
        if job.number(key, least=-1) == 0:
            raise BadInput(f"{key}=0: the trainer divides by it; {how_to_set(key)} to -1 for only once, at the end")
    save_freq = job.config["trainer.save_freq"]
    saves = -(-total // save_freq) if save_freq > 0 else 1
    return Schedule(per_epoch, span, total, int(span * float(job.config["optim.lr_warmup_steps_ratio"])), saves)


def schedule(job: Job) -> tuple[str, str]:
    s = schedule_of(job)
    if s.saves < 3 and job.config["trainer.save_freq"] > 0:
        return "warn", f"{s.steps_per_epoch} steps an epoch, {s.total_steps} in all, saved {s.saves} times: little to choose the best from; set SAVE_FREQ lower"
    return "pass", f"{s.steps_per_epoch} steps an epoch, {s.total_steps} in all, {s.warmup_steps} of warm-up, saved {s.saves} times"


# ------------------------------------------------------------------------------------------------------------- data
def parquet_rows(job: Job, key: str) -> int:
    """Rows of a config key's Parquet files; BadInput when one is missing, broken or not in the form verl reads."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 0
    for path in job.files(key):
        if not path.is_file():
            raise BadInput(f"{path}: no such file; write it with prepare_sft_data.py, or {how_to_set(key)}")
        try:
            file = pq.ParquetFile(path)
        except pa.ArrowException as e:
            raise BadInput(f"{path}: not a whole Parquet file ({str(e).splitlines()[0]}); write it again with prepare_sft_data.py") from None
        schema = file.schema_arrow
        kind = schema.field("messages").type if "messages" in schema.names else None
        turns = kind.value_type if kind is not None and (pa.types.is_list(kind) or pa.types.is_large_list(kind)) else None
        if turns is None or not pa.types.is_struct(turns) or {"role", "content"} - {f.name for f in turns}:
            raise BadInput(f"{path}: needs a column messages, a list of {{role, content}} structs, has {kind or schema.names}")
        rows += file.metadata.num_rows
    return rows


def used_rows(job: Job, side: str) -> int:
    """Rows that verl takes of the train or val files: all, or the first `{side}_max_samples`."""
    rows, most = parquet_rows(job, f"data.{side}_files"), job.config.get(f"data.{side}_max_samples")
    return min(rows, most) if isinstance(most, int) and most > 0 else rows


def train_data(job: Job) -> tuple[str, str]:
    """Rows, and by prepare_sft_data.py's report whether the longest fits: truncation cuts the end off an answer in silence."""
    rows = f"{used_rows(job, 'train')} rows in {', '.join(map(str, job.files('data.train_files')))}"
    report = job.files("data.train_files")[0].with_name("sft_report.json")
    tokens = (read_json(report).get("tokens") or {}) if report.is_file() else {}
    if not tokens:
        return "warn", f"{rows}; their lengths are not known, prepare_sft_data.py --model measures them"
    if tokens["p100"] > job.number("data.max_length"):
        return "warn", f"{rows}; the longest has {tokens['p100']} tokens and is cut to {job.config['data.max_length']}, its end lost; set MAX_LENGTH higher"
    return "pass", f"{rows}, the longest of {tokens['p100']} tokens"


def val_data(job: Job) -> tuple[str, str]:
    """Too few rows for a micro batch on each rank make the trainer crash at its last step, before the last save."""
    rows = used_rows(job, "val")
    need = job.world_size * job.number("data.micro_batch_size_per_gpu")
    path = job.files("data.val_files")[0]
    if rows < need:
        raise BadInput(f"{path}: {rows} rows, but validation needs {need} (one micro batch a process); prepare with a larger --val_ratio or set MICRO_BATCH_SIZE lower")
    return "pass", f"{rows} rows in {path}, {rows // job.world_size // (need // job.world_size) * need} of them used"


# ------------------------------------------------------------------------------------------------------ environment
def trainer(job: Job) -> tuple[str, str]:
    """verl's version and our patch, by the applier itself; verl is not imported."""
    applier = ROOT / "patches" / "apply_verl_patch.py"
    done = subprocess.run([sys.executable, str(applier), "--check"], capture_output=True, text=True, env=job.environ)
    said = (done.stdout or done.stderr).strip().removeprefix("error: ")
    if done.returncode:
        hint = f"; patch it: {sys.executable} {applier}" if done.returncode == 1 else ""
        raise BadInput(said.split(";")[0] + hint if hint else said)
    package, module = verl_folder(), TRAINERS[job.trainer][0]
    if not (package.parent / (module.replace(".", "/") + ".py")).is_file():
        raise BadInput(f"{package}: has no {module}, which later versions dropped; pip install verl==0.7.0 --no-deps, or TRAINER=engine")
    return "pass", said


def model(job: Job) -> tuple[str, str]:
    """Config, tokenizer with a chat template and weights are there."""
    name = str(job.config["model.partial_pretrain"])
    folder = model_folder(name)
    if folder is None:
        if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
            return "warn", f"{name} is not on this machine: every process will download it from the Hugging Face Hub"
        raise BadInput(f"{name}: no such model folder; {how_to_set('model.partial_pretrain')}")
    config = read_json(folder / "config.json")
    if not any((folder / f).is_file() for f in ("tokenizer.json", "vocab.json", "tokenizer.model")):
        raise BadInput(f"{folder}: no tokenizer beside config.json; copy the base model's tokenizer files there")
    settings = folder / "tokenizer_config.json"
    if not (folder / "chat_template.jinja").is_file() and not (settings.is_file() and read_json(settings).get("chat_template")):
        raise BadInput(f"{folder}: its tokenizer has no chat template, which verl builds the rows with; train an instruct model")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        if not Path(name).is_dir():
            return "warn", f"{name}: only its small files are cached, every process will download the weights from the Hugging Face Hub"
        raise BadInput(f"{folder}: no weights (*.safetensors); download the model again")
    parameters = count_parameters(folder)
    size = f", {parameters / 1e6:,.1f}M parameters" if parameters else ""
    return "pass", f"{', '.join(config.get('architectures') or ['?'])}{size} in {folder}"


def model_folder(name: str) -> Path | None:
    """The local folder of a model: a path, or the snapshot of a Hub name in the Hugging Face cache."""
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") != 1 or name.startswith(("/", ".")):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def count_parameters(folder: Path) -> int:
    """Parameters by the headers of the safetensors files, 0 where there are none."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as f:
            header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        for name, tensor in header.items():
            if name != "__metadata__":
                count = 1
                for n in tensor["shape"]:
                    count *= n
                total += count
    return total


def precision(job: Job) -> tuple[str, str]:
    """Contract 3: with bf16 masters and a small learning rate most updates round away."""
    dtype = job.config["model.fsdp_config.model_dtype"]
    if dtype in ("bf16", "bfloat16"):
        return "warn", "bf16 master weights: at a small learning rate most updates round to nothing; MODEL_DTYPE=fp32 keeps them"
    return "pass", f"{dtype} master weights and moments, {'fp32' if job.on_cpu else 'bf16'} compute"


def devices(job: Job) -> tuple[str, str]:
    if job.on_cpu:
        return "pass", f"CPU, {os.cpu_count()} cores, gloo, no flash attention"
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        listed = ""
    gpus = sum(line.startswith("GPU ") for line in listed.splitlines()) or len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    if (visible := job.environ.get("CUDA_VISIBLE_DEVICES")) is not None:  # set but empty hides every GPU
        gpus = min(gpus, len([x for x in visible.split(",") if x.strip()]))
    if gpus < job.nproc:
        raise BadInput(f"{gpus} GPUs for {job.nproc} processes; start run_sft.sh {gpus or ''} or set DEVICE=cpu")
    if importlib.util.find_spec("flash_attn") is None:
        return "warn", f"{gpus} GPUs; flash-attn is not installed, torch's sdpa stands in"
    return "pass", f"{gpus} GPUs, flash attention"


def disk(job: Job) -> tuple[str, str]:
    """Room for the checkpoints still to come: verl keeps max_ckpt_to_keep, and one more may be protected as the best.

    A checkpoint holds the weights, two moments of them, and the weights again in huggingface/, where verl 0.7.0 writes
    a tied head a second time, all in the master dtype: 16 bytes a parameter with fp32 masters.
    """
    folder = model_folder(str(job.config["model.partial_pretrain"]))
    parameters = count_parameters(folder) if folder else 0
    if not parameters:
        return "warn", "the model's size is not known before it is downloaded; a 7B checkpoint takes 122 GB with fp32 masters"
    config = read_json(folder / "config.json")
    head = config.get("vocab_size", 0) * config.get("hidden_size", 0) if config.get("tie_word_embeddings") else 0
    size = (4 * parameters + head) * (2 if job.config["model.fsdp_config.model_dtype"] in ("bf16", "bfloat16") else 4)
    keep = job.config["trainer.max_ckpt_to_keep"]
    saves = schedule_of(job).saves
    wanted = min(saves, keep + 1) if isinstance(keep, int) and keep > 0 else saves
    there = next(p for p in [job.ckpt_dir, *job.ckpt_dir.absolute().parents] if p.exists())
    present = sum(f.stat().st_size for f in job.ckpt_dir.glob("global_step_*/**/*") if f.is_file())
    need, free = max(wanted * size - present, 0), shutil.disk_usage(there).free
    each = f"{size / 1e9:,.1f} GB" if size > 1e9 else f"{size / 1e6:,.1f} MB"
    detail = f"{wanted} x {each} of checkpoints, {free / 1e9:,.0f} GB free in {there}"
    if need > free:
        raise BadInput(f"{detail}: {(need - free) / 1e9:,.0f} GB short; set MAX_CKPT_TO_KEEP lower or CKPT_DIR to a larger disk")
    return "pass", detail


def wandb(job: Job) -> tuple[str, str]:
    if "wandb" not in (job.config["trainer.logger"] or []):
        return "pass", "not asked for"
    if importlib.util.find_spec("wandb") is None:
        raise BadInput("LOGGER names wandb, which is not installed; pip install wandb, or set LOGGER=console")
    if wandb_offline(job):
        return "warn", f"no login on this machine: logged offline, `wandb sync {job.environ.get('WANDB_DIR', '.')}/wandb/offline-run-*` sends it later"
    return "pass", f"mode {job.environ.get('WANDB_MODE', 'online')}"


def wandb_offline(job: Job) -> bool:
    """Whether W&B must log offline: nobody is logged in, and it would stop to ask, in the middle of the start."""
    env = job.environ
    if "wandb" not in (job.config["trainer.logger"] or []) or env.get("WANDB_MODE") or env.get("WANDB_API_KEY"):
        return False
    host = urlparse(env.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    for path in filter(None, (env.get("NETRC"), os.path.expanduser("~/.netrc"), os.path.expanduser("~/_netrc"))):
        try:
            if netrc.netrc(path).authenticators(host):
                return False
        except (OSError, netrc.NetrcParseError):
            continue
    return True


CHECKS: dict[str, Callable[[Job], tuple[str, str]]] = {
    "batch": batch,
    "train": train_data,
    "val": val_data,
    "schedule": schedule,
    "model": model,
    "precision": precision,
    "trainer": trainer,
    "devices": devices,
    "disk": disk,
    "wandb": wandb,
}
