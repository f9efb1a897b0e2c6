"""Plain data between a program and its tests, as bytes, inside the sandbox. It imports nothing until it is needed.

The reader of these bytes must assume that a program forged them. So `unpack` builds values of a closed set of types and
of no other, in bounds, and calls nothing that the writer can choose. (marshal and pickle trust their writer.)

A value is a tag of one byte and what belongs to it; sizes and counts are u32, little-endian:

    N T F E                 None, True, False, ...
    i s b B                 int (two's complement), str (UTF-8), bytes, bytearray: size, bytes
    f c                     float, complex: 8 or 16 bytes
    q d                     a list of ints that fit into 64 bits, or of floats: count, 8 bytes each
    l t S Z                 list, tuple, set, frozenset: count, values
    D                       dict: count, key and value in turn
    x                       a type of EXTRA: its name (as s) and a tuple of what it is made from
    O                       an instance of a class of the tests' set-up: its name (as s), its attributes (D)
    Y                       a type or function of the builtins: its name (as s)
    H G K I                 what stays on the other side: an object, an iterator (of the program), a function, an
                            iterator (of the tests): i, a number, and s, the name of its class
"""

import builtins
import marshal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Refer = Callable[[Any], tuple[bytes, int]]  # an object to one of H, G, K, I and its number; raises NotPlain
    Resolve = Callable[[bytes, int, str], Any]  # the way back, with the name of its class

MOST = 16 << 20  # bytes of one message
NONE = type(None)
DEPTH = 1000  # containers inside containers
MANY = 16  # ints or floats that are worth a tag of their own


class NotPlain(AssertionError):
    """A value that does not travel, or that cannot be compared."""


class Forged(AssertionError):
    """Bytes that `pack` does not write, or too many of them."""


# ------------------------------------------------------------------------------- types made from plain data, by name
def _numpy(value: "Any") -> "tuple[str, tuple[int, ...] | None, bytes]":
    if value.dtype.kind not in "biufcSUmM":
        raise NotPlain(f"an array of dtype {value.dtype}")
    return value.dtype.str, tuple(value.shape), value.tobytes()


def _numpy_again(scalar: bool, dtype: str, shape: "Any", data: bytes) -> object:
    if type(dtype) is not str or dtype.lstrip("<>|=")[:1] not in tuple("?bBhHiIlLqQefdgFDGSUmMuc"):
        raise Forged(f"an array of dtype {dtype!r}")
    numpy = __import__("numpy")  # where the judge has it; nobody else needs it
    kind = numpy.dtype(dtype)
    if kind.kind not in "biufcSUmM":
        raise Forged(f"an array of dtype {dtype!r}")
    array = numpy.frombuffer(data, kind).reshape(shape).copy()
    return array[()] if scalar else array


def _offset(value: "Any") -> "tuple[int, int, int]":
    step = value.utcoffset(None)
    return step.days, step.seconds, step.microseconds


def _default(value: "Any") -> "tuple[object, ...]":
    factory = value.default_factory
    if factory is not None and factory not in PLAIN_TYPES:
        raise NotPlain("a defaultdict whose factory is the program's own")
    return (() if factory is None else (factory.__name__,)), dict(value)


def _default_again(factory: "tuple[str, ...]", values: "dict[Any, Any]") -> object:
    kinds = {kind.__name__: kind for kind in PLAIN_TYPES}
    return __import__("collections").defaultdict(kinds[factory[0]] if factory else None, values)


def _moment(value: "Any") -> "tuple[object, ...]":
    clock = (value.hour, value.minute, value.second, value.microsecond)
    zone = value.tzinfo
    if zone is not None and type(zone).__name__ != "timezone":
        raise NotPlain(f"a time in the zone {type(zone).__name__}")
    day = (value.year, value.month, value.day) if hasattr(value, "year") else ()
    return *day, *clock, None if zone is None else _offset(zone), value.fold


def _moment_again(name: str, *args: "Any") -> object:
    import datetime

    *parts, zone, fold = args
    return getattr(datetime, name)(*parts, None if zone is None else _timezone_again(*zone), fold=fold)


def _timezone_again(days: int, seconds: int, microseconds: int) -> object:
    import datetime

    return datetime.timezone(datetime.timedelta(days, seconds, microseconds))


def _fields(value: "Any") -> "tuple[str, list[str], list[Any]]":
    return type(value).__name__, [str(name) for name in value._fields], list(tuple.__iter__(value))


