"""The tests' process of an assert task, inside the sandbox: it holds what the program must not see.

It imports the standard library and its neighbours only. It was forked before it read the tests, so no memory of the
program's process ever held them. It reaches the program by messages (talk.py): what the program defines are `Thing`s
here, and what a call of one returns is plain data, rebuilt. So no code of the program's has a part in a comparison.
"""

import builtins
import os
from _weakref import ref

from phase1.judge.inside.asserts import (
    GONE,
    JUDGE_FAILED,
    REPORT,
    compile_quietly,
    describe,
    verdict_of,
)
from phase1.judge.inside.group import process_cpu
from phase1.judge.inside.plain import Forged, NotPlain, carry_over
from phase1.judge.inside.talk import ASK, BEGIN, CALLBACK, ERROR, RESULT, Channel, Gone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from phase1.judge.inside.asserts import Tests

_exit, _write = os._exit, os.write


class CannotSend(BaseException):
    """The tests hand the program an object that cannot be sent: not the program's fault."""


class Thing:
    """Something of the program's that stays in its process: a function, a class, an instance.

    Its attributes can be read and set, it can be called, iterated and indexed: each is a message, and answers with
    plain data. It cannot be compared with anything, or reckoned with: that would be the program's own code.
    """

    __slots__ = ("__kind__", "__link__", "__number__", "__weakref__")

    def __init__(self, link: "Link", number: int, kind: str):
        # A weak reference has to be called. Else a function of the tests' that formats what the program wants, as
        # `lambda text, thing: text.format(thing)`, would lead the program from here to the tests.
        for name, value in (("__link__", ref(link)), ("__number__", number), ("__kind__", kind)):
            object.__setattr__(self, name, value)

    def __live(self) -> "Link":
        link: Link = self.__link__()  # it lives as long as the tests run
        return link

    def __ask(self, operation: str, *operands: object) -> "Any":
        return self.__live().ask(operation, *operands)

    def __call__(self, *args: "Any", **kwargs: "Any") -> "Any":
        return self.__live().call(self, args, kwargs)

    def __getattr__(self, name: str) -> "Any":
        if name.startswith("__"):
            raise AttributeError(f"{name} of the program's {self.__kind__}")
        return self.__ask("get", self, name)

    def __setattr__(self, name: str, value: object) -> None:
        self.__ask("set", self, name, value)

    def __iter__(self) -> "Any":
        return self.__ask("iter", self)

    def __len__(self) -> int:
        return self.__ask("len", self)  # type: ignore[no-any-return]

    def __getitem__(self, key: object) -> "Any":
        return self.__ask("item", self, key)

    def __setitem__(self, key: object, value: object) -> None:
        self.__ask("put", self, key, value)

    def __str__(self) -> str:
        return self.__ask("str", self)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return self.__ask("repr", self)  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        if other is None:
            return False
        if self is not other:
            self._refuse()
        return True

    def __instancecheck__(self, value: object) -> bool:
        return type(value) is Thing and self.__ask("is", value, self) is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return self.__number__  # type: ignore[no-any-return]

    def _refuse(self, *_: object) -> "NoReturn":
        raise NotPlain(f"the result is of the type {self.__kind__}, which is no plain data, so nothing can compare it")

    __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __contains__ = _refuse
    __add__ = __sub__ = __mul__ = __matmul__ = __truediv__ = __floordiv__ = __mod__ = __divmod__ = __pow__ = _refuse
    __radd__ = __rsub__ = __rmul__ = __rmatmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rdivmod__ = _refuse
    __rpow__ = __and__ = __xor__ = __or__ = __rand__ = __rxor__ = __ror__ = __lshift__ = __rshift__ = _refuse
    __neg__ = __pos__ = __abs__ = __invert__ = __int__ = __float__ = __complex__ = __index__ = _refuse
    __round__ = __trunc__ = __floor__ = __ceil__ = __format__ = __bytes__ = __reversed__ = _refuse


class Drawn:
    """An iterator of the program's, drawn by the tests."""

    def __init__(self, link: "Link", number: int):
        self.__link__, self.__number__ = ref(link), number

    def __iter__(self) -> "Drawn":
        return self

    def __next__(self) -> "Any":
        link = self.__link__()
        assert link is not None  # it lives as long as the tests run
        return link.ask("next", self)


