"""The comparison rules, case by case: the table of what each mode accepts."""

import pytest

from phase1.contract.comparison import Comparison
from phase1.judge.compare import MODES, same_output

AC, WA = True, False
COLUMNS = ("tokens", "verl", "sandboxfusion", "codecontests", "exact")
# name: (expected, actual, and the verdict of each of COLUMNS)
TABLE = {
    "same": ("1 2\n3\n", "1 2\n3\n", AC, AC, AC, AC, AC),
    "no newline at the end": ("1\n", "1", AC, AC, AC, AC, WA),
    "CRLF": ("1\n2\n", "1\r\n2\r\n", AC, WA, AC, AC, WA),
    "trailing space": ("1\n2\n", "1 \n2 \n", AC, WA, AC, AC, WA),
    "double space": ("1 2\n", "1  2\n", AC, WA, WA, AC, WA),
    "blank line inserted": ("1\n2\n", "1\n\n2\n", AC, WA, WA, AC, WA),
    "one line or two": ("1 2\n", "1\n2\n", AC, WA, WA, AC, WA),
    "other case": ("YES\n", "Yes\n", WA, WA, AC, AC, WA),
    "float within 1e-7 in a row": ("0.5 1.5\n", "0.50000001 1.5\n", AC, WA, WA, AC, WA),
    "float within 1e-7 alone": ("0.5\n", "0.50000001\n", AC, WA, AC, AC, WA),
    "big integer off by one": ("1000000000000000000\n", "1000000000000000001\n", WA, WA, AC, AC, WA),
    "nan and inf": ("nan inf\n", "nan inf\n", AC, AC, AC, AC, AC),
    "missing token": ("1 2 3\n", "1 2\n", WA, WA, WA, WA, WA),
    "extra token": ("1 2\n", "1 2 3\n", WA, WA, WA, WA, WA),
    "nothing": ("1\n", "", WA, WA, WA, WA, WA),
    "nothing for nothing": ("", "", AC, AC, AC, AC, AC),
    "blank for nothing": ("", "\n\n", AC, AC, AC, AC, WA),
    "leading space": ("1\n", " 1\n", AC, WA, AC, AC, WA),
    "form feed and tab": ("1 2\n", "1\t\x0c2\n", AC, WA, WA, AC, WA),
}


@pytest.mark.parametrize(("name", "mode"), [(n, m) for n in TABLE for m in COLUMNS])
def test_table(name, mode):
    expected, actual, *accepted = TABLE[name]
    assert same_output(expected.encode(), actual.encode(), mode) is accepted[COLUMNS.index(mode)]


@pytest.mark.parametrize(
    ("expected", "actual", "accepted"),
    [
        ("0.333333", "0.3333335", AC),
        ("0.333333", "0.333335", WA),
        ("1000000.0", "1000000.5", AC),  # relative
        ("1000000.0", "1000002.0", WA),
        ("0.0", "0.0000009", AC),  # absolute
        ("0.0", "0.000002", WA),
        ("2.0", "2", AC),
        ("2", "2.0", WA),  # an expected integer is text
        ("1e9", "1000000000", AC),
        ("-0.0", "0.0", AC),
        ("1.5", "abc", WA),
        ("1.5", "nan", WA),
        ("1.5", "inf", WA),
        ("inf", "1e999", WA),
        ("1.0e400", "1.0e401", WA),
        ("nan", "NaN", WA),
        ("1.5", "0x1.8p0", WA),
        ("1.5", "1_.5", WA),
        ("0.1", "1" * 5000, WA),
        ("007", "7", WA),
        (".5", "0.5", AC),
        ("5.", "5", AC),
    ],
)
def test_only_an_expected_decimal_has_a_tolerance(expected, actual, accepted):
    assert same_output(expected.encode(), actual.encode()) is accepted


# The cases that the tester's own test publishes (google-deepmind/code_contests, execution/tester_sandboxer_test.cc,
# OutputsMatchTest): (output, expected, whether they match).
PUBLISHED = [
    ("abc def", "abc def", AC),
    ("abc deg", "abc def", WA),
    ("abc def", "abc def 123", WA),
    ("abc DEF", "abc def", AC),
    ("abc 123", "abc 123.000001", AC),
    ("abc 123", "abc 123.1", WA),
]
# What its source, compiled with Abseil 20220623, says of the corners (the same order).
COMPILED = [
    ("0.00001", "0", WA),  # less than 1e-5, not as much
    ("0.000009", "0", AC),
    ("1000000.5", "1000000.0", WA),  # never relative
    ("9007199254740993", "9007199254740992", AC),  # integers too are compared as doubles
    ("nan 1.0", "nan 1.0", AC),  # equal as a whole
    ("nan 1.0", "nan 1.00", WA),  # but nan equals nothing
    ("inf 1.0", "inf 1.00", WA),
    ("Infinity", "inf", WA),
    ("nan(1)", "nan", WA),
    ("1e400", "inf", WA),
    ("0x10", "16", AC),
    ("0x1p99999", "1", WA),
    ("0x1p-99999", "0", AC),
    ("0x", "0", WA),
    ("1.", "1", AC),
    (".5", "0.5", AC),
    (".", ".0", WA),
    ("+1", "1", AC),
    ("+-1", "-1", WA),
    ("1_0", "10", WA),
    ("1e", "1", WA),
    ("1\x0c", "1", AC),  # no separator, and yet white space around a number
    ("a\x0c", "a", WA),
    ("1\x0b2", "1 2", AC),
    ("\u00c4", "\u00e4", WA),  # lower case in ASCII alone
]


