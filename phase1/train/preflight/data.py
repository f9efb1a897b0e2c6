"""Preflight: what is in the Parquet files and in the model's folder."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

from phase1.contract.prompts import SYSTEM_PROMPT
from phase1.files import BadInput, read_json
from phase1.model.tokenizer import TOKENIZER_FILES, load_fast_tokenizer
from phase1.train.job import Job, how_to_set
from phase1.train.schedule import row_lengths, used_rows


def train_data(job: Job) -> tuple[str, str]:
    """Rows, and whether the longest fits, by prepare_sft_data.py's report or else by counting: truncation cuts the end
    off an answer in silence, or all of it, and then the row trains nothing."""
    rows = f"{used_rows(job, 'train')} rows in {', '.join(map(str, job.files('data.train_files')))}"
    lengths, most = row_lengths(job), job.number("data.max_length")
    if lengths and lengths.longest <= most:
        return "pass", f"{rows}, the longest of {lengths.longest} tokens"
    counted = cut_rows(job, most)
    if counted is None:
        return (
            "warn",
            (
                f"{rows}; whether they fit into {most} tokens is not known: the model's tokenizer.json is not on "
                "this machine"
            ),
        )
    cut, empty = counted
    if cut:
        lost = f", {empty} of them before the answer begins, which train nothing" if empty else ""
        return (
            "warn",
            (
                f"{rows}; {cut} have more than {most} tokens and lose their end{lost}; set MAX_LENGTH higher, or "
                f"prepare with --max_length {most}"
            ),
        )
    return "pass", f"{rows}, none of more than {most} tokens"


def cut_rows(job: Job, most: int) -> tuple[int, int] | None:
    """(rows of more than `most` tokens, those of them without a token of their answer). None without the model's
    tokenizer.

    ChatML puts about five tokens around a turn. A text has no more tokens than bytes, so few rows need to be tokenised,
    and those on all cores: rows that prepare_sft_data.py has measured do not come here.
    """
    import pyarrow.parquet as pq

    tokenizer, cut, empty = None, 0, 0
    for path in job.files("data.train_files"):
        for batch in pq.ParquetFile(path).iter_batches(columns=["messages"]):
            found = ([str(turn["content"]) for turn in row or []] for row in batch.column(0).to_pylist())
            rows = [texts for texts in found if sum(len(text.encode()) + 5 for text in texts) > most]
            if not rows:
                continue
            if tokenizer is None:
                folder = model_folder(str(job.config["model.partial_pretrain"]))
                if folder is None or not (folder / "tokenizer.json").is_file():
                    return None
                tokenizer = load_fast_tokenizer(folder)
            counted = iter(
                tokenizer.encode_batch_fast([text for texts in rows for text in texts], add_special_tokens=False)
            )
            for texts in rows:
                sizes = [len(next(counted)) + 5 for _ in texts]
                cut += sum(sizes) > most
                empty += sum(sizes[:-1]) + 3 >= most
    return cut, empty


def val_data(job: Job) -> tuple[str, str]:
    """Too few rows for one batch on each rank: the fsdp trainer crashes at its last step, before the last save, and the
    engine trainer logs NaN as val/loss. Their validation batch is the micro batch, and the whole batch."""
    rows = used_rows(job, "val")
    engine = job.trainer == "engine"
    need = (
        job.number("data.train_batch_size") if engine else job.world_size * job.number("data.micro_batch_size_per_gpu")
    )
    path = job.files("data.val_files")[0]
    if rows < need:
        what, knob = ("one batch", "TRAIN_BATCH_SIZE") if engine else ("one micro batch a process", "MICRO_BATCH_SIZE")
        raise BadInput(
            f"{path}: {rows} rows, but validation needs {need} ({what}); prepare with a larger --val_ratio or "
            f"set {knob} lower"
        )
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
                    raise BadInput(
                        f"{path}, row {number}: turns {roles}; verl trains on what it was not asked to; start "
                        "with system or user, end with assistant"
                    )
                if not all(isinstance(turn["content"], str) for turn in row):
                    raise BadInput(
                        f"{path}, row {number}: a turn's content is not text; verl ends in a TypeError; "
                        "prepare the data again"
                    )
                if not row[-1]["content"].strip():
                    raise BadInput(f"{path}, row {number}: an empty answer, nothing to learn; drop the row")
                foreign += row[0] != {"role": "system", "content": SYSTEM_PROMPT}
                bare += not row[-1]["content"].lstrip().startswith("<code>")
                counted += 1
    if foreign or bare:
        return (
            "warn",
            (
                f"{foreign} of {counted} rows without the evaluation's system prompt, {bare} answers without "
                "<code>: the evaluation asks for another form"
            ),
        )
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
    if not any((folder / f).is_file() for f in TOKENIZER_FILES):
        raise BadInput(f"{folder}: no tokenizer beside config.json; copy the base model's tokenizer files there")
    if (folder / "tokenizer.json").is_file():
        load_fast_tokenizer(folder)
    settings = folder / "tokenizer_config.json"
    if not (folder / "chat_template.jinja").is_file() and not (
        settings.is_file() and read_json(settings).get("chat_template")
    ):
        raise BadInput(
            f"{folder}: its tokenizer has no chat template, which verl builds the rows with; train an instruct model"
        )
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        if not Path(name).is_dir():
            return (
                "warn",
                (
                    f"{name}: only its small files are cached, every process will download the weights from the "
                    "Hugging Face Hub"
                ),
            )
        raise BadInput(f"{folder}: no weights (*.safetensors); download the model again")
    index = folder / "model.safetensors.index.json"
    if index.is_file() and (
        missing := sorted({f for f in read_json(index).get("weight_map", {}).values() if not (folder / f).is_file()})
    ):
        raise BadInput(f"{folder}: lacks {', '.join(missing)}, which {index.name} names; download the model again")
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
    """Parameters by the headers of the safetensors files, 0 where there are none. BadInput for a file that is not
    whole."""
    total = 0
    for path in folder.glob("*.safetensors"):
        size = path.stat().st_size
        try:
            with open(path, "rb") as f:
                length = struct.unpack("<Q", f.read(8))[0]
                header = json.loads(f.read(length)) if length < size else {}
            end = 8 + length + max(t["data_offsets"][1] for name, t in header.items() if name != "__metadata__")
        except (struct.error, ValueError, KeyError, TypeError, AttributeError):
            end = -1
        if end != size:
            raise BadInput(
                f"{path}: not a whole safetensors file (a pointer of Git LFS, or a download cut short?); "
                "download the model again"
            )
        for name, tensor in header.items():
            if name != "__metadata__":
                count = 1
                for n in tensor["shape"]:
                    count *= n
                total += count
    return total