def _fields_again(name: str, fields: "list[str]", values: "list[Any]") -> object:
    return __import__("collections").namedtuple(name, fields)._make(values)


def _made(module: str, name: str) -> "Callable[..., object]":
    return lambda *args: getattr(__import__(module), name)(*args)


# By name, so that a module is imported only where a value of it comes: (what a value is made from, the way back, the
# types of what it may be made from: a range in the place of a list could take for ever).
EXTRA: "dict[str, tuple[Callable[[Any], tuple[object, ...]], Callable[..., object], tuple[type, ...]]]" = {
    "builtins.range": (lambda v: (v.start, v.stop, v.step), range, (int,)),
    "builtins.slice": (lambda v: (v.start, v.stop, v.step), slice, (int, str, float, NONE)),
    "builtins.dict_keys": (lambda v: (list(v),), lambda keys: dict.fromkeys(keys).keys(), (list,)),
    "builtins.dict_values": (lambda v: (list(v),), lambda values: dict(enumerate(values)).values(), (list,)),
    "builtins.dict_items": (lambda v: (list(v),), lambda items: dict(items).items(), (list,)),
    "decimal.Decimal": (lambda v: (str(v),), _made("decimal", "Decimal"), (str,)),
    "fractions.Fraction": (lambda v: (v.numerator, v.denominator), _made("fractions", "Fraction"), (int,)),
    "collections.Counter": (lambda v: (dict(v),), _made("collections", "Counter"), (dict,)),
    "collections.OrderedDict": (lambda v: (list(v.items()),), _made("collections", "OrderedDict"), (list,)),
    "collections.defaultdict": (_default, _default_again, (dict, tuple)),
    "collections.deque": (lambda v: (list(v), v.maxlen), _made("collections", "deque"), (list, int, NONE)),
    "collections.namedtuple": (_fields, _fields_again, (str, list)),
    "datetime.timedelta": (lambda v: (v.days, v.seconds, v.microseconds), _made("datetime", "timedelta"), (int,)),
    "datetime.date": (lambda v: (v.year, v.month, v.day), _made("datetime", "date"), (int,)),
    "datetime.timezone": (_offset, _timezone_again, (int,)),
    "datetime.datetime": (_moment, lambda *args: _moment_again("datetime", *args), (int, tuple, NONE)),
    "datetime.time": (_moment, lambda *args: _moment_again("time", *args), (int, tuple, NONE)),
    "numpy.ndarray": (_numpy, lambda *args: _numpy_again(False, *args), (str, tuple, bytes)),
    "numpy.generic": (_numpy, lambda *args: _numpy_again(True, *args), (str, tuple, bytes)),
}
# The types that may travel by their name from the program: no instance of theirs is anything but plain data.
PLAIN_TYPES = (int, float, complex, bool, str, bytes, bytearray, list, tuple, set, frozenset, dict, range)


