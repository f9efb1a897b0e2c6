"""What a test could leave for the next one in the same sandbox: undone where that is simple, noticed where it is not.

It runs inside the sandbox and imports the standard library and its neighbours only. Processes are `bury`'s affair.
Extended attributes, ACLs and inode flags cannot be set (phase1/judge/seccomp.py).
"""

import os

from phase1.judge.inside.processes import ALONE

FOLDERS = ("/tmp", "/dev/shm") if ALONE else ()
MANY = 100  # names in a folder, beyond which a new sandbox is simpler
LATER = 10**9  # ns by which the time of access is ahead of that of change: then listing a folder does not alter it

_open, _close, _dup2, _fstat, _stat, _utime = os.open, os.close, os.dup2, os.fstat, os.stat, os.utime
_listdir, _unlink, _pread = os.listdir, os.unlink, os.pread


class Traces:
    """What is shared by the tests of a sandbox, as it was before the first of them.

    Args:
        files: the file descriptors of files in memory that the tests are given.
    """

    def __init__(self, files: tuple[int, ...]) -> None:
        self.files = files
        self.modes = [_fstat(fd).st_mode for fd in files]
        self.timed = True
        try:
            _utime(files[0], ns=(0, 0))
        except OSError:  # the files are another user's, so that no test can set their times or modes either
            self.timed = False
        self.unlocked = () if os.path.isdir("/proc/self/fd") else tuple(map(unlocked, files))
        # (path, mode, owner, group, times) each
        self.folders: list[tuple[str, int, int, int, tuple[int, int]]] = []
        for path in FOLDERS:
            try:
                seen = _stat(path)
                times = (seen.st_mtime_ns + LATER, seen.st_mtime_ns)
                _utime(path, ns=times)
            except OSError:
                continue
            self.folders.append((path, seen.st_mode, seen.st_uid, seen.st_gid, times))
        try:
            self.sockets = _open("/proc/self/net/sockstat", os.O_RDONLY) if ALONE else -1
        except OSError:
            self.sockets = -1
        # The open files that this process was started with are bubblewrap's too: a lock on them would outlive the test.
        self._files_are_new()

    def forget(self) -> None:
        """In a test's process: close what is not the program's."""
        if self.sockets >= 0:
            _close(self.sockets)

    def undone(self) -> bool:
        """After a test: empty the folders and undo what else it did. Returns False where that is not simple, so that
        the next test needs a new sandbox."""
        try:
            for path, mode, owner, group, times in self.folders:
                names = _listdir(path)
                if len(names) > MANY:
                    return False
                for name in names:
                    _unlink(f"{path}/{name}")
                seen = _stat(path)
                if (seen.st_mode, seen.st_uid, seen.st_gid) != (mode, owner, group):
                    return False
                if (seen.st_atime_ns, seen.st_mtime_ns) != times:
                    _utime(path, ns=times)
            return self._no_connection_lingers() and self._files_are_new()
        except OSError:
            return False

    def _no_connection_lingers(self) -> bool:
        """Whether no TCP connection is left: the kernel keeps a port for a minute after its process has ended."""
        if self.sockets < 0:
            return True
        words = _pread(self.sockets, 1000, 0).split()
        at = words.index(b"TCP:")
        return words[at + 2] == b"0" and words[at + 6] == b"0"  # inuse, tw

    def _files_are_new(self) -> bool:
        """Open the files anew: flags, locks, leases and owners belong to what a test inherited. Returns False where
        their modes have changed; without /proc, where the inherited ones have."""
        if self.unlocked and self.unlocked != tuple(map(unlocked, self.files)):
            return False
        for fd, mode in zip(self.files, self.modes):  # noqa: B905 an older interpreter does not know strict
            if _fstat(fd).st_mode != mode:
                return False
            if not self.unlocked:
                new = _open(f"/proc/self/fd/{fd}", os.O_RDWR)
                _dup2(new, fd)
                _close(new)
            if self.timed:
                _utime(fd, ns=(0, 0))
        return True


def unlocked(fd: int) -> tuple[int, int, int, int]:
    """Remove the locks of an open file. Returns its flags, owner, signal and lease."""
    import fcntl
    import struct

    fcntl.flock(fd, fcntl.LOCK_UN)
    fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", fcntl.F_UNLCK, 0, 0, 0, 0))  # F_OFD_SETLK
    flags, owner = fcntl.fcntl(fd, fcntl.F_GETFL), fcntl.fcntl(fd, fcntl.F_GETOWN)
    return flags, owner, fcntl.fcntl(fd, 11), fcntl.fcntl(fd, 1025)  # F_GETSIG, F_GETLEASE
