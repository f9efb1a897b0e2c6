"""How a program's process and its tests' process talk, inside the sandbox: messages over two pipes.

It imports the standard library and its neighbour only. A message is a size (u32, little-endian), a byte that says what
it is, and a packed value (plain.py):

    to the program   B names               begin: run the program, and say which of these names it defines
                     Q (op, thing, ...)    do something with a thing of the program's (program_process.OPERATIONS)
    to the tests     K (number, args, kwargs)    call a function that the tests handed over
    to both          R value               the result
                     E (names, text, args, changed)    an exception: the full names of its class and of the classes that
                                           it inherits from, its text, its arguments where they are plain data, and the
                                           call's arguments that had changed by then
"""

import os
import sys
from _thread import RLock

from phase1.judge.inside.plain import MOST, Forged, Packer, Unpacker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from phase1.judge.inside.plain import Refer, Resolve

_read, _write = os.read, os.write
BEGIN, ASK, CALLBACK, RESULT, ERROR = b"B", b"Q", b"K", b"R", b"E"
ENDS_A_LOOP = (StopIteration, StopAsyncIteration, GeneratorExit)
FRAMES = 4 * 1000  # of the interpreter's recursion limit, that packing may take (plain.DEPTH)


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
        self.exceptions: dict[tuple[str, ...], type[BaseException]] = {}  # the program's, by their names
        self.lock = RLock()  # for one question and its answer
        self.broken = False  # a message came whose end is not known

    def packed(self, value: object) -> bytes:
        """A value as bytes. Raises plain.NotPlain where it does not travel."""
        packer = Packer(self.refer, self.shared, of_program=self.trusted)
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

    def send_error(self, error: BaseException, changed: "list[tuple[int, Any]] | None" = None) -> None:
        """Send an exception, with what a call had changed when it was raised. Raises Gone."""
        head = (names_of(type(error)), text_of(error)[:2000])
        try:
            packed = self.packed((*head, error.args, changed or []))
        except Exception:  # its arguments are the program's own
            packed = self.packed((*head, None, changed or []))
        self.send(ERROR, packed)

    def raise_error(self, message: bytes, drawn: bool = False) -> "list[Any]":
        """Raise what `send_error` sent: an exception of the same class where that is a builtin one, else of a class of
        the same name that inherits from the same ones.

        Args:
            drawn: it answers a request for an iterator's next value, where alone StopIteration has its meaning. Out of
                a call it would end the tests' own `map` early.
        """
        error, _ = self.error(message, drawn)
        raise error

    def error(self, message: bytes, drawn: bool = False) -> "tuple[BaseException, list[Any]]":
        """The exception in a message, and what the call had changed."""
        content = self.unpacked(message)
        if type(content) is not tuple or len(content) != 4 or [type(part) for part in content[:2]] != [list, str]:
            raise Forged("an exception that is none")
        names, text, args, changed = content
        if not all(type(name) is str for name in names) or type(changed) is not list:
            raise Forged("an exception that is none")
        kind = known_exception(names[0]) if names else None
        if kind is not None and type(args) is tuple and (drawn or not issubclass(kind, ENDS_A_LOOP)):
            try:
                return kind(*args), changed
            except Exception:  # it wants others
                pass
        made: BaseException = self.exception_class(names, drawn)()
        made.args = (text,)
        return made, changed

    def exception_class(self, names: "list[str]", drawn: bool = False) -> "type[BaseException]":
        """The class that stands for one of the program's: the same for the same names, so that it can be caught."""
        key = (*names, "drawn" if drawn else "")
        if key not in self.exceptions:
            bases: list[type[BaseException]] = []
            for name in names:
                base = self.shared.get(name.rpartition(".")[2]) or known_exception(name)
                if base is None or not issubclass(base, BaseException) or any(issubclass(b, base) for b in bases):
                    continue
                if drawn or not issubclass(base, ENDS_A_LOOP):
                    bases.append(base)
            name = names[0].rpartition(".")[2] if names else "Exception"
            members = {"__init__": lambda self: None, "__str__": lambda self: str(self.args[0]) if self.args else ""}
            try:
                self.exceptions[key] = type(name, tuple(bases or [Exception]), members)
            except TypeError:  # they cannot be joined
                self.exceptions[key] = type(name, tuple(bases[:1]), members)
        return self.exceptions[key]


def names_of(kind: type) -> "list[str]":
    """The full names of an exception's class and of those that it inherits from."""
    return [f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__ if base is not object]


def known_exception(name: str) -> "type[BaseException] | None":
    """The class of a full name, where a module that is loaded here has it."""
    module, _, member = name.rpartition(".")
    kind = getattr(sys.modules.get(module), member, None) if module != "solution" else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseException) else None


def text_of(error: BaseException) -> str:
    """An exception's message, which is the program's own code and may fail."""
    try:
        return str(error)
    except BaseException:
        return "?"