# ------------------------------------------------------------------------------------------------------------ writing
class Packer:
    """Writes one message.

    Args:
        refer: gives what does not travel by value a number.
        shared: classes of the tests' set-up, by name.
        of_program: the program writes it, whose functions stay with it.
    """

    def __init__(self, refer: "Refer", shared: "dict[str, type]", of_program: bool):
        self.refer, self.shared, self.of_program = refer, shared, of_program
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, *parts: bytes) -> None:
        """Write bytes. Raises NotPlain where the message becomes too long."""
        for part in parts:
            self.size += len(part)
            self.parts.append(part)
        if self.size > MOST:
            raise NotPlain(f"more than {MOST >> 20} MiB of data")

    def sized(self, tag: bytes, data: bytes) -> None:
        """Write a tag and bytes with their size."""
        self.add(tag, len(data).to_bytes(4, "little"), data)

    def text(self, tag: bytes, text: str) -> None:
        """Write a tag and a text."""
        self.sized(tag, str.encode(text, "utf-8", "surrogatepass"))

    def put(self, value: "Any", depth: int = 0) -> None:
        """Write a value. A class that inherits from a plain one counts as that one.

        Raises:
            NotPlain: it does not travel.
        """
        if depth > DEPTH:
            raise NotPlain(f"more than {DEPTH} containers inside each other")
        if isinstance(value, tuple) and isinstance(getattr(type(value), "_fields", None), tuple):
            self.put_extra("collections.namedtuple", value, depth)
            return
        for kind in type(value).__mro__:
            if (writer := WRITERS.get(kind)) is not None:
                writer(self, value, depth)
                return
            if kind is object or kind in self.shared.values():
                break
            if (name := f"{kind.__module__}.{kind.__qualname__}") in EXTRA:
                self.put_extra(name, value, depth)
                return
        self.put_other(value, depth)

    def put_extra(self, name: str, value: "Any", depth: int) -> None:
        """Write a value of a type of EXTRA."""
        self.add(b"x")
        self.text(b"s", name)
        self.put(EXTRA[name][0](value), depth + 1)

    def put_other(self, value: "Any", depth: int) -> None:
        """Write what is not plain: by its name, by its attributes or by a number."""
        kind = type(value)
        name = getattr(value, "__name__", None)
        if type(name) is not str or vars(builtins).get(name) is not value:
            name = ""
        if name and (value in PLAIN_TYPES if self.of_program else isinstance(value, type) or kind is type(len)):
            self.text(b"Y", name)
        elif self.shared.get(kind.__name__) is kind:
            self.text(b"O", kind.__name__)
            self.put(vars(value), depth)
        else:
            tag, number = self.refer(value)
            self.add(tag)
            self.put(number)
            self.put(value.shown_as if "shown_as" in vars(kind) else kind.__name__)

    def put_int(self, value: int, depth: int) -> None:
        self.sized(b"i", int.to_bytes(value, int.bit_length(value) // 8 + 1, "little", signed=True))

    def put_float(self, value: float, depth: int) -> None:
        self.add(b"f", marshal.dumps(float.__float__(value), 2)[1:])

    def put_complex(self, value: complex, depth: int) -> None:
        self.add(b"c", marshal.dumps(value.real, 2)[1:], marshal.dumps(value.imag, 2)[1:])

    def put_list(self, value: "list[Any]", depth: int) -> None:
        if len(value) > MANY:
            kinds = set(map(type, value))
            try:
                if kinds == {int}:
                    data = b"".join([item.to_bytes(8, "little", signed=True) for item in value])
                    self.add(b"q", len(value).to_bytes(4, "little"), data)
                    return
                if kinds == {float}:
                    data = b"".join([marshal.dumps(item, 2)[1:] for item in value])
                    self.add(b"d", len(value).to_bytes(4, "little"), data)
                    return
            except OverflowError:
                pass
        self.put_all(b"l", len(value), list.__iter__(value), depth)

    def put_dict(self, value: "dict[Any, Any]", depth: int) -> None:
        self.add(b"D", len(value).to_bytes(4, "little"))
        for key, item in list(dict.items(value)):
            self.put(key, depth + 1)
            self.put(item, depth + 1)

    def put_all(self, tag: bytes, count: int, values: "Iterator[Any]", depth: int) -> None:
        """Write a container."""
        self.add(tag, count.to_bytes(4, "little"))
        for value in values:
            self.put(value, depth + 1)


WRITERS: "dict[type, Callable[[Packer, Any, int], None]]" = {
    type(None): lambda p, v, d: p.add(b"N"),
    type(...): lambda p, v, d: p.add(b"E"),
    bool: lambda p, v, d: p.add(b"T" if v else b"F"),
    int: Packer.put_int,
    float: Packer.put_float,
    complex: Packer.put_complex,
    str: lambda p, v, d: p.text(b"s", v),
    bytes: lambda p, v, d: p.sized(b"b", bytes(v)),
    bytearray: lambda p, v, d: p.sized(b"B", bytes(v)),
    list: Packer.put_list,
    tuple: lambda p, v, d: p.put_all(b"t", len(v), tuple.__iter__(v), d),
    set: lambda p, v, d: p.put_all(b"S", len(v), set.__iter__(v), d),
    frozenset: lambda p, v, d: p.put_all(b"Z", len(v), frozenset.__iter__(v), d),
    dict: Packer.put_dict,
}


# ------------------------------------------------------------------------------------------------------------ reading
class Unpacker:
    """Reads one message.

    Args:
        data: the message.
        resolve: gives back what a number stands for.
        shared: classes of the tests' set-up, by name.
        trusted: the message comes from the tests, and may hold functions.
    """

    def __init__(self, data: bytes, resolve: "Resolve", shared: "dict[str, type]", trusted: bool):
        self.data, self.resolve, self.shared, self.trusted = data, resolve, shared, trusted
        self.at = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self.at + size
        if end > len(self.data):
            raise Forged("a message that ends early")
        part, self.at = self.data[self.at : end], end
        return part

    def count(self) -> int:
        """A size or a count. Nothing takes less than a byte, so none is larger than what is left."""
        number = int.from_bytes(self.take(4), "little")
        if number > len(self.data) - self.at:
            raise Forged("a message that ends early")
        return number

    def whole(self) -> "Any":
        """The message's one value. Raises Forged, whatever its parts do when they are put together."""
        try:
            value = self.get()
        except Forged:
            raise
        except Exception as e:
            raise Forged(f"{type(e).__name__}: {e}"[:200]) from None
        if self.at != len(self.data):
            raise Forged("a message with something behind its end")
        return value

    def get(self, depth: int = 0) -> "Any":
        """The next value. Raises Forged."""
        if depth > DEPTH + 3:
            raise Forged("a message nested too deeply")
        tag = self.take(1)
        if tag in CONSTANTS:
            return CONSTANTS[tag]
        if tag in b"isbB":
            return SIZED[tag](self.take(self.count()))
        if tag == b"f":
            return self.real()
        if tag == b"c":
            return complex(self.real(), self.real())
        if tag in b"qd":
            return memoryview(self.take(8 * self.count())).cast("q" if tag == b"q" else "d").tolist()
        if tag in b"ltSZ":
            items = [self.get(depth + 1) for _ in range(self.count())]
            return CONTAINERS[tag](items)
        if tag == b"D":
            pairs = [(self.get(depth + 1), self.get(depth + 1)) for _ in range(self.count())]
            return dict(pairs)
        if tag == b"x":
            name, args = self.get(depth + 1), self.get(depth + 1)
            if type(name) is not str or name not in EXTRA or type(args) is not tuple:
                raise Forged("an unknown type")
            _, make, allowed = EXTRA[name]
            if any(type(arg) not in allowed for arg in args):
                raise Forged(f"a {name} that is made of something else")
            return make(*args)
        return self.get_other(tag, depth)

    def get_other(self, tag: bytes, depth: int) -> "Any":
        """What `put_other` writes."""
        if tag == b"Y":
            value = vars(builtins).get(self.name())
            known = isinstance(value, type) or type(value) is type(len)
            if not (known if self.trusted else value in PLAIN_TYPES):
                raise Forged("an unknown builtin")
            return value
        if tag == b"O":
            kind, attributes = self.shared.get(self.name()), self.get(depth)
            if kind is None or type(attributes) is not dict or not all(type(key) is str for key in attributes):
                raise Forged("an unknown class")
            if any(callable(getattr(kind, key, None)) for key in attributes):
                raise Forged("an instance that hides a method")
            thing: Any = object.__new__(kind)
            thing.__dict__.update(attributes)
            return thing
        if tag in b"HGKI":
            number, name = self.get(DEPTH), self.get(DEPTH)
            if type(number) is not int or type(name) is not str:
                raise Forged("a number that is none")
            return self.resolve(tag, number, name)
        raise Forged("an unknown tag")

    def name(self) -> str:
        """A text whose tag was read."""
        return self.take(self.count()).decode("utf-8", "surrogatepass")

    def real(self) -> float:
        """The next eight bytes as a float: marshal's form of one, behind its tag."""
        number: float = marshal.loads(b"g" + self.take(8))
        return number


CONSTANTS = {b"N": None, b"T": True, b"F": False, b"E": ...}
CONTAINERS: "dict[bytes, Callable[[list[Any]], Any]]" = {b"l": list, b"t": tuple, b"S": set, b"Z": frozenset}
SIZED: "dict[bytes, Callable[[bytes], Any]]" = {
    b"i": lambda data: int.from_bytes(data, "little", signed=True),
    b"s": lambda data: data.decode("utf-8", "surrogatepass"),
    b"b": bytes,
    b"B": bytearray,
}


def carry_over(old: "Any", new: "Any") -> None:
    """Make an argument hold what the program left in its copy of it. What cannot change stays as it is."""
    if type(old) is not type(new):
        return
    if isinstance(old, (list, bytearray)):
        old[:] = new
    elif isinstance(old, (set, dict)):
        old.clear()
        old.update(new)
    elif isinstance(old, tuple):
        for before, after in zip(old, new, strict=False):
            carry_over(before, after)
    elif type(old).__name__ == "deque" and hasattr(old, "appendleft"):
        old.clear()
        old.extend(new)
    elif "numpy" in sys.modules and isinstance(old, sys.modules["numpy"].ndarray):
        if old.shape == new.shape and old.dtype == new.dtype:
            old[...] = new
    elif hasattr(old, "__dict__"):
        vars(old).clear()
        vars(old).update(vars(new))
