"""What a test could leave for the next one in the same sandbox: undone where that is simple, noticed where it is not.

It runs inside the sandbox and imports the standard library and its neighbours only. Processes are `bury`'s affair.
What could be neither undone nor noticed cheaply is denied (phase1/judge/seccomp.py): locks, leases and owners of open
files, extended attributes, ACLs, flags of inodes. Between two tests this makes few objects, as fork_server.py explains.
"""

import os
import time

from phase1.judge.inside.processes import ALONE, libc_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FOLDERS = ("/tmp", "/dev/shm") if ALONE else ()
MANY = 100  # names in a folder, beyond which a new sandbox is simpler
LATER = 10**9  # ns by which the time of access is ahead of that of change: then listing a folder does not alter it
TICK_NS = 20_000_000  # ns; a change this short after another may bear the same time
F_GETFL, LOCK_UN = 3, 8  # linux/fcntl.h

_open, _close, _dup2, _fstat, _stat, _utime = os.open, os.close, os.dup2, os.fstat, os.stat, os.utime
_listdir, _unlink, _pread, _time_ns = os.listdir, os.unlink, os.pread, time.time_ns


class Folder:
    """A folder that tests may write to, as it was before them."""

    def __init__(self, path: str) -> None:
        self.path = path
        seen = _stat(path)
        self.owner = (seen.st_mode, seen.st_uid, seen.st_gid)
        self.times = (seen.st_mtime_ns + LATER, seen.st_mtime_ns)
        _utime(path, ns=self.times)
        # The time of its last change, which no program can set; 0 while another change could bear the same.
        self.unchanged = 0

    def emptied(self) -> bool:
        """Empty it and set its times back. Returns False where that is not simple."""
        seen = _stat(self.path)
        if seen.st_ctime_ns == self.unchanged and seen.st_atime_ns == self.times[0]:
            return True
        names = _listdir(self.path)
        if len(names) > MANY or (seen.st_mode, seen.st_uid, seen.st_gid) != self.owner:
            return False
        for name in names:
            _unlink(f"{self.path}/{name}")
        if names or (seen.st_atime_ns, seen.st_mtime_ns) != self.times:
            _utime(self.path, ns=self.times)
            self.unchanged = 0
        else:
            self.unchanged = seen.st_ctime_ns if _time_ns() > seen.st_ctime_ns + TICK_NS else 0
        return True


class Traces:
    """What is shared by the tests of a sandbox, as it was before the first of them.

    Args:
        files: the file descriptors of files in memory that the tests are given.

    Attributes:
        sockets: a file descriptor that is not for the tests; -1 for none.
    """

    def __init__(self, files: tuple[int, ...]) -> None:
        self.files = files
        self.modes = [_fstat(fd).st_mode for fd in files]
        self.owned = True
        try:
            _utime(files[0], ns=(0, 0))
        except OSError:  # the files are another user's, so that no test can set their times or modes either
            self.owned = False
        self.folders = []
        for path in FOLDERS:
            try:
                self.folders.append(Folder(path))
            except OSError:
                continue
        try:
            self.sockets = _open("/proc/self/net/sockstat", os.O_RDONLY) if ALONE else -1
        except OSError:
            self.sockets = -1
        self.fcntl, flock = libc_function("fcntl"), libc_function("flock")
        # Where locks are not denied, each test gets files that were opened anew.
        self.reopen = self.fcntl is None or flock is None or flock(files[0], LOCK_UN) == 0
        self.flags = [self.fcntl(fd, F_GETFL) for fd in files] if self.fcntl else []
        if self.reopen:
            self._reopened()  # those that this process was started with are bubblewrap's too
        # One function, made last: what lies close together costs few pages, and a fork has each page copied that is
        # touched after it.
        self.undone = self._made_undone()

    def _made_undone(self) -> "Callable[[], bool]":
        """The function for after a test: it undoes what the test did to what it shared. It returns False where that is
        not simple, so that the next test needs a new sandbox."""
        folders, sockets, fcntl = self.folders, self.sockets, self.fcntl
        slow = self._undone_files if self.owned or self.reopen or fcntl is None else None
        flags = tuple(zip(self.files, self.flags))  # noqa: B905 an older interpreter does not know strict
        known = [(folder.path, 0, 0) for folder in folders]
        stat, pread = _stat, _pread

        def undone() -> bool:
            try:
                for path, changed, read in known:
                    seen = stat(path)
                    if seen.st_ctime_ns != changed or seen.st_atime_ns != read:
                        break
                else:
                    path = ""
                if path:  # a test has been there, or so lately that the times do not tell
                    for folder in folders:
                        if not folder.emptied():
                            return False
                    known[:] = [(folder.path, folder.unchanged, folder.times[0]) for folder in folders]
                if sockets >= 0:  # the kernel keeps a port for a minute after its process has ended
                    counts = pread(sockets, 64, 0)  # as much as holds both
                    if b"TCP: inuse 0 " not in counts or b" tw 0 " not in counts:
                        return False
                if slow is not None:
                    return slow()
                for fd, before in flags:  # noqa: SIM110 all() would make a generator
                    if fcntl(fd, F_GETFL) != before:  # type: ignore[misc]
                        return False
                return True
            except OSError:
                return False

        return undone

    def _undone_files(self) -> bool:
        """Set back what a test may do to its files where they are its own, or where locks are not denied."""
        if self.owned:
            for fd, mode in zip(self.files, self.modes):  # noqa: B905
                if _fstat(fd).st_mode != mode:
                    return False
                _utime(fd, ns=(0, 0))
        if self.reopen:
            return self._reopened()
        for fd, flags in zip(self.files, self.flags):  # noqa: B905
            if self.fcntl is None or self.fcntl(fd, F_GETFL) != flags:
                return False
        return True

    def _reopened(self) -> bool:
        """Open the files anew; False without /proc."""
        try:
            for fd in self.files:
                new = _open(f"/proc/self/fd/{fd}", os.O_RDWR)
                _dup2(new, fd)
                _close(new)
            return True
        except OSError:
            return False