class Link:
    """The way to the program.

    Args:
        inlet, outlet: file descriptors of the pipes to its process.
        gone: ends this process, since the program's has ended.
    """

    def __init__(self, inlet: int, outlet: int, gone: "Callable[[], NoReturn]"):
        self.channel = Channel(inlet, outlet, refer=self.refer, resolve=self.resolve, trusted=False)
        self.gone = gone
        self.things: dict[int, Thing] = {}
        self.functions: list[Callable[..., Any]] = []  # that the program may call
        self.iterators: list[tuple[Any, int]] = []  # that it may draw, with the numbers of their `next`

    def refer(self, value: "Any") -> tuple[bytes, int]:
        """The number of what does not travel by value."""
        if type(value) is Thing:
            return b"H", value.__number__
        if type(value) is Drawn:
            return b"G", value.__number__
        if hasattr(type(value), "__next__"):
            for known, number in self.iterators:
                if known is value:
                    return b"I", number
            self.functions.append(lambda: next(value))
            self.iterators.append((value, len(self.functions) - 1))
            return b"I", len(self.functions) - 1
        if callable(value):
            self.functions.append(value)
            return b"K", len(self.functions) - 1
        problem = f"the tests hand the program a {type(value).__name__}, which cannot be sent to its process"
        if type(value).__module__ == "builtins":  # such as the program can bring about
            raise NotPlain(problem)
        raise CannotSend(problem)

    def resolve(self, tag: bytes, number: int, name: str) -> "Any":
        """The way back. What the program says is a number may be any."""
        if tag in b"KI":
            raise Forged("a function that is not the program's")
        if tag == b"G":
            return Drawn(self, number)
        if number not in self.things:
            self.things[number] = Thing(self, number, name[:100])
        return self.things[number]

    def ask(self, operation: str, *operands: object) -> "Any":
        """Have the program do something; what its process sends back.

        Raises:
            NotPlain, Forged: it is no plain data.
            Exception: what the program raised, under its name.
        """
        content = self.exchange(ASK, (operation, *operands))
        if type(content) is not tuple or len(content) != 3:
            raise Forged("an answer that is none")
        return content[1]

    def call(self, function: "Any", args: "tuple[Any, ...]", kwargs: "dict[str, Any]") -> "Any":
        """As `ask`, for a call: arguments that it changed are changed here as well."""
        given = [*args, *kwargs.values()]
        content = self.exchange(ASK, ("call", function, args, kwargs), given)
        if type(content) is not tuple or len(content) != 3 or type(content[2]) is not list:
            raise Forged("an answer that is none")
        same, result, changed = content
        carry_changes(given, changed)
        if same is None:
            return result
        if type(same) is not int or not 0 <= same < len(given):
            raise Forged("an argument that was not given")
        return given[same]

    def exchange(self, what: bytes, content: "tuple[Any, ...] | list[str]", given: "Sequence[object]" = ()) -> "Any":
        """Send a message and wait for its answer; call what the program calls meanwhile.

        Args:
            given: arguments of a call, which an exception may have changed as well.
        """
        channel = self.channel
        try:
            with channel.lock:
                channel.send(what, channel.packed(content))
                while True:
                    message = channel.receive()
                    if message[:1] == RESULT:
                        return channel.unpacked(message)
                    if message[:1] == ERROR:
                        error, changed = channel.error(message, drawn=what == ASK and content[0] == "next")
                        carry_changes(given, changed)
                        raise error
                    if message[:1] != CALLBACK:
                        raise Forged("a message of no known kind")
                    self.call_back(message)
        except Gone:
            self.gone()

    def call_back(self, message: bytes) -> None:
        """Call a function of the tests' for the program."""
        content = self.channel.unpacked(message)
        if type(content) is not tuple or [type(part) for part in content] != [int, tuple, dict]:
            raise Forged("a call that is none")
        number, args, kwargs = content
        if not 0 <= number < len(self.functions):
            raise Forged("a function that was not handed over")
        try:
            packed = self.channel.packed(self.functions[number](*args, **kwargs))
        except CannotSend as e:  # the program chose what it called with
            self.channel.send_error(NotPlain(str(e)))
        except Exception as e:
            self.channel.send_error(e)
        else:
            self.channel.send(RESULT, packed)


