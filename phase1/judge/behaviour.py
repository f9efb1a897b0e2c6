"""By which rules an answer became a verdict, as hashes: two evaluations are comparable where these are equal.

What has a rule of its own is hashed by what it *does*: its outputs on the examples below, so that a rewrite that
changes nothing changes no hash. The judge cannot be run for that at every start; its sources are hashed instead.
An example that a rule's change should show in, and does not, belongs into these lists. New examples change the hash.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from phase1.contract import extraction, prompts
from phase1.contract.comparison import ORDERS, Comparison
from phase1.contract.problems import Problem
from phase1.contract.records import EXEC_SUCCESS, MODEL_ERRORS
from phase1.contract.state.evaluation_run import Behaviour
from phase1.files import sha256_file, sha256_json
from phase1.judge import compare
from phase1.judge.config import JudgeConfig

SOURCES = Path(__file__).resolve().parent

_LOOP = "for i in range(3):\n    print(i)"
_ANSWERS = (
    "",
    "print(1)",
    "\n\n    return x + 1\n\n",
    "<code>\nprint(1)\n</code>",
    "<CODE>print(1)</CODE>",
    "<code>\nprint(1)",
    f"Use <code> tags.\n<code>\n{_LOOP}\n</code>",
    f"<code>\n{_LOOP}\n</code>\nor shorter <code>print(0)</code>",
    "<code>\n```python\nprint(1)\n```\n</code>",
    "<code>x = 1</code> and\n```python\nprint(1)\nprint(2)\n```",
    "```python\nprint(1)\n```",
    "Sure: ```python\nprint(1)\n```",
    f"```\n3 4\n```\n```python\nprint(1)\n```\n```\n{_LOOP}\n```",
    "```python\nprint(1)",
    "~~~python\nprint(1)\n~~~",
    "- first\n\n  ```python\n  print(1)\n  ```",
    "<think>\n```python\nprint(0)\n```\n</think>\n<code>\nprint(1)\n</code>",
    f"The program is:\n{_LOOP}\nIt prints three numbers.",
    "I cannot solve this.",
    "print('a')\r\nprint('b')\r\n",
)
_EXPECTED_AND_ACTUAL = (
    (b"1\n", b"1\n"),
    (b"1\n", b"1"),
    (b"1\n", b""),
    (b"", b""),
    (b"", b"\n"),
    (b"1\n", b"1\n\n"),
    (b"1 2\n3\n", b"1  2 3"),
    (b"1\n2\n", b"1\r\n2\r\n"),
    (b"1\n2\n", b"2\n1\n"),
    (b"1\n2\n", b"1\n"),
    (b"YES\n", b"yes\n"),
    (b"YES\n", b" YES \n"),
    (b"9007199254740993\n", b"9007199254740992\n"),
    (b"1\n", b"1.0\n"),
    (b"1.0\n", b"1\n"),
    (b"1e3\n", b"1000\n"),
    (b"0.5\n", b".5\n"),
    (b"nan\n", b"nan\n"),
    (b"inf\n", b"inf\n"),
    (b"0.0\n", b"-0.0\n"),
    (b"\xff\n", b"\xfe\n"),
)
_UNORDERED = (  # beside those above, for the rules of problems
    (b"1 2 3\n", b"3 1 2\n"),
    (b"1 2\n3 4\n", b"3 4\n1 2\n"),
    (b"1 2\n3 4\n", b"4 3\n2 1\n"),
    (b"2\n1 2\n", b"2\n2\n1\n"),
    (b"1.0 2.0\n", b"2.00000001 1\n"),
    (b"3\n", b"3.0\n"),
    (b"a B\n", b"b A\n"),
    (b"1 1 2\n", b"1 2 2\n"),
)
_PROBLEM_RULES = (
    Comparison(),
    Comparison(any_case=True),
    Comparison(tolerance=1e-4),
    Comparison(tolerance=1e-9),
    *(Comparison(order=order) for order in ORDERS),
    Comparison(any_case=True, tolerance=1e-4, order="any", many_answers=True),
)
_SCALES = (0.0, 1.0, 1000.0)  # expected values around which the tolerance is measured
_DECIMALS = range(1, 14)  # of the deviations; each once for every first digit, so that 2e-6 and 1e-6 tell apart
_SOLUTION = "def f(x):\n    return x + 1"
_HUMANEVAL = 'import math\n\n\ndef helper(x):\n    return x\n\n\ndef f(x):\n    """Add one."""\n'
_CODES = (
    _SOLUTION,
    "    return x + 1",
    f"from __future__ import annotations\n{_SOLUTION}",
    f"import re\n{_SOLUTION}",
    "f = lambda x: x + 1",
    "",
)


def behaviour(config: JudgeConfig) -> Behaviour:
    """The rules by which an evaluation under these settings makes verdicts of answers."""
    taken = [extraction.take(text, config.extraction) for text in _ANSWERS]
    return Behaviour(
        answer_form=sha256_json(_asked()),
        extraction=sha256_json([t.code for t in taken]),
        beside=sha256_json([{**asdict(t), "code": ""} for t in taken]),
        comparison=sha256_json(_compared(config.compare)),
        programs=sha256_json(_programs()),
        judge_code=judge_code(),
    )


def judge_code() -> str:
    """The hash of every source of phase1/judge/, by name and bytes, and of the order in which errors count."""
    sources = {str(p.relative_to(SOURCES)): sha256_file(p) for p in sorted(SOURCES.rglob("*.py"))}
    return sha256_json([sources, MODEL_ERRORS, EXEC_SUCCESS])


def _asked() -> list[object]:
    """Training's and evaluation's turns for a statement of every type."""
    users = [prompts.user_message(kind, "\nAdd one.\n", "f", "f(1)") for kind in sorted(prompts.USER_TEMPLATES)]
    return [prompts.chat(users[0]), *users, *(prompts.answer(code) for code in (*_CODES, "\n\nprint(1)\n\n"))]


def _compared(mode: str) -> list[bool]:
    pairs = list(_EXPECTED_AND_ACTUAL)
    for scale in _SCALES:
        for decimals in _DECIMALS:
            pairs += [(b"%.4f" % scale, b"%.15f" % (scale + n * 10**-decimals)) for n in range(1, 10)]
    if mode != compare.PROBLEM:
        return [compare.same_output(want, got, mode) for want, got in pairs]
    pairs += _UNORDERED
    return [compare.same_output(want, got, mode, rule) for rule in _PROBLEM_RULES for want, got in pairs]


def _programs() -> list[str]:
    cases = {
        "type": "humaneval",
        "test_code": "def check(candidate):\n    assert candidate(1) == 2",
        "entry_point": "f",
    }
    asserts = Problem("humaneval", "example", _HUMANEVAL, cases)
    stdin = Problem("codecontests_valid", "example", "Print 1.", {"type": "codecontests", "tests": []})
    return [problem.program(code) for problem in (asserts, stdin) for code in _CODES]
