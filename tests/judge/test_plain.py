"""Plain data between a program and its tests: what goes in comes out, and nothing forged gets through."""

import collections
import contextlib
import datetime
import decimal
import fractions
import random
import struct
import sys

import numpy
import pytest

from phase1.judge.inside.plain import DEPTH, MOST, Forged, NotPlain, Packer, Unpacker, carry_over


class Point:
    """A class that both sides know."""

    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return type(other) is Point and vars(self) == vars(other)

    __hash__ = None

    def method(self):
        return self.x


def refuse(value):
    raise NotPlain(type(value).__name__)


def packed(value):
    packer = Packer(refuse, {"Point": Point}, of_program=False)
    packer.put(value)
    return b"".join(packer.parts)


def unpacked(data, trusted=False):
    return Unpacker(data, lambda tag, number, name: (tag, number, name), {"Point": Point}, trusted).whole()


nested = [0]
for _ in range(100):
    nested = [nested]
Named = collections.namedtuple("Named", "x y")
PLAIN = [
    None, True, False, ..., 0, 1, -1, 127, 128, -128, -129, 2**63, -(2**63), 10**500, -(10**500),
    0.0, -0.0, 1.5, float("inf"), -float("inf"), 1j, complex(-0.0, 3), "", "x", "ü𝄞\ud800\0", b"", b"\0\xff",
    bytearray(b"ab"), [], [1], [1.5] * 40, list(range(100)), [True] * 40, [1, 2.0] * 20, [2**64] * 40, (), (1, (2,)),
    set(), {1, "a"}, frozenset([1, (2, 3)]), {}, {1: [2], (3,): {4: 5}}, range(3), range(10, 0, -3), slice(1, None),
    decimal.Decimal("1.50"), decimal.Decimal("NaN"), fractions.Fraction(-3, 7), collections.Counter("abca"),
    collections.OrderedDict([("b", 1), ("a", 2)]), collections.deque([1, 2], 5), collections.defaultdict(int, a=1),
    datetime.date(2020, 2, 29), datetime.time(1, 2, 3, 4), datetime.timedelta(-1, 5, 6),
    datetime.datetime(2020, 1, 2, 3, 4, 5, 6, datetime.UTC, fold=1),
    datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=-3))),
    numpy.int64(-5), numpy.float32(1.5), numpy.bool_(True), numpy.datetime64("2020-01-01"),
    int, dict, Named(1, [2]), Point([1, Point(2)]), nested,
]  # fmt: skip


# Names by number: the text of a set depends on the hash seed, and the test workers have to agree on the names.
@pytest.mark.parametrize("value", PLAIN, ids=[f"{number}_{type(value).__name__}" for number, value in enumerate(PLAIN)])
def test_a_value_comes_back_equal_and_of_its_type(value):
    back = unpacked(packed(value))
    assert type(back).__name__ == type(value).__name__ and (repr(back) == repr(value) or back == value)
    if isinstance(value, (list, tuple)) and value is not nested:
        assert [type(item) for item in back] == [type(item) for item in value]
    assert packed(back) == packed(value) or isinstance(value, (set, frozenset))


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float32", "complex128", "U5", "S3", "datetime64[s]"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 4)])
def test_an_array_comes_back_with_its_shape_and_dtype(dtype, shape):
    array = numpy.zeros(shape, dtype)
    back = unpacked(packed(array))
    assert (back.dtype, back.shape) == (array.dtype, array.shape) and (back == array).all()
    if back.size:
        back.flat[0] = 1  # it is nobody else's memory


class Int(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    ("value", "base"),
    [(Int(5), 5), (type("L", (list,), {})([1]), [1]), ({}.keys(), {}.keys())],
)
def test_a_class_that_inherits_from_a_plain_one_comes_back_as_that_one(value, base):
    back = unpacked(packed(value))
    assert type(back) is type(base) and back == base


too_deep = nested
for _ in range(DEPTH):
    too_deep = [too_deep]


