"""Preflight: what is in the Parquet files and in the model's folder."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

from phase1.files import BadInput, read_json
from phase1.prompts import SYSTEM_PROMPT
from phase1.sft_job import Job, how_to_set
from phase1.sft_schedule import row_lengths, used_rows


def train_data(job: Job) -> tuple[str, str]:
    """Rows, and by prepare_sft_data.py's report whether the longest fits: truncation cuts the end off an answer in silence."""
    rows = f"{used_rows(job, 'train')} rows in {', '.join(map(str, job.files('data.train_files')))}"
    lengths = row_lengths(job)
    if lengths is None:
        return "warn", f"{rows}; their lengths are not known, prepare_sft_data.py --model measures them"
    if lengths.longest > job.number("data.max_length"):
        return "warn", f"{rows}; the longest has {lengths.longest} tokens and is cut to {job.config['data.max_length']}, its end lost; set MAX_LENGTH higher"
    return "pass", f"{rows}, the longest of {lengths.longest} tokens"


def val_data(job: Job) -> tuple[str, str]:
    """Too few rows for one batch on each rank: the fsdp trainer crashes at its last step, before the last save, and the
    engine trainer logs NaN as val/loss. Their validation batch is the micro batch, and the whole batch."""
    rows = used_rows(job, "val")
    engine = job.trainer == "engine"
    need = job.number("data.train_batch_size") if engine else job.world_size * job.number("data.micro_batch_size_per_gpu")
    path = job.files("data.val_files")[0]
    if rows < need:
        what, knob = ("one batch", "TRAIN_BATCH_SIZE") if engine else ("one micro batch a process", "MICRO_BATCH_SIZE")
        raise BadInput(f"{path}: {rows} rows, but validation needs {need} ({what}); prepare with a larger --val_ratio or set {knob} lower")
    return "pass", f"{rows} rows in {path}, {rows // job.world_size // (need // job.world_size) * need} of them used"


def messages(job: Job) -> tuple[str, str]:
    """Rows that would train nothing or the wrong thing, and whether the prompts are those the evaluation asks with."""
    import pyarrow.parquet as pq

    used_rows(job, "train")  # refuses what is no such file
    counted = foreign = bare = 0
    for path in job.files("data.train_files"):
        number = 0
        for batch in pq.ParquetFile(path).iter_batches(columns=["messages"]):
            for row in batch.column(0).to_pylist():
                number += 1
                roles = [turn["role"] for turn in row or []]
                if not roles or roles[0] == "assistant" or roles[-1] != "assistant":
                    raise BadInput(f"{path}, row {number}: turns {roles}; verl trains on what it was not asked to; start with system or user, end with assistant")
                if not all(isinstance(turn["content"], str) for turn in row):
                    raise BadInput(f"{path}, row {number}: a turn's content is not text; verl ends in a TypeError; prepare the data again")
                if not row[-1]["content"].strip():
                    raise BadInput(f"{path}, row {number}: an empty answer, nothing to learn; drop the row")
                foreign += row[0] != {"role": "system", "content": SYSTEM_PROMPT}
                bare += not row[-1]["content"].lstrip().startswith("<code>")
                counted += 1
    if foreign or bare:
        return "warn", f"{foreign} of {counted} rows without the evaluation's system prompt, {bare} answers without <code>: the evaluation asks for another form"
    return "pass", f"{counted} rows with the evaluation's system prompt and answer form"


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
