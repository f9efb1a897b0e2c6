"""What the kernel counts for the sandbox's own cgroup, inside the sandbox: CPU time of whatever ran in it, also of what
nobody waited for. It imports the standard library only."""

import os
import time


def cpu_seconds(account: bytes) -> float:
    """CPU seconds, of the text of `cpuacct.usage` (version 1) or of `cpu.stat` (version 2). Raises ValueError where
    it is neither."""
    for line in account.splitlines():
        name, _, value = line.partition(b" ")
        if name == b"usage_usec":
            return int(value) / 1e6
    return int(account) / 1e9


def process_cpu(pid: int) -> float:
    """CPU seconds of a process: the clock that clock_getcpuclockid(3) names, which anyone may read."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:  # it has ended
        return 0.0


class Group:
    """The cgroup of this process. `fd`: its account, which nobody but this process has."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        os.set_inheritable(fd, False)

    def cpu(self) -> float:
        """CPU seconds of all that ran in it but this process; from a point of its own, so only differences count."""
        own = time.process_time()  # first, for with this question the kernel brings the group's account up to date
        return cpu_seconds(os.pread(self.fd, 4096, 0)) - own
