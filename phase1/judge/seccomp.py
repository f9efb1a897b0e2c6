"""The system calls that a program in the sandbox is denied, by name, and the filter that denies them.

They are calls that a contest program has no use for: attack surface of the kernel, memory or processes that no limit
bounds (memfd and System V segments escape RLIMIT_AS), what lasts from test to test (extended attributes), and whatever
reaches another process, since the process that runs the tests has the program's uid. The numbers are the kernel's:
arch/x86/entry/syscalls/syscall_64.tbl, and include/uapi/asm-generic/unistd.h for AArch64.

The filter binds the fork-server too. Of what is listed it uses kill, with -1 and with ids of children, and
prlimit64 with 0, which is setrlimit.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple


class Numbers(NamedTuple):
    """A system call's number on each architecture; None where that has no such call."""

    x86_64: int
    aarch64: int | None


class Check(NamedTuple):
    """A condition on an argument of a system call. The kernel takes these arguments as 32 bits, and so does this."""

    argument: int  # from 0 on
    values: tuple[int, ...]
    allowed: bool  # whether only these values pass, or all others do
    answer: int  # of the filter, where they do not


# linux/seccomp.h; the low bits are the errno: EPERM 1, ENOSYS 38, EAFNOSUPPORT 97. With errno 0 a call returns 0 and
# nothing happens, which is what a signal to PID 1 always did.
ALLOW, KILL, EPERM, ENOSYS, EAFNOSUPPORT, NOTHING = 0x7FFF0000, 0x80000000, 0x50001, 0x50026, 0x50061, 0x50000
ONESELF = (Check(0, (0,), True, EPERM),)  # 0 means the caller; its id in figures is refused too
NOT_PID_1 = (Check(0, (1,), False, NOTHING),)
FAMILIES = (Check(0, (1, 2, 10), True, EAFNOSUPPORT),)  # AF_UNIX, AF_INET and AF_INET6, which a namespace confines

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
    # another process
    "process_madvise": Numbers(440, 440),
    "process_mrelease": Numbers(448, 448),
    "move_pages": Numbers(279, 239),
    "migrate_pages": Numbers(256, 238),
    "pidfd_open": Numbers(434, 434),
    "pidfd_send_signal": Numbers(424, 424),
    "sched_setattr": Numbers(314, 274),
    # what would last from one test to the next
    "setxattr": Numbers(188, 5),
    "lsetxattr": Numbers(189, 6),
    "fsetxattr": Numbers(190, 7),
    "setxattrat": Numbers(463, 463),
    "file_setattr": Numbers(469, 469),
    "flock": Numbers(73, 32),
    # the host
    "statmount": Numbers(457, 457),
    "listmount": Numbers(458, 458),
    "fspick": Numbers(433, 433),
    "open_tree_attr": Numbers(467, 467),
    "fanotify_init": Numbers(300, 262),
    "quotactl": Numbers(179, 60),
    "quotactl_fd": Numbers(443, 443),
    "syslog": Numbers(103, 116),
    "acct": Numbers(163, 89),
    "settimeofday": Numbers(164, 170),
    "clock_settime": Numbers(227, 112),
    "adjtimex": Numbers(159, 171),
    "clock_adjtime": Numbers(305, 266),
    "sethostname": Numbers(170, 161),
    "setdomainname": Numbers(171, 162),
    "vhangup": Numbers(153, 58),
    # rarely used, and often broken
    "io_setup": Numbers(206, 0),
    "vmsplice": Numbers(278, 75),
    "lookup_dcookie": Numbers(212, 18),
    "nfsservctl": Numbers(180, 42),
    "modify_ldt": Numbers(154, None),
    "uselib": Numbers(134, None),
    "iopl": Numbers(172, None),
    "ioperm": Numbers(173, None),
}
CHECKED: dict[str, tuple[Numbers, tuple[Check, ...]]] = {
    "prlimit64": (Numbers(302, 261), ONESELF),
    "sched_setparam": (Numbers(142, 118), ONESELF),
    "sched_setaffinity": (Numbers(203, 122), ONESELF),
    # SCHED_OTHER and SCHED_BATCH: with SCHED_IDLE a program would wait for ever on a busy machine.
    "sched_setscheduler": (Numbers(144, 119), (*ONESELF, Check(1, (0, 3), True, EPERM))),
    "setpriority": (Numbers(141, 140), (Check(0, (0,), True, EPERM), Check(1, (0,), True, EPERM))),  # PRIO_PROCESS
    "ioprio_set": (Numbers(251, 30), (Check(0, (1,), True, EPERM), Check(1, (0,), True, EPERM))),  # IOPRIO_WHO_PROCESS
    "kill": (Numbers(62, 129), NOT_PID_1),
    "tkill": (Numbers(200, 130), NOT_PID_1),
    "tgkill": (Numbers(234, 131), (*NOT_PID_1, Check(1, (1,), False, NOTHING))),
    "rt_sigqueueinfo": (Numbers(129, 138), NOT_PID_1),
    "rt_tgsigqueueinfo": (Numbers(297, 240), (*NOT_PID_1, Check(1, (1,), False, NOTHING))),
    # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_OFD_SETLK, F_OFD_SETLKW, F_SETLEASE, F_NOTIFY, F_SET_RW_HINT,
    # F_SET_FILE_RW_HINT, F_SETDELEG: what would stay with a file that the tests share
    "fcntl": (Numbers(72, 25), (Check(1, (8, 10, 15, 37, 38, 1024, 1026, 1036, 1038, 1040), False, EPERM),)),
    # FS_IOC_SETFLAGS, FS_IOC32_SETFLAGS and FS_IOC_FSSETXATTR: flags of a shared file would last
    "ioctl": (Numbers(16, 29), (Check(1, (0x40086602, 0x40046602, 0x401C5820), False, EPERM),)),
    "personality": (Numbers(135, 92), (Check(0, (0, 0xFFFFFFFF), True, EPERM),)),  # the usual one, and asking
    "socket": (Numbers(41, 198), FAMILIES),
    "socketpair": (Numbers(53, 199), FAMILIES),
}
CLONE, CLONE3 = (56, 220), (435, 435)
AUDIT_ARCH = (0xC000003E, 0xC00000B7)  # linux/audit.h
X32_BIT = 0x40000000  # numbers of the x32 ABI, which would pass by the list
NAMESPACES = 0x7E020000  # clone's CLONE_NEW* flags (linux/sched.h)
# linux/bpf_common.h: load a word; jump if equal, if greater or equal, if any bit is set; return
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


