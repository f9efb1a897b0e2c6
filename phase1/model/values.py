"""Whether the values of a model's weights can be of a trained model: finite, and not all zero. Needs no torch.

Read as whole numbers: a floating number is not finite where all bits of its exponent are set, and zero where none but
the sign is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from phase1.files import BadInput
from phase1.model.weight_files import Stored

CHUNK = 1 << 20  # bytes read at once: few enough to be still in the CPU's cache when they are looked at
THREADS = 8


class _Bits(NamedTuple):
    """An integer dtype of the same size, the bits but the sign, and the exponent's."""

    integer: type[np.unsignedinteger]
    magnitude: int
    exponent: int


_BITS = {
    "F64": _Bits(np.uint64, 0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000),
    "F32": _Bits(np.uint32, 0x7FFFFFFF, 0x7F800000),
    "F16": _Bits(np.uint16, 0x7FFF, 0x7C00),
    "BF16": _Bits(np.uint16, 0x7FFF, 0x7F80),
}


@dataclass
class BadValues:
    """Names of tensors that hold NaN or infinity, and of those that hold zeros alone (biases may: fresh ones do)."""

    not_finite: list[str] = field(default_factory=list)
    zero: list[str] = field(default_factory=list)


def find_bad_values(tensors: Iterable[Stored]) -> BadValues:
    """Read every floating tensor once, to its end or to its first value that is not finite; a tensor a thread."""
    floating = [t for t in tensors if t.dtype in _BITS and t.start < t.stop]
    found = BadValues()
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1), "values") as threads:
        for t, largest in zip(floating, threads.map(_largest_magnitude, floating), strict=True):
            if largest >= _BITS[t.dtype].exponent:
                found.not_finite.append(t.name)
            if largest == 0 and not t.name.endswith("bias"):
                found.zero.append(t.name)
    return found


def _largest_magnitude(t: Stored) -> int:
    """The largest magnitude of a tensor as the whole number of its bits, or the first that is not finite."""
    bits, largest = _BITS[t.dtype], 0
    magnitude = bits.integer(bits.magnitude)
    block = bytearray(CHUNK)  # one for the whole tensor: fresh memory would cost more than the reading
    with open(t.path, "rb", buffering=0) as f:
        f.seek(t.start)
        at = t.start
        while at < t.stop and largest < bits.exponent:
            size = min(CHUNK, t.stop - at)
            if f.readinto(memoryview(block)[:size]) != size:
                raise BadInput(f"{t.path}: ends inside {t.name}; copy it again")
            numbers = np.frombuffer(block, bits.integer, size // bits.integer().itemsize)
            np.bitwise_and(numbers, magnitude, out=numbers)
            largest = max(largest, int(numbers.max()))
            at += size
    return largest
