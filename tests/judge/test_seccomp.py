"""phase1/judge/seccomp.py: the numbers are the kernel's, and the filter answers as it should on each architecture."""

from __future__ import annotations

import ctypes
import re
import struct
from pathlib import Path

import pytest

from phase1.judge.seccomp import (
    ALLOW,
    AUDIT_ARCH,
    CHECKED,
    CLONE,
    CLONE3,
    DENIED,
    EAFNOSUPPORT,
    ENOSYS,
    EPERM,
    KILL,
    NOTHING,
    Numbers,
    seccomp_filter,
)

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
ALL = {**DENIED, **{name: numbers for name, (numbers, _) in CHECKED.items()}, "clone": CLONE, "clone3": CLONE3}
# Younger than the headers and the library of a distribution may be; a call has one number on all architectures by now.
YOUNG = {"statmount": 457, "listmount": 458, "setxattrat": 463, "open_tree_attr": 467, "file_setattr": 469}
PID = 4711


def ours(machine):
    here = Numbers._fields.index(machine)
    return {name: numbers[here] for name, numbers in ALL.items() if numbers[here] is not None}


@pytest.mark.parametrize("machine", Numbers._fields)
def test_every_number_is_the_kernel_headers(machine):
    header = HEADERS[machine]
    if not header.is_file():
        pytest.skip(f"{header} is not installed (apt-get install linux-libc-dev)")
    kernel = {
        name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    }
    assert ours(machine) == {name: {**YOUNG, **kernel}[name] for name in ours(machine)}


@pytest.mark.parametrize("machine", Numbers._fields)
def test_every_number_is_that_of_libseccomp(machine):
    try:
        resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name_arch
    except OSError:
        pytest.skip("libseccomp is not installed (apt-get install libseccomp2)")
    resolve.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    audit = AUDIT_ARCH[Numbers._fields.index(machine)]
    known = {name: resolve(audit, name.encode()) for name in ours(machine)}
    assert ours(machine) == {name: YOUNG.get(name) if number == -1 else number for name, number in known.items()}
    without = {name for name, numbers in ALL.items() if numbers[Numbers._fields.index(machine)] is None}
    assert all(resolve(audit, name.encode()) < 0 for name in without)


def answer(machine, name, *args, arch=None):
    """What the kernel's virtual machine would return for a call; a few lines of its definition."""
    here = Numbers._fields.index(machine)
    number = name if isinstance(name, int) else ALL[name][here]
    words = [number, arch or AUDIT_ARCH[here], 0, 0]
    for arg in (*args, 0, 0, 0, 0, 0, 0)[:6]:
        words += [arg & 0xFFFFFFFF, arg >> 32 & 0xFFFFFFFF]
    program = [*struct.iter_unpack("<HBBI", seccomp_filter(machine))]
    assert len(program) < 4096  # BPF_MAXINSNS
    at = loaded = 0
    while True:
        code, if_true, if_false, value = program[at]
        if code == 0x06:
            return value
        if code == 0x20:
            loaded = words[value // 4]
            at += 1
        else:
            holds = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[code]
            at += 1 + (if_true if holds else if_false)


@pytest.mark.parametrize("machine", Numbers._fields)
@pytest.mark.parametrize("name", DENIED)
def test_a_denied_call_is_denied_whatever_its_arguments(machine, name):
    if DENIED[name][Numbers._fields.index(machine)] is not None:
        assert answer(machine, name) == answer(machine, name, *[1] * 6) == EPERM


@pytest.mark.parametrize("machine", Numbers._fields)
@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        *((name, (0,), ALLOW) for name in ("prlimit64", "sched_setparam", "sched_setaffinity")),
        *((name, (pid,), EPERM) for name in ("prlimit64", "sched_setparam", "sched_setaffinity") for pid in (1, PID)),
        ("prlimit64", (1 << 32,), ALLOW),  # the kernel takes 32 bits of a process id
        ("prlimit64", ((1 << 32) + 1,), EPERM),
        ("sched_setscheduler", (0, 0), ALLOW),
        ("sched_setscheduler", (0, 3), ALLOW),
        ("sched_setscheduler", (0, 5), EPERM),
        ("sched_setscheduler", (1, 0), EPERM),
        ("setpriority", (0, 0, 19), ALLOW),
        ("setpriority", (0, 1, 19), EPERM),
        ("setpriority", (1, 0, 19), EPERM),  # the group, in which PID 1 is
        ("setpriority", (2, 0, 19), EPERM),
        ("ioprio_set", (1, 0, 0), ALLOW),
        ("ioprio_set", (1, 1, 0), EPERM),
        ("ioprio_set", (2, 0, 0), EPERM),
        *((name, (PID, PID), ALLOW) for name in ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")),
        *((name, (1, 1), NOTHING) for name in ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")),
        ("tgkill", (-1, 1), NOTHING),
        ("kill", (-1, 9), ALLOW),  # the fork-server's, and to PID 1 it never goes
        ("kill", (0, 9), ALLOW),
        *(("fcntl", (0, command), ALLOW) for command in (0, 1, 2, 3, 4, 6, 1030)),
        *(("fcntl", (0, command), EPERM) for command in (8, 10, 15, 37, 38, 1024)),
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x40086602), EPERM),
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (0x0040000,), EPERM),  # ADDR_NO_RANDOMIZE
        *((name, (family,), ALLOW) for name in ("socket", "socketpair") for family in (1, 2, 10)),
        *(
            (name, (family,), EAFNOSUPPORT)
            for name in ("socket", "socketpair")
            for family in (0, 3, 9, 16, 17, 21, 29, 31, 38, 40, 44, 45, 255)
        ),
        ("clone", (0x1200011,), ALLOW),
        ("clone", (0x10000011,), EPERM),
        ("clone3", (), ENOSYS),
        (5000, (), ALLOW),
    ],
)
def test_a_call_is_decided_by_its_arguments(machine, name, args, expected):
    assert answer(machine, name, *args) == expected


def test_another_architectures_calls_end_the_program():
    assert answer("x86_64", "kill", PID, arch=0x40000003) == KILL  # i386, by int 0x80
    assert answer("x86_64", 0x40000000 + 39) == ENOSYS  # x32


def test_an_architecture_without_numbers_has_no_filter():
    assert seccomp_filter("riscv64") is None
