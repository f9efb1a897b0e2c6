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
    J                       an iterator over what a list holds (l)
    H G K                   what stays on the other side: an object, an iterator (of the program), a function (of the
                            tests): i, a number, and s, the name of its class
"""

import builtins
import marshal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Refer = Callable[[Any], tuple[bytes, int]]  # an object to a tag of H, G or K and its number; raises NotPlain
    Resolve = Callable[[bytes, int, str], Any]  # the way back, with the name of its class

MOST = 16 << 20  # bytes of one message
DEPTH = 300  # containers inside containers
MANY = 16  # ints or floats that are worth a tag of their own
DRAWN = 100_000  # values of an iterator that the tests hand over


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


def _moment(value: "Any") -> "tuple[object, ...]":
    clock = (value.hour, value.minute, value.second, value.microsecond)
    zone = value.tzinfo
    if zone is not None and type(zone).__name__ != "timezone":
        raise NotPlain(f"a time in the zone {type(zone).__name__}")
    day = (value.year, value.month, value.day) if hasattr(value, "year") else ()
    return *day, *clock, zone, value.fold


def _moment_again(name: str, *args: "Any") -> object:
    import datetime

    *parts, fold = args
    return getattr(datetime, name)(*parts, fold=fold)


def _timezone_again(days: int, seconds: int, microseconds: int) -> object:
    import datetime

    return datetime.timezone(datetime.timedelta(days, seconds, microseconds))


def _made(module: str, name: str) -> "Callable[..., object]":
    return lambda *args: getattr(__import__(module), name)(*args)


# By name, so that a module is imported only where a value of it comes: (what a value is made from, the way back).
EXTRA: "dict[str, tuple[Callable[[Any], tuple[object, ...]], Callable[..., object]]]" = {
    "builtins.range": (lambda v: (v.start, v.stop, v.step), range),
    "builtins.slice": (lambda v: (v.start, v.stop, v.step), slice),
    "builtins.dict_keys": (lambda v: (list(v),), lambda keys: dict.fromkeys(keys).keys()),
    "builtins.dict_values": (lambda v: (list(v),), lambda values: dict(enumerate(values)).values()),
    "builtins.dict_items": (lambda v: (list(v),), lambda items: dict(items).items()),
    "decimal.Decimal": (lambda v: (str(v),), _made("decimal", "Decimal")),
    "fractions.Fraction": (lambda v: (v.numerator, v.denominator), _made("fractions", "Fraction")),
    "collections.Counter": (lambda v: (dict(v),), _made("collections", "Counter")),
    "collections.OrderedDict": (lambda v: (list(v.items()),), _made("collections", "OrderedDict")),
    "collections.defaultdict": (lambda v: (v.default_factory, dict(v)), _made("collections", "defaultdict")),
    "collections.deque": (lambda v: (list(v), v.maxlen), _made("collections", "deque")),
    "datetime.timedelta": (lambda v: (v.days, v.seconds, v.microseconds), _made("datetime", "timedelta")),
    "datetime.date": (lambda v: (v.year, v.month, v.day), _made("datetime", "date")),
    "datetime.timezone": (_offset, _timezone_again),
    "datetime.datetime": (_moment, lambda *args: _moment_again("datetime", *args)),
    "datetime.time": (_moment, lambda *args: _moment_again("time", *args)),
    "numpy.ndarray": (_numpy, lambda *args: _numpy_again(False, *args)),
    "numpy.generic": (_numpy, lambda *args: _numpy_again(True, *args)),
}
MUTABLE = frozenset(b"BqdlSDxOtJ")  # tags of values that may change, or hold what may


# ------------------------------------------------------------------------------------------------------------ writing
class Packer:
    """Writes one message.

    Args:
        refer: gives what does not travel by value a number.
        shared: classes of the tests' set-up, by name.
    """

    def __init__(self, refer: "Refer", shared: "dict[str, type]"):
        self.refer, self.shared = refer, shared
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
        for kind in type(value).__mro__:
            if (writer := WRITERS.get(kind)) is not None:
                writer(self, value, depth)
                return
            if kind is object or kind in self.shared.values():
                break
            extra = EXTRA.get(f"{kind.__module__}.{kind.__qualname__}")
            if extra is not None:
                self.add(b"x")
                self.text(b"s", f"{kind.__module__}.{kind.__qualname__}")
                self.put(extra[0](value), depth + 1)
                return
        self.put_other(value, depth)

    def put_other(self, value: "Any", depth: int) -> None:
        """Write what is not plain: by its name, by its attributes or by a number."""
        kind = type(value)
        name = getattr(value, "__name__", None)
        if type(name) is str and (isinstance(value, type) or kind is type(len)) and vars(builtins).get(name) is value:
            self.text(b"Y", name)
        elif self.shared.get(kind.__name__) is kind:
            self.text(b"O", kind.__name__)
            self.put(vars(value), depth)
        else:
            tag, number = self.refer(value)
            if tag == b"J":
                self.add(tag)
                self.put([item for item, _ in zip(value, range(DRAWN), strict=False)], depth + 1)
                return
            self.add(tag)
            self.put(number)
            self.put(kind.__name__)

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
        pairs = list(dict.items(value))
        self.put_all(b"D", len(pairs), (side for pair in pairs for side in pair), depth)

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
            return EXTRA[name][1](*args)
        return self.get_other(tag, depth)

    def get_other(self, tag: bytes, depth: int) -> "Any":
        """What `put_other` writes."""
        if tag == b"J":
            return iter(list(self.get(depth + 1)))
        if tag == b"Y":
            value = vars(builtins).get(self.name())
            if not isinstance(value, type) and not (self.trusted and type(value) is type(len)):
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
        if tag in b"HGK":
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