def carry_changes(given: "Sequence[object]", changed: object) -> None:
    """Do to the arguments of a call what the program did to its copies of them. Raises Forged."""
    for change in changed if type(changed) is list else [None]:
        if type(change) is not tuple or len(change) != 2 or type(change[0]) is not int:
            raise Forged("an answer that is none")
        if not 0 <= change[0] < len(given):
            raise Forged("an argument that was not given")
        carry_over(given[change[0]], change[1])


class Report:
    """What happened, a line each: `marker number verdict CPU-seconds detail`, and `marker end` behind the last one.

    Number -1: the program itself failed, before any test. JUDGE_FAILED: the tests cannot be run.
    """

    def __init__(self, marker: bytes, program: int, file: int = REPORT):
        self.marker, self.program, self.file = marker, program, file
        self.started = process_cpu(program)

    def add(self, number: int, verdict: str, detail: str) -> None:
        """Write a line. The CPU time is the program's since the line before."""
        now = process_cpu(self.program)
        used, self.started = max(0.0, now - self.started), now
        text = detail.encode("utf-8", "backslashreplace").replace(b"\n", b" ")
        _write(self.file, b"%b %d %b %.6f %b\n" % (self.marker, number, verdict.encode(), used, text))

    def end(self) -> "NoReturn":
        """Say that all is said, and end."""
        _write(self.file, b"%b end\n" % self.marker)
        _exit(0)


def be_tests(tests: "Tests", inlet: int, outlet: int, program: int) -> "NoReturn":
    """The process's main function.

    Args:
        inlet, outlet: file descriptors of the pipes to the program's process.
        program: its process id.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):  # what the tests print is in no file that the program has
        os.dup2(nothing, fd)

    def gone() -> "NoReturn":
        _exit(GONE)

    run_tests(tests, Link(inlet, outlet, gone), Report(tests["marker"], program))


def run_tests(tests: "Tests", link: Link, report: Report) -> "NoReturn":
    """Run the tests and report; does not return."""
    codes = []
    for source in (tests["setup"], *tests["tests"]):
        code, problem = compile_quietly(source, "tests")
        if code is None:
            report.add(JUDGE_FAILED, "runtime_error", f"the tests do not compile: {problem}")
            report.end()
        codes.append(code)
    scope = prepared_scope(tests)
    names = [name for name in tests["names"] if name == tests["entry_point"] or name not in scope]
    try:
        for name, value, of_exception in link.exchange(BEGIN, names):
            if name in names:
                scope[name] = link.channel.exception_class(of_exception) if of_exception else value
        exec(codes[0], scope)
    except CannotSend as e:
        report.add(JUDGE_FAILED, "runtime_error", str(e))
        report.end()
    except BaseException as e:
        report.add(-1, verdict_of(e), describe(e))
        report.end()
    share_classes(tests, scope, link)
    for number in range(tests["first"], len(tests["tests"])):
        try:
            exec(codes[number + 1], scope)
            verdict, detail = "success", ""
        except CannotSend as e:
            report.add(JUDGE_FAILED, "runtime_error", str(e))
            report.end()
        except BaseException as e:
            verdict, detail = verdict_of(e), describe(e)
        report.add(number, verdict, detail)
    report.end()


def prepared_scope(tests: "Tests") -> "dict[str, Any]":
    """The names that the tests find: the builtins, what they name of the usual modules, and what the problem's own
    prompt defines, but for the function that the program is asked for."""
    scope: dict[str, Any] = {"__builtins__": builtins, "__name__": "__tests__"}
    prompt, _ = compile_quietly(tests["prompt"], "prompt")
    if prompt is not None:  # it may be a text
        try:  # noqa: SIM105 contextlib is a module more in every fork
            exec(prompt, scope)
        except BaseException:
            pass
    for name, origin in tests["standard"].items():
        if name not in scope:
            module, _, member = origin.partition(".")
            try:
                scope[name] = getattr(__import__(module), member) if member else __import__(module)
            except BaseException:
                continue
    scope.pop(tests["entry_point"], None)
    return scope


def share_classes(tests: "Tests", scope: "dict[str, Any]", link: Link) -> None:
    """Let instances of the classes of the set-up travel by value, since both processes know them."""
    for name in tests["classes"]:
        if isinstance(kind := scope.get(name), type):
            link.channel.shared[name] = kind
