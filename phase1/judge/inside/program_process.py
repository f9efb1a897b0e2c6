"""The program's process of an assert task, inside the sandbox: it holds the answer and no test.

It imports the standard library and its neighbours only. It does what the tests' process asks of it, and sends plain
data back. Nothing in it is secret, and nothing that it sends is believed: the tests' process reads it as forged.
"""

import os
import sys

from phase1.judge.inside.asserts import PROGRAM, new_main
from phase1.judge.inside.plain import NotPlain
from phase1.judge.inside.talk import ASK, CALLBACK, ERROR, RESULT, Channel, Gone, names_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any, NoReturn

    from phase1.judge.inside.asserts import Job

_exit = os._exit
# What never changes and so need not be looked at again after a call.
CONSTANT = frozenset([int, float, bool, str, bytes, type(None), complex, range])
OPERATIONS: "dict[str, Callable[..., Any]]" = {
    "get": getattr,
    "set": setattr,
    "next": next,
    "iter": iter,
    "len": len,
    "item": lambda thing, key: thing[key],
    "put": lambda thing, key, value: thing.__setitem__(key, value),
    "str": str,
    "repr": repr,
    "is": isinstance,
}


class RaisedByCall(BaseException):
    """What a call raised, and what it had changed by then."""

    def __init__(self, error: BaseException, changed: "list[tuple[int, Any]]"):
        super().__init__()
        self.error, self.changed = error, changed


class InstanceOfProgram:
    """Marks a value that stays here, although it could travel."""

    shown_as = ""  # the name of its class

    def __init__(self, value: "Any"):
        self.value, self.shown_as = value, type(value).__name__


class IteratorOfTests:
    """An iterator of the tests', drawn by the program."""

    def __init__(self, program: "Program", number: int):
        self._program, self._number = program, number

    def __iter__(self) -> "IteratorOfTests":
        return self

    def __next__(self) -> "Any":
        return self._program.call_tests(self._number, (), {}, drawn=True)


class Program:
    """The program, as its tests' process sees it.

    Args:
        inlet, outlet: file descriptors of the pipes to that process.
    """

    def __init__(self, inlet: int, outlet: int):
        self.channel = Channel(inlet, outlet, refer=self.refer, resolve=self.resolve, trusted=True)
        self.things: list[Any] = []  # what the tests know by number
        self.numbers: dict[int, int] = {}  # id of a thing: its number

    def refer(self, value: "Any") -> tuple[bytes, int]:
        """The number of a thing that stays here."""
        if type(value) is InstanceOfProgram:
            value = value.value
        number = self.numbers.setdefault(id(value), len(self.things))
        if number == len(self.things):
            self.things.append(value)
        return (b"G" if hasattr(type(value), "__next__") else b"H"), number

    def resolve(self, tag: bytes, number: int, name: str) -> "Any":
        """The thing with a number; a function of the tests' is called there."""
        if tag == b"I":
            return IteratorOfTests(self, number)
        if tag != b"K":
            return self.things[number]

        def function_of_the_tests(*args: "Any", **kwargs: "Any") -> "Any":
            return self.call_tests(number, args, kwargs)

        return function_of_the_tests

    def call_tests(self, number: int, args: "tuple[Any, ...]", kwargs: "dict[str, Any]", drawn: bool = False) -> "Any":
        """Call a function of the tests', which may ask for something of the program meanwhile."""
        with self.channel.lock:
            self.channel.send(CALLBACK, self.channel.packed((number, args, kwargs)))
            while (message := self.channel.receive())[:1] == ASK:
                self.answer(message)
            if message[:1] == ERROR:
                self.channel.raise_error(message, drawn)
            return self.channel.unpacked(message)

    def run(self, job: "Job", code: "CodeType") -> None:
        """Run the program and tell the tests which of the names that they use it defines."""
        wanted = self.channel.unpacked(self.channel.receive())
        sys.modules["__main__"] = type(sys)("__main__")
        namespace = new_main(PROGRAM)
        try:
            exec(job["shared"], namespace)  # first, so that a program may rely on it
        except BaseException:  # it may need names of the program's
            namespace = new_main(PROGRAM)
        try:
            exec(code, namespace)
            sys.settrace(None)
            sys.setprofile(None)
            defined = dict(namespace)
        except BaseException as e:
            self.channel.send_error(e)
            return
        for name in job["classes"]:
            if isinstance(kind := defined.get(name), type):
                self.channel.shared[name] = kind
        self.channel.send(RESULT, self.channel.packed([self.named(n, defined[n]) for n in wanted if n in defined]))

    def named(self, name: str, value: "Any") -> "tuple[str, Any, list[str]]":
        """A name with its value, or with a thing that stands for a value that does not travel; of an exception's class
        its names as well."""
        if isinstance(value, type) and issubclass(value, BaseException):
            return name, value, names_of(value)
        try:
            self.channel.packed(value)
        except NotPlain:
            return name, lambda *args, **kwargs: value(*args, **kwargs), []
        return name, value, []

    def answer(self, message: bytes) -> None:
        """Do what a message asks for and send the result, or the exception that it ends with."""
        channel = self.channel
        try:
            operation, thing, *operands = channel.unpacked(message)
            if operation != "call":
                packed = channel.packed((None, OPERATIONS[operation](thing, *operands), []))
            else:
                args, kwargs = operands
                packed = self.call(thing, args, kwargs)
        except RaisedByCall as e:
            channel.send_error(e.error, e.changed)
        except Gone:
            raise
        except BaseException as e:
            channel.send_error(e)
        else:
            channel.send(RESULT, packed)

    def call(self, function: "Any", args: "tuple[Any, ...]", kwargs: "dict[str, Any]") -> bytes:
        """Call a function. Returns, packed: the number of the argument that the result is, if it is one; the result;
        number and value of each argument that the call has changed."""
        packed = self.channel.packed
        given = [*args, *kwargs.values()]
        before = [None if type(value) in CONSTANT else packed(value) for value in given]
        try:
            result = function(*args, **kwargs)
        except BaseException as e:
            raise RaisedByCall(e, self.changed(given, before)) from None
        same = None
        for number, value in enumerate(given):
            if before[number] is not None and result is value:
                same = number
        if isinstance(function, type) and type(result) is function and function.__module__ == PROGRAM:
            # An instance of a class of its own, even of one that inherits from a plain one: the tests go on with it.
            result = InstanceOfProgram(result)
        return packed((same, None if same is not None else result, self.changed(given, before)))

    def changed(self, given: "list[Any]", before: "list[bytes | None]") -> "list[tuple[int, Any]]":
        """Number and value of each argument that is not what it was."""
        found = []
        for number, value in enumerate(given):
            if before[number] is not None and self.channel.packed(value) != before[number]:
                found.append((number, value))
        return found


def run_program(job: "Job", code: "CodeType", inlet: int, outlet: int) -> "NoReturn":
    """The process's main function. It ends when the tests' process is done, if it is not killed before."""
    program = Program(inlet, outlet)
    try:
        program.run(job, code)
        while (message := program.channel.receive())[:1] == ASK:
            program.answer(message)
    except Gone:
        pass
    finally:
        _exit(0)
    _exit(0)
