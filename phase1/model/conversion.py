"""Writes a converted model to its place: whole or not at all, and only where every check holds."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from pydantic import JsonValue
from tqdm import tqdm

from phase1.files import BadInput, replacing, write_json
from phase1.machine import amount
from phase1.model.tensors import Source, first_difference, read_safetensors
from phase1.model.writing import stored_bytes, write_safetensors

T = TypeVar("T")


class InBackground(Generic[T]):
    """Work that runs beside the writing. What it raises comes out of `result()`, or of `raise_if_failed()` once it has
    failed."""

    def __init__(self, work: Callable[[], T]):
        self._future: Future[T] = Future()
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def _run(self, work: Callable[[], T]) -> None:
        try:
            self._future.set_result(work())
        except BaseException as e:
            self._future.set_exception(e)

    def result(self) -> T:
        """What the work returned; waits for it."""
        return self._future.result()

    def raise_if_failed(self) -> None:
        """Raise what the work has raised; does not wait for it."""
        if self._future.done():
            self._future.result()


class Check(Protocol):
    """Something that may fail while the model is being written: `InBackground` of any type."""

    def result(self) -> object: ...
    def raise_if_failed(self) -> None: ...


@dataclass(frozen=True)
class Conversion:
    """What is written: `tensors` as `dtype`, `config`, and copies of `small_files` (by name).

    `record` goes into conversion.json; `max_file_bytes` limits the weights of one file.
    """

    output: Path
    tensors: Sequence[Source]
    dtype: torch.dtype
    config: dict[str, JsonValue]
    small_files: Mapping[str, Path]
    max_file_bytes: int
    record: dict[str, JsonValue]


class Different(Exception):
    """The written model differs from what it was made of; `lines` say where."""

    def __init__(self, lines: list[str]):
        super().__init__("\n".join(lines))
        self.lines = lines


def publish(c: Conversion, checks: Sequence[Check], verify: Callable[[dict[str, Source]], list[str]] | None) -> None:
    """Write the model, wait for the checks, verify it, put it in its place. Where one of these fails, nothing is there.

    Args:
        c: what to write.
        checks: run beside the writing, which the first that fails ends.
        verify: given the tensors as they were written, returns a line for each difference; None: not verified.

    Raises:
        BadInput: the disk has no room, or a check failed.
        Different: `verify` found differences.
    """
    size = stored_bytes(c.tensors, c.dtype)
    need_room(c.output.parent, size)
    with replacing(c.output) as temp:
        temp.mkdir()
        for name, path in c.small_files.items():
            shutil.copyfile(path, temp / name)
        write_json(temp / "config.json", c.config)
        with tqdm(total=size, unit="B", unit_scale=True, desc="weights", disable=None) as bar:

            def progress(n: int) -> None:  # called by the writing threads
                bar.update(n)
                for check in checks:
                    check.raise_if_failed()

            write_safetensors(temp, c.tensors, dtype=c.dtype, max_file_bytes=c.max_file_bytes, progress=progress)
        for check in checks:
            check.result()
        write_json(temp / "conversion.json", c.record)
        if verify and (lines := verify(read_safetensors(temp))):
            raise Different(lines)


def need_room(folder: Path, size: int) -> None:
    """Make `folder`, and check that `size` bytes of weights and what lies beside them fit there.

    Raises:
        BadInput: they do not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(folder).free) < (needed := size * 1.01 + (64 << 20)):
        raise BadInput(f"{folder}: {amount(free)} free, the model needs {amount(needed)}; make room there")


def differences(
    written: Mapping[str, Source],
    expected: Sequence[Source],
    sources: Mapping[str, Source],
    saved_beside: Path,
    dtype: torch.dtype,
) -> list[str]:
    """A line for every written tensor that differs, bit for bit, from its source cast to `dtype`.

    Args:
        written: the tensors as they were read back.
        expected: what should have been written.
        sources: all tensors of the shards.
        saved_beside: verl's own huggingface/ of the same step; also compared with, where its weights can be read.
        dtype: the one that was written.
    """
    try:
        saved = read_safetensors(saved_beside) if saved_beside.is_dir() else {}
    except BadInput as e:  # broken, which may be why the shards are converted
        print(f"warning: compared with the shards alone, since {e}", file=sys.stderr)
        saved = {}
    found = [f"{name}: not written" for name in sorted({s.name for s in expected} - set(written))]
    for name, mine in tqdm(written.items(), unit=" tensors", desc="verify", disable=None):
        for label, others in (("the shards", sources), ("huggingface/", saved)):
            if (other := others.get(name)) and (difference := first_difference(mine, other, dtype)):
                found.append(f"{difference} from {label}")
    if saved:
        found += [f"{name}: huggingface/ holds it, the shards do not" for name in sorted(set(saved) - set(sources))]
    return found