@pytest.mark.parametrize(
    "value",
    [
        object(),
        lambda: 0,
        type("A", (), {})(),
        numpy.array([object()]),
        numpy.zeros(2, "i4,f8"),
        iter([1]),
        too_deep,
        "x" * (MOST + 1),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_does_not_travel_is_refused(value):
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10 * DEPTH)
    try:
        with pytest.raises(NotPlain):
            packed(value)
    finally:
        sys.setrecursionlimit(limit)


def test_no_forged_bytes_do_anything_but_be_refused_or_read_as_plain_data():
    """Messages of all types, cut, changed and put together at random."""
    chance = random.Random(7)
    good = [packed(value) for value in PLAIN if value is not nested]
    allowed = {bool, int, float, complex, str, bytes, type(None), list, tuple, set, frozenset, dict, range, slice, type}
    seen = 0
    for _ in range(30_000):
        data = bytearray(chance.choice(good))
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(data) + 1)
            data[at : at + chance.randrange(3)] = chance.choice(
                [b"", bytes([chance.randrange(256)]), chance.choice(good)]
            )
        try:
            value = unpacked(bytes(data))
        except Forged:
            continue
        seen += 1
        kind = type(value)
        modules = ("collections", "datetime", "decimal", "fractions", "numpy", "builtins")
        assert kind in allowed or kind.__module__ in modules or kind is Point or issubclass(kind, tuple)
    assert seen > 1000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"?",
        b"NN",
        b"i\xff\xff\xff\xff",
        b"l\xff\xff\xff\x7f",
        b"q\x01\x00\x00\x00123",
        b"s\x01\x00\x00\x00\xff",
        b"l\x01\x00\x00\x00" * 5000,
        b"S\x01\x00\x00\x00l\x00\x00\x00\x00",
        b"D\x01\x00\x00\x00l\x00\x00\x00\x00N",
        b"Y\x04\x00\x00\x00eval",
        b"Y\x03\x00\x00\x00__x",
        b"xs\x02\x00\x00\x00ost\x00\x00\x00\x00",
        b"xs\x0f\x00\x00\x00decimal.Decimalt\x01\x00\x00\x00s\x01\x00\x00\x00?",
        b"O\x05\x00\x00\x00PointD\x01\x00\x00\x00s\x06\x00\x00\x00methodN",
        b"O\x03\x00\x00\x00strD\x00\x00\x00\x00",
        b"HNN",
        b"xs\x11\x00\x00\x00collections.dequet\x01\x00\x00\x00" + packed(range(10**18)),
        b"xs\x12\x00\x00\x00fractions.Fractiont\x01\x00\x00\x00" + packed("1e99999999"),
    ],
)  # fmt: skip
def test_a_message_that_nobody_packs_is_refused(data):
    with pytest.raises(Forged):
        unpacked(data)


@pytest.mark.parametrize("dtype", ["O", "|O", "V8", "i4,f8", "(2,)i4", "M8[nonsense]", "m", "q" * 100])
def test_an_array_of_a_dtype_that_could_hold_code_is_refused(dtype):
    name, size = b"numpy.ndarray", struct.Struct("<I").pack
    args = packed((dtype, (1,), bytes(8)))
    data = b"xs" + size(len(name)) + name + args
    with contextlib.suppress(Forged):
        assert unpacked(data).dtype.kind in "mMiu"


def test_functions_come_from_the_tests_alone():
    data = b"Y\x04\x00\x00\x00eval"
    assert unpacked(data, trusted=True) is eval
    with pytest.raises(Forged):
        unpacked(data)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([1, 2], [3]),
        ({1: 2}, {3: [4]}),
        ({1}, {2, 3}),
        (bytearray(b"a"), bytearray(b"bc")),
        (collections.deque([1]), collections.deque([2, 3])),
        (collections.Counter("a"), collections.Counter("bb")),
        (([1], 5), ([2], 5)),
        (numpy.zeros(3), numpy.ones(3)),
        (Point(1), Point([2])),
    ],
)
def test_an_argument_changes_in_place(old, new):
    same = old
    carry_over(old, new)
    assert same is old and repr(getattr(old, "x", old)) == repr(getattr(new, "x", new))


@pytest.mark.parametrize(
    ("old", "new"), [([1], (2,)), (5, 6), ("a", "b"), ({1: 2}, [3]), (numpy.zeros(3), numpy.ones(4))]
)
def test_what_cannot_have_changed_stays(old, new):
    before = repr(old)
    carry_over(old, new)
    assert repr(old) == before
