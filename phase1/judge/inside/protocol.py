"""What the fork-server and the judge say to each other, and the fork-server's end of it, inside the sandbox.

It imports the standard library only. Little-endian. In: u32 length, a marshalled dict (asserts.Job), then for each
stdin test u64 length and the bytes, or for an assert task u32 length and a marshalled dict (asserts.Tests). Out: frames
of RESULT, each followed by three byte strings (stdout, the end of stderr, report).
"""

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

SOCKET, CODE = 3, 5  # file descriptors
# kind, code, CPU time in us, wall time in us, peak RSS in bytes, bytes of stdout in all, lengths of the byte strings
RESULT = "<BIQQQQIII"
# Kinds of frames. A test's process: EXITED (code: its status), SIGNALLED (code: the signal), or the limit that it was
# beyond. The program: COMPILED (code 1: it does not compile, and stderr says why). The sandbox: DIRTY, where the rest
# of the tests should have a new one; DONE; ALIVE, now and then while a test runs.
# TESTS: the tests' process of an assert task did not end by itself (code: its status, as of waitpid).
COMPILED, EXITED, SIGNALLED, CPU, IDLE, WALL, MEMORY, DIRTY, DONE, ALIVE, TESTS = range(11)
ALIVE_EVERY = 5.0  # s
READ = b"read"  # the report of a stdin test that read of its input
ERR_TAIL = 2048  # bytes of stderr that are sent

_exit, _monotonic, _bytes = os._exit, time.monotonic, int.to_bytes
_lseek, _pwrite, _ftruncate = os.lseek, os.pwrite, os.ftruncate


class Stream:
    """Buffered reading from and writing to the judge's socket. When the judge closes it, this process ends."""

    def __init__(self) -> None:
        self.ahead = b""  # read and not yet taken
        self.out: list[bytes] = []  # to be sent
        self.held, self.sent = 0, 0.0  # bytes to be sent, and when some were sent last

    def read(self, size: int) -> bytes:
        """The next `size` bytes."""
        parts = []
        while size:
            if not self.ahead:
                self.flush()
                self.ahead = os.read(SOCKET, 1 << 16)
                if not self.ahead:
                    _exit(0)
            part, self.ahead = self.ahead[:size], self.ahead[size:]
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def read_exactly(self, size: int) -> bytes:
        """The next `size` bytes, and none behind them from the socket."""
        parts = []
        while size:
            part = os.read(SOCKET, size)
            if not part:
                _exit(0)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def read_to_stdin(self, size: int) -> None:
        """Put `size` bytes of input into the file that is the test's stdin."""
        part, self.ahead = self.ahead[:size], self.ahead[size:]
        done = 0
        while True:
            while part:
                wrote = _pwrite(0, part, done)
                part, done = part[wrote:], done + wrote
            if done == size:
                break
            self.flush()
            part = os.read(SOCKET, min(size - done, 1 << 20))
            if not part:
                _exit(0)
        _ftruncate(0, size)  # the test before may have had more, or written to it
        _lseek(0, 0, 0)

    def send(
        self,
        kind: int,
        code: int = 0,
        cpu: float = 0.0,
        wall: float = 0.0,
        rss: int = 0,
        total: int = 0,
        out: bytes = b"",
        err: bytes = b"",
        report: bytes = b"",
        file: int = 0,
    ) -> None:
        """Send a frame (RESULT). `file`: bytes of stdout to send straight from its file, instead of `out`."""
        self.out += (
            _bytes(kind, 1, "little"),
            _bytes(code, 4, "little"),
            _bytes(int(cpu * 1e6), 8, "little"),
            _bytes(int(wall * 1e6), 8, "little"),
            _bytes(rss, 8, "little"),
            _bytes(total, 8, "little"),
            _bytes(len(out) + file, 4, "little"),
            _bytes(len(err), 4, "little"),
            _bytes(len(report), 4, "little"),
            out,
        )
        if file:
            self.flush()
            sent = 0
            while sent < file:
                sent += os.sendfile(SOCKET, 1, sent, file - sent)
        self.out += err, report
        self.held += len(out) + 64
        # A frame a test would wake the judge a thousand times a second; late frames would stall it.
        if self.held > 32768 or _monotonic() - self.sent > 0.02:
            self.flush()

    def beat(self) -> None:
        """Tell the judge that this process is alive, unless it has just heard of it."""
        if _monotonic() - self.sent > ALIVE_EVERY:
            self.send(ALIVE)

    def flush(self) -> None:
        """Send what is held back."""
        if not self.out:
            return
        data = memoryview(b"".join(self.out))
        self.out, self.held, self.sent = [], 0, _monotonic()
        while data:
            data = data[os.write(SOCKET, data) :]

    def finish(self) -> "NoReturn":
        """Send what is left and end, but not before the judge has closed its end: what it is still writing would be
        answered by a reset, which would cost it frames that it has not read yet."""
        self.flush()
        while os.read(SOCKET, 1 << 20):
            pass
        _exit(0)
