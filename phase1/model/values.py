"""Whether the values of a model's weights can be of a trained model: finite, and not all zero. Needs no torch.

Read as whole numbers: a floating number is not finite where all bits of its exponent are set, and zero where none but
the sign is. That takes a fifth of a second a GB from memory, whatever the dtype.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from phase1.model.weight_files import Stored

CHUNK = 4 << 20  # bytes read at once


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
    """Read every floating tensor once, to its end or to its first value that is not finite."""
    found = BadValues()
    for t in tensors:
        if t.dtype not in _BITS or t.start == t.stop:
            continue
        exponent, largest = _BITS[t.dtype].exponent, 0
        for magnitude in _largest_magnitudes(t):
            largest = max(largest, magnitude)
            if largest >= exponent:
                found.not_finite.append(t.name)
                break
        if largest == 0 and not t.name.endswith(".bias"):
            found.zero.append(t.name)
    return found


def _largest_magnitudes(t: Stored) -> Iterator[int]:
    """The largest magnitude of each chunk of a tensor, as the whole number of its bits."""
    bits = _BITS[t.dtype]
    with open(t.path, "rb") as f:
        f.seek(t.start)
        for at in range(t.start, t.stop, CHUNK):
            numbers = np.frombuffer(f.read(min(CHUNK, t.stop - at)), bits.integer)
            yield int((numbers & bits.integer(bits.magnitude)).max())
