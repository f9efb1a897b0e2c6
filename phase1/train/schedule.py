"""How many rows a training run reads and how many steps it takes, counted as verl's trainers will count them."""

from __future__ import annotations

from dataclasses import dataclass

from phase1.files import BadInput, read_json
from phase1.train.job import Job, how_to_set


@dataclass(frozen=True)
class Schedule:
    """Steps as the trainer will count them: partial batches are dropped, the learning rate spans all epochs."""

    steps_per_epoch: int
    span: int  # steps of all epochs
    total_steps: int  # the last step of this run
    warmup_steps: int
    saves: int


def schedule_of(job: Job) -> Schedule:
    """Steps of the whole run. BadInput when the data are too few for one step, or for the steps asked for."""
    rows, size = used_rows(job, "train"), job.number("data.train_batch_size")
    per_epoch = rows // job.world_size // (size // job.world_size)
    if per_epoch == 0:
        raise BadInput(
            f"{job.files('data.train_files')[0]}: {rows} rows are less than one batch of {size}; "
            f"{how_to_set('data.train_batch_size')} lower"
        )
    span = per_epoch * job.number("trainer.total_epochs")
    total = span
    if job.config.get("trainer.total_training_steps") is not None:
        total = job.number("trainer.total_training_steps")
        if total > span:  # the trainer would run out of data and end without the last save
            raise BadInput(
                f"trainer.total_training_steps={total}, but all epochs together have {span} steps; set EPOCHS "
                f"to {-(-total // per_epoch)}"
            )
    for key in ("trainer.save_freq", "trainer.test_freq"):
        if job.number(key, least=-1) == 0:
            raise BadInput(f"{key}=0: the trainer divides by it; {how_to_set(key)} to -1 for only once, at the end")
    save_freq = job.config["trainer.save_freq"]
    saves = -(-total // save_freq) if save_freq > 0 else 1
    return Schedule(per_epoch, span, total, int(span * float(job.config["optim.lr_warmup_steps_ratio"])), saves)


# ------------------------------------------------------------------------------------------------------------ rows
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
            raise BadInput(
                f"{path}: not a whole Parquet file ({str(e).splitlines()[0]}); write it again with prepare_sft_data.py"
            ) from None
        schema = file.schema_arrow
        kind = schema.field("messages").type if "messages" in schema.names else None
        turns = (
            kind.value_type if kind is not None and (pa.types.is_list(kind) or pa.types.is_large_list(kind)) else None
        )
        if turns is None or not pa.types.is_struct(turns) or {"role", "content"} - {f.name for f in turns}:
            raise BadInput(
                f"{path}: needs a column messages, a list of {{role, content}} structs, has {kind or schema.names}"
            )
        rows += file.metadata.num_rows
    return rows


def used_rows(job: Job, side: str) -> int:
    """Rows that verl takes of the train or val files: all, or the first `{side}_max_samples`."""
    rows, most = parquet_rows(job, f"data.{side}_files"), job.config.get(f"data.{side}_max_samples")
    return min(rows, most) if isinstance(most, int) and most > 0 else rows


@dataclass(frozen=True)
class RowLengths:
    """Tokens of the training rows, as prepare_sft_data.py measured them."""

    mean: float
    longest: int


def row_lengths(job: Job) -> RowLengths | None:
    """From the report beside the training file; None where there is none, or it was written without --model."""
    report = job.files("data.train_files")[0].with_name("sft_report.json")
    found = read_json(report) if report.is_file() else {}
    if not found.get("tokens"):
        return None
    mean = (1 - found["padding_share_at_max_length"]) * found["stamp"]["arguments"]["max_length"]
    return RowLengths(mean, found["tokens"]["p100"])
