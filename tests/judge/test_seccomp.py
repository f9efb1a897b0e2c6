"""phase1/judge/seccomp.py: the numbers are the kernel's, and the filter is what it was when the numbers stood alone."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from phase1.judge.seccomp import CLONE, CLONE3, DENIED, Numbers, seccomp_filter

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
# Of the filter that was tried against hostile programs before the calls had names.
TRIED = {
    "x86_64": "01c1377ab688946c610a434e3fb6af1d8ab47a4a1970d129f65ef74379f593f9",
    "aarch64": "1d53d0b0cbe4ad8020c4720f9d2919ca03b0df44720507a44a584d97bdbb57b1",
}


@pytest.mark.parametrize("machine", Numbers._fields)
def test_every_number_is_the_kernel_headers(machine):
    header = HEADERS[machine]
    if not header.is_file():
        pytest.skip(f"{header} is not installed (apt-get install linux-libc-dev)")
    kernel = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text()))
    ours = {name: getattr(numbers, machine) for name, numbers in {**DENIED, "clone": CLONE, "clone3": CLONE3}.items()}
    assert ours == {name: int(kernel[name]) for name in ours}


@pytest.mark.parametrize("machine", Numbers._fields)
def test_the_filter_is_the_one_that_was_tried(machine):
    program = seccomp_filter(machine)
    assert program is not None and hashlib.sha256(program).hexdigest() == TRIED[machine]


def test_an_architecture_without_numbers_has_no_filter():
    assert seccomp_filter("riscv64") is None
