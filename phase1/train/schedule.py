"""How many rows a training run reads and how many steps it takes, counted as verl's trainers will count them."""

from __future__ import annotations

from dataclasses import dataclass

from phase1.contract.state.sft_report import NAME, SftReport
from phase1.files import BadInput
from phase1.train.job import Job, how_to_set


@dataclass(frozen=True)
class Schedule:
    """Steps as the trainer will count them: a last batch that is not full is dropped.

    Attributes:
        span: steps of all epochs, over which the learning rate falls.
        total_steps: the last step of this run.
        saves: how many checkpoints it writes.
    """

    steps_per_epoch: int
    span: int
    total_steps: int
    warmup_steps: int
    saves: int


def schedule_of(job: Job) -> Schedule:
    """Steps of the whole run.

    Raises:
        BadInput: the data are too few for one step, or for the steps asked for; or a setting is no such number.
    """
    rows, size = used_rows(job, "train"), job.number("data.train_batch_size")
    per_epoch = rows // job.data_ranks // (size // job.data_ranks)
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
    save_freq = job.number("trainer.save_freq", least=-1)
    return Schedule(
        steps_per_epoch=per_epoch,
        span=span,
        total_steps=total,
        warmup_steps=int(span * float(job.text("optim.lr_warmup_steps_ratio"))),
        saves=-(-total // save_freq) if save_freq > 0 else 1,
    )


# ------------------------------------------------------------------------------------------------------------ rows
def parquet_rows(job: Job, key: str) -> int:
    """Rows of a config key's Parquet files.

    Raises:
        BadInput: one is missing, broken or not in the form that verl reads.
    """
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
        column = schema.field("messages").type if "messages" in schema.names else None
        turn = None
        if column is not None and (pa.types.is_list(column) or pa.types.is_large_list(column)):
            turn = column.value_type
        if turn is None or not pa.types.is_struct(turn) or not {"role", "content"} <= {f.name for f in turn}:
            raise BadInput(
                f"{path}: needs a column messages, a list of {{role, content}} structs, has {column or schema.names}"
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
    path = job.files("data.train_files")[0].with_name(NAME)
    report = SftReport.read(path) if path.is_file() else SftReport()
    if not report.tokens or report.padding_share_at_max_length is None:
        return None
    max_length = float(str(report.stamp.arguments["max_length"]))
    return RowLengths((1 - report.padding_share_at_max_length) * max_length, round(report.tokens["p100"]))