@pytest.mark.parametrize(("output", "expected", "accepted"), PUBLISHED + COMPILED)
def test_codecontests_is_the_rule_of_the_data_sets_own_tester(output, expected, accepted):
    assert same_output(expected.encode(), output.encode(), "codecontests") is accepted


@pytest.mark.parametrize("mode", MODES)
def test_bytes_that_are_not_utf8_are_compared(mode):
    assert same_output(b"\xff\xfe\n", b"\xff\xfe\n", mode)
    assert not same_output(b"ab\n", b"\xff\n", mode)


def test_bytes_that_are_not_utf8_differ_as_bytes():
    assert not same_output(b"\xff\n", b"\xfe\n")


def test_unicode_spaces_are_no_separators():
    assert not same_output(b"1 2", "1\u00a02".encode())


def test_a_long_output_takes_no_time_to_speak_of():
    data = b"123456 789.25\n" * 400_000
    assert same_output(data, data.replace(b"\n", b" \n"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "actual",
    ["1" * 1_000_000 + "x", "1" * 500_000 + "." + "1" * 500_000 + "x", "1e" + "1" * 1_000_000 + "_", "." * 1_000_000],
)
def test_a_megabyte_that_is_nearly_a_number_takes_no_time_to_speak_of(mode, actual):
    assert not same_output(b"0.5", actual.encode(), mode)
    assert not same_output(actual.encode(), b"0.5", mode)


CASE, ROUGH, FINE = Comparison(any_case=True), Comparison(tolerance=1e-4), Comparison(tolerance=1e-9)
ANY, IN_LINE = Comparison(order="any"), Comparison(order="in_line")


@pytest.mark.parametrize(
    ("rule", "expected", "actual", "accepted"),
    [
        (CASE, "YES\n", "yEs\n", AC),
        (CASE, "YES\n", "no\n", WA),
        (CASE, "\u00c4", "\u00e4", WA),  # ASCII alone
        (CASE, "1E3", "1000", AC),
        (ROUGH, "3", "3.0", AC),
        (ROUGH, "3", "3.00009", AC),
        (ROUGH, "3", "3.0009", WA),
        (ROUGH, "1000000", "1000099", AC),  # relative
        (ROUGH, "yes 3", "Yes 3", WA),
        (ROUGH, "3", "nan", WA),
        (ROUGH, "inf", "1e999", WA),
        (FINE, "0.333333", "0.333333333333", AC),  # the jury wrote fewer digits
        (FINE, "3", "3.0000001", WA),
        (IN_LINE, "3\n1 2 3\n", "3\n3 1 2\n", AC),
        (IN_LINE, "3\n1 2 3\n", "3 3 1 2", AC),
        (IN_LINE, "1 1 2", "1 2 2", WA),
        (IN_LINE, "YES\nNO\n", "NO\nYES\n", WA),
        (IN_LINE, "1 2\n3 4\n", "2 1\n4 3\n", AC),
        (IN_LINE, "1 2\n3 4\n", "1 3\n2 4\n", WA),
        (ANY, "1 2\n3 4\n", "3 4\n1 2\n", AC),
        (ANY, "1 2\n3 4\n", "2 1\n4 3\n", AC),
        (ANY, "1 2\n3 4\n", "4 3\n2 1\n", WA),  # lines or their tokens, not both
        (ANY, "1\n2\n3\n", "3 2 1\n", AC),
        (ANY, "1 2 3\n", "3\n2\n1\n", AC),
        (ANY, "2\n1 2\n3 4\n", "2\n\n3 4\n1 2\n", AC),
        (ANY, "1 2\n", "1 2 2\n", WA),
        (ANY, "a\nB\n", "b\na\n", WA),
        (Comparison(any_case=True, order="any"), "a\nB\n", "b\nA\n", AC),
        (ANY, "10 9\n", "9 10\n", AC),
        (ANY, "1.0 2.5\n", "2.5000001 1\n", AC),
        (Comparison(tolerance=1e-4, order="any"), "1 2.5\n", "2.50001 0.99999\n", AC),
        (Comparison(many_answers=True), "1 2", "2 1", WA),
    ],
)
def test_a_problems_own_rule(rule, expected, actual, accepted):
    assert same_output(expected.encode(), actual.encode(), "problem", rule) is accepted
    assert same_output(expected.encode(), expected.encode(), "problem", rule)


@pytest.mark.parametrize("rule", [CASE, ROUGH, FINE, ANY, IN_LINE, Comparison(True, 1e-4, "any", True)])
@pytest.mark.parametrize(("expected", "actual"), [(e, a) for e, a, *_ in TABLE.values()])
def test_a_rule_accepts_what_tokens_accept_and_other_modes_ignore_it(rule, expected, actual):
    want, got = expected.encode(), actual.encode()
    assert same_output(want, got, "problem", rule) >= same_output(want, got, "tokens")
    for mode in COLUMNS:
        assert same_output(want, got, mode, rule) is same_output(want, got, mode)


@pytest.mark.slow
@pytest.mark.parametrize("rule", [ANY, IN_LINE, Comparison(True, 1e-4, "any")])
def test_a_long_output_in_another_order_takes_no_time_to_speak_of(rule):
    lines = [f"{i} {i + 1}" for i in range(100_000)]
    want, got = ("\n".join(order).encode() for order in (lines, lines[::-1]))
    assert same_output(want, got, "problem", rule) is (rule.order == "any")
