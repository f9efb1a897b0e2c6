"""How a program's process and its tests' process talk, inside the sandbox: messages over two pipes.

It imports the standard library and its neighbour only. A message is a size (u32, little-endian), a byte that says what
it is, and a packed value (plain.py):

    to the program   B names               begin: run the program, and say which of these names it defines
                     Q (op, thing, ...)    do something with a thing of the program's (program_process.OPERATIONS)
    to the tests     K (number, args, kwargs)    call a function that the tests handed over
    to both          R value               the result
                     E (names, text)       an exception: the names of its class and of the classes that it inherits
                                           from, and its text
"""

import builtins
import os
import sys

from phase1.judge.inside.plain import MOST, Forged, Packer, Unpacker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from phase1.judge.inside.plain import Refer, Resolve

_read, _write = os.read, os.write
BEGIN, ASK, CALLBACK, RESULT, ERROR = b"B", b"Q", b"K", b"R", b"E"
ENDS_A_LOOP = ("StopIteration", "StopAsyncIteration", "GeneratorExit")
FRAMES = 4 * 300  # of the interpreter's recursion limit, that packing may take (plain.DEPTH)


class Gone(BaseException):
    """The other process has closed its end."""


class Channel:
    """One process's end.

    Args:
        inlet, outlet: file descriptors.
        refer, resolve: numbers for what does not travel by value, and the way back (plain.py).
        trusted: what comes is not forged.
    """

    def __init__(self, inlet: int, outlet: int, refer: "Refer", resolve: "Resolve", trusted: bool):
        self.inlet, self.outlet, self.refer, self.resolve, self.trusted = inlet, outlet, refer, resolve, trusted
        self.shared: dict[str, type] = {}  # classes of the tests' set-up
        self.broken = False  # a message came whose end is not known

    def packed(self, value: object) -> bytes:
        """A value as bytes. Raises plain.NotPlain where it does not travel."""
        packer = Packer(self.refer, self.shared)
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(min(limit + FRAMES, 2**31 - 1))
        try:
            packer.put(value)
        finally:
            sys.setrecursionlimit(limit)
        return b"".join(packer.parts)

    def unpacked(self, message: bytes) -> "Any":
        """The value in a message. Raises plain.Forged."""
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(min(limit + FRAMES, 2**31 - 1))
        try:
            return Unpacker(message[1:], self.resolve, self.shared, self.trusted).whole()
        finally:
            sys.setrecursionlimit(limit)

    def send(self, what: bytes, packed: bytes) -> None:
        """Send a message. Raises Gone."""
        data = memoryview(len(packed).to_bytes(4, "little") + what + packed)
        try:
            while data:
                data = data[_write(self.outlet, data) :]
        except OSError:
            raise Gone from None

    def receive(self) -> bytes:
        """The next message, from the byte that says what it is. Raises Gone, and plain.Forged."""
        if self.broken:
            raise Forged("a message that was too long came before")
        size = int.from_bytes(self._exactly(4), "little")
        if size > MOST:
            self.broken = True
            raise Forged(f"more than {MOST >> 20} MiB of data")
        return self._exactly(size + 1)

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = _read(self.inlet, min(size, 1 << 20))
            if not part:
                raise Gone
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def send_error(self, error: BaseException) -> None:
        """Send an exception. Raises Gone."""
        names = [kind.__name__ for kind in type(error).__mro__ if kind is not object]
        self.send(ERROR, self.packed((names, text_of(error)[:2000])))

    def raise_error(self, message: bytes, drawn: bool = False) -> None:
        """Raise what `send_error` sent: an exception of the same name, which inherits from the same builtin one.

        Args:
            drawn: it answers a request for an iterator's next value, where alone StopIteration has its meaning. Out of
                a call it would end the tests' own `map` early.
        """
        content = self.unpacked(message)
        if type(content) is not tuple or [type(part) for part in content] != [list, str]:
            raise Forged("an exception that is none")
        names, text = content
        for name in names:
            base = vars(builtins).get(name) if type(name) is str and (drawn or name not in ENDS_A_LOOP) else None
            if isinstance(base, type) and issubclass(base, BaseException):
                break
        else:
            base = Exception
        members = {"__init__": lambda self: None, "__str__": lambda self: text}
        raise type(str(names[0]) if names else "Exception", (base,), members)()


def text_of(error: BaseException) -> str:
    """An exception's message, which is the program's own code and may fail."""
    try:
        return str(error)
    except BaseException:
        return "?"
