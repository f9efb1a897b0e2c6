"""One running sandbox as the judge holds it: what is written to its socket, and what is read from it."""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from phase1.judge.inside import protocol
from phase1.judge.outcomes import ProcessEnd

_RESULT = struct.Struct(protocol.RESULT)
# Seconds. Silence is counted in turns of this length, so that a stall of this process, or of the whole machine, counts
# as one turn at most and not as a silent sandbox.
TURN = 5.0


class Exit(NamedTuple):
    """How a sandbox ended, as the launcher saw it."""

    status: int  # of waitpid; -1 where nobody waited for it
    oom: bool  # the kernel killed something in it for want of memory
    stderr: str  # the beginning of what it said


class Died(Exception):
    """A sandbox ended, or fell silent, in the middle of a task.

    Attributes:
        exit: how it ended.
        silent: whether it did not end, but fell silent.
    """

    def __init__(self, exit: Exit, silent: bool = False):
        super().__init__(exit)
        self.exit, self.silent = exit, silent


@dataclass
class Box:
    """A running sandbox."""

    number: int  # by which the launcher knows it
    memory: int  # bytes its cgroup may hold
    headers: bool  # it sees /usr/include
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    exited: asyncio.Future[Exit]
    ahead: bytes = b""  # read and not yet taken
    compiled: bool = False  # it has taken its task and compiled the program

    def ended(self, how: Exit) -> None:
        """Note its end, unless that is known already."""
        if not self.exited.done():
            self.exited.set_result(how)

    async def feed(self, job: Mapping[str, object], inputs: list[str], tests: Mapping[str, object] | None) -> None:
        """Write a job, and the inputs of its tests at the pace at which the sandbox takes them, so that big tests never
        pile up, or the `tests` of an assert task. Returns when all is written, or the sandbox has hung up."""
        ready: list[bytes] = []
        for part in (job, tests):
            if part is not None:
                data = marshal.dumps(dict(part), 2)
                ready += len(data).to_bytes(4, "little"), data
        held = len(ready[1])
        with contextlib.suppress(ConnectionError):
            for text in inputs:
                data = text.encode("utf-8", "surrogatepass")
                ready += len(data).to_bytes(8, "little"), data
                held += len(data)
                if held > 1 << 16:
                    self.writer.write(b"".join(ready))  # not writelines, which spins on an empty input in 3.12.1
                    await self.writer.drain()
                    ready, held = [], 0
            self.writer.write(b"".join(ready))
            await self.writer.drain()

    async def frame(self, patience: float) -> ProcessEnd:
        """The next frame that the fork-server sends (`protocol.RESULT`).

        Args:
            patience: seconds of silence after which nothing more is expected.

        Raises:
            Died: when none comes.
        """
        try:
            if len(self.ahead) < _RESULT.size:
                self.ahead += await self._read(_RESULT.size - len(self.ahead), patience)
            kind, code, cpu, wall, peak_rss, written, *lengths = _RESULT.unpack_from(self.ahead)
            size = _RESULT.size + sum(lengths)
            if len(self.ahead) < size:
                self.ahead += await self._read(size - len(self.ahead), patience)
            frame, self.ahead = self.ahead[_RESULT.size : size], self.ahead[size:]
            out, err = lengths[0], lengths[0] + lengths[1]
            return ProcessEnd(
                kind=kind,
                code=code,
                cpu=cpu / 1e6,
                wall=wall / 1e6,
                peak_rss=peak_rss,
                written=written,
                out=frame[:out],
                err=frame[out:err],
                report=frame[err:],
            )
        except TimeoutError:
            raise Died(Exit(-1, False, f"no answer for {patience:.0f} s"), silent=True) from None
        except ConnectionError:
            try:
                async with asyncio.timeout(10):
                    raise Died(await asyncio.shield(self.exited)) from None
            except TimeoutError:
                raise Died(Exit(-1, False, "it closed its socket")) from None

    async def _read(self, least: int, patience: float) -> bytes:
        """At least `least` bytes, and what else is there: one turn of the loop for many small frames."""
        parts = []
        silent = 0.0
        while least > 0:
            turn = min(TURN, patience)
            try:
                async with asyncio.timeout(turn):
                    part = await self.reader.read(1 << 20)
            except TimeoutError:
                silent += turn
                if silent >= patience:
                    raise
                continue
            if not part:
                raise ConnectionError
            parts.append(part)
            least -= len(part)
            silent = 0.0
        return b"".join(parts)