def _op(code: int, jump_true: int, jump_false: int, value: int) -> bytes:
    """An instruction; the jumps count the instructions to skip."""
    return struct.pack("<HBBI", code, jump_true, jump_false, value)


def _checked(number: int, checks: tuple[Check, ...]) -> list[bytes]:
    """Instructions that decide on a system call by its arguments, and leave all others to what follows."""
    block = []
    for argument, values, allowed, answer in checks:
        block.append(_op(LOAD, 0, 0, 16 + 8 * argument))  # the low half; both architectures are little-endian
        if allowed:
            block += [_op(EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
            block.append(_op(RETURN, 0, 0, answer))
        else:
            for value in values:
                block += [_op(EQUAL, 0, 1, value), _op(RETURN, 0, 0, answer)]
    block.append(_op(RETURN, 0, 0, ALLOW))
    return [_op(EQUAL, 0, len(block), number), *block]


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
    deny = _op(RETURN, 0, 0, EPERM)
    program = [_op(LOAD, 0, 0, 4), _op(EQUAL, 1, 0, AUDIT_ARCH[here]), _op(RETURN, 0, 0, KILL), _op(LOAD, 0, 0, 0)]
    if machine == "x86_64":
        program += [_op(AT_LEAST, 0, 1, X32_BIT), _op(RETURN, 0, 0, ENOSYS)]
    # clone3's flags lie behind a pointer, which a filter cannot follow; glibc falls back to clone.
    program += [_op(EQUAL, 0, 1, CLONE3[here]), _op(RETURN, 0, 0, ENOSYS)]
    program += [_op(EQUAL, 0, 4, CLONE[here]), _op(LOAD, 0, 0, 16), _op(ANY_BIT, 0, 1, NAMESPACES), deny]
    program += [_op(RETURN, 0, 0, ALLOW)]
    for numbers, checks in CHECKED.values():
        if (number := numbers[here]) is not None:
            program += _checked(number, checks)
    for numbers in DENIED.values():
        if (number := numbers[here]) is not None:
            program += [_op(EQUAL, 0, 1, number), deny]
    return b"".join([*program, _op(RETURN, 0, 0, ALLOW)])
