"""The system calls that a program in the sandbox is denied, by name, and the filter that denies them.

They are calls that a contest program has no use for: attack surface of the kernel, and memory or processes that no
limit bounds (memfd and System V segments escape RLIMIT_AS). The numbers are the kernel's: arch/x86/entry/syscalls/
syscall_64.tbl, and include/uapi/asm-generic/unistd.h for AArch64.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple


class Numbers(NamedTuple):
    """A system call's number on each architecture."""

    x86_64: int
    aarch64: int


DENIED = {
    "memfd_create": Numbers(319, 279),
    "memfd_secret": Numbers(447, 447),
    "shmget": Numbers(29, 194),
    "semget": Numbers(64, 190),
    "msgget": Numbers(68, 186),
    "mq_open": Numbers(240, 180),
    "io_uring_setup": Numbers(425, 425),
    "io_uring_enter": Numbers(426, 426),
    "io_uring_register": Numbers(427, 427),
    "pidfd_getfd": Numbers(438, 438),
    "process_vm_readv": Numbers(310, 270),
    "process_vm_writev": Numbers(311, 271),
    "kcmp": Numbers(312, 272),
    "ptrace": Numbers(101, 117),
    "unshare": Numbers(272, 97),
    "setns": Numbers(308, 268),
    "mount": Numbers(165, 40),
    "umount2": Numbers(166, 39),
    "open_tree": Numbers(428, 428),
    "move_mount": Numbers(429, 429),
    "fsopen": Numbers(430, 430),
    "fsconfig": Numbers(431, 431),
    "fsmount": Numbers(432, 432),
    "mount_setattr": Numbers(442, 442),
    "pivot_root": Numbers(155, 41),
    "bpf": Numbers(321, 280),
    "perf_event_open": Numbers(298, 241),
    "userfaultfd": Numbers(323, 282),
    "kexec_load": Numbers(246, 104),
    "kexec_file_load": Numbers(320, 294),
    "init_module": Numbers(175, 105),
    "finit_module": Numbers(313, 273),
    "delete_module": Numbers(176, 106),
    "swapon": Numbers(167, 224),
    "swapoff": Numbers(168, 225),
    "add_key": Numbers(248, 217),
    "request_key": Numbers(249, 218),
    "keyctl": Numbers(250, 219),
    "reboot": Numbers(169, 142),
    "chroot": Numbers(161, 51),
    "open_by_handle_at": Numbers(304, 265),
    "name_to_handle_at": Numbers(303, 264),
}
CLONE, CLONE3 = Numbers(56, 220), Numbers(435, 435)
AUDIT_ARCH = Numbers(0xC000003E, 0xC00000B7)  # linux/audit.h
X32_BIT = 0x40000000  # numbers of the x32 ABI, which would pass by the list
NAMESPACES = 0x7E020000  # clone's CLONE_NEW* flags (linux/sched.h)
# linux/bpf_common.h: load a word; jump if equal, if greater or equal, if any bit is set; return
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# linux/seccomp.h; the low bits are the errno: EPERM 1, ENOSYS 38
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026


def seccomp_filter(machine: str | None = None) -> bytes | None:
    """A classic BPF program for `bwrap --seccomp`.

    Args:
        machine: as `uname -m` names it; None for this one.

    Returns:
        The program; None for an architecture whose numbers are not listed.
    """
    machine = machine or os.uname().machine
    if machine not in Numbers._fields:
        return None
    here = Numbers._fields.index(machine)

    def op(code: int, jump_true: int, jump_false: int, value: int) -> bytes:
        return struct.pack("<HBBI", code, jump_true, jump_false, value)

    deny = op(RETURN, 0, 0, EPERM)
    program = [op(LOAD, 0, 0, 4), op(EQUAL, 1, 0, AUDIT_ARCH[here]), op(RETURN, 0, 0, KILL), op(LOAD, 0, 0, 0)]
    if machine == "x86_64":
        program += [op(AT_LEAST, 0, 1, X32_BIT), op(RETURN, 0, 0, ENOSYS)]
    # clone3's flags lie behind a pointer, which a filter cannot follow; glibc falls back to clone.
    program += [op(EQUAL, 0, 1, CLONE3[here]), op(RETURN, 0, 0, ENOSYS)]
    program += [op(EQUAL, 0, 4, CLONE[here]), op(LOAD, 0, 0, 16), op(ANY_BIT, 0, 1, NAMESPACES), deny]
    program += [op(RETURN, 0, 0, ALLOW)]
    for numbers in DENIED.values():
        program += [op(EQUAL, 0, 1, numbers[here]), deny]
    return b"".join([*program, op(RETURN, 0, 0, ALLOW)])
