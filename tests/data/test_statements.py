"""phase1.data.statements: what a statement says of its answers."""

from __future__ import annotations

import pytest

from phase1.contract.comparison import comparison_of
from phase1.contract.problems import wrong_in
from phase1.data.public_sets import INTERACTIVE, Refused, codecontests_record
from phase1.data.statements import accepts_any_answer, comparison_told, is_interactive, tolerance_told, with_rule

CASE = {"case": "any"}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("If there are multiple answers, print any of them.", True),
        ("If there are several solutions, you may output any.", True),
        ("You can print any of them.", True),
        ("Any valid answer will be accepted.", True),
        ("If there are multiple possible strings, you can output any one of them.", True),
        ("Print any suitable sequence.", True),
        ("If several answers exist, print the smallest one.", False),
        ("You can perform the operation any number of times.", False),
        ("Print the number of ways modulo 998244353.", False),
        ("If there are multiple answers, print the lexicographically smallest.", False),
    ],
)
def test_statements_that_accept_any_answer_are_told(statement, expected):
    assert accepts_any_answer(statement) is expected


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("Print YES (you can print every letter in any case).", CASE),
        ("You can print each letter in any case (upper or lower).", CASE),
        ("You may output the answer in any case (for example, yEs and Yes are taken for YES).", CASE),
        ('Output "Yes" or "No" in any register.', CASE),
        ("The letters may be printed in\neither case", CASE),
        ("The answer's checker is case-insensitive.", CASE),
        ("In any case, print the sum.", {}),
        ("Two names that differ in case alone are equal. Print their number.", {}),
        ("Print the string in lower case.", {}),
        ("Print the edges in any order.", {"order": "any"}),
        ("The indices can be printed in arbitrary order.", {"order": "any"}),
        ("For each test case print the indices in any order.", {"order": "in_line"}),
        ("The points are given in any order. Print their number.", {}),
        ("Print the smallest cost if the cards may be taken in any order.", {}),
        ("Print the sum. You can visit them in any order.", {}),
        ("Print the words in the order of the input.", {}),
        ("", {}),
    ],
)
def test_case_and_order_are_read_where_they_are_of_the_output(statement, expected):
    assert comparison_told(statement) == expected


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("Your answer is correct if its absolute or relative error does not exceed 1e-6.", 1e-6),
        ("Error up to 1e-6 is allowed.", 1e-6),
        ("if the absolute or relative error does not exceed 10^{-9}.", 1e-9),
        ("if the absolute or relative error does not exceed 10^{ - 4}.", 1e-4),
        ("the relative or absolute error should not be greater than 10 - 6.", 1e-6),
        ("its error must be at most 10\u22126", 1e-6),
        ("an absolute error less than 10**-5", 1e-5),
        ("with precision of 0.0001.", 1e-4),
        ("accurate to within 1E-08", 1e-8),
        ("an absolute error of at most $$$10^{-2}$$$", 1e-2),
        ("absolute error at most 1e-3 or relative error at most 1e-6", 1e-3),
        ("an absolute or relative error.\n\nThe answer is 10 - 6.", None),
        ("Fix the compilation error in 10 - 5 minutes.", None),
        ("Print the sum of 10 - 6 and 0.01.", None),
        ("The relative error is at most 10 - 15.", None),
        ("Print an error of 10^{-100}.", None),
        ("The answer is rounded to 6 digits.", None),
    ],
)
def test_the_tolerance_is_read_as_statements_write_it(statement, expected):
    assert tolerance_told(statement) == expected


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("This is an interactive problem.", True),
        ("Interaction Protocol: ask at most 10 queries.", True),
        ("After each query flush the output.", True),
        ("Use fflush(stdout).", True),
        ("A royal flush beats four of a kind.", False),
        ("This is not an interactive problem.", False),
        ("The museum has an interactive map.", False),
    ],
)
def test_an_interactive_statement_is_told_and_refused_with_its_reason(statement, expected):
    assert is_interactive(statement) is expected
    row = {"problem_id": "p", "prompt": statement, "test_cases": {"type": "codecontests", "tests": [{}]}}
    if expected:
        with pytest.raises(Refused, match=INTERACTIVE):
            codecontests_record(row)
    else:
        assert codecontests_record(row)["test_cases"] == row["test_cases"]


def test_what_was_read_stands_beside_the_tests_and_what_was_corrected_stays():
    cases = {"type": "codecontests", "tests": [{"input": "", "output": "1"}]}
    statement = "Print each letter in any case, with an error of at most 1e-4. If there are several answers, print any."
    told = with_rule(cases, statement)
    assert told == {**cases, "compare": {"case": "any", "tolerance": 1e-4}, "answers": "many"} and not wrong_in(told)
    assert comparison_of(told).words == "case any, tolerance 0.0001, answers many"
    corrected = {**cases, "compare": {}, "answers": "one"}
    assert with_rule(corrected, statement) == corrected and comparison_of(corrected).words == ""


def test_asserts_have_no_outputs_to_compare():
    cases = {"type": "mbpp", "test_list": ["assert f(1)"], "entry_point": "f"}
    assert with_rule(cases, "Return it in any case; print the letters in any order.") == cases
