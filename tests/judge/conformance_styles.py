"""Programs written by hand for the conformance bench: how people write contest programs, and what they look at.

Most are in tests/judge/conformance/: `style.txt` and `machinery.txt` have ways of writing a program, `look.txt`
programs that print what the interpreter tells of itself, of their own file and of the place they run in. `TEXTS` are
about how the text itself is written. Each gets `NUMBERS` as its input unless `INPUT_OF` says otherwise.
"""

from __future__ import annotations

from tests.judge.conformance_programs import Program, blocks

NUMBERS = "5\n3 1 4 1 5\n"
CASES = "3\n4\n1 2 3 4\n1\n9\n2\n-5 5\n"

# Too long, or too particular about their characters, for a file.
GENERATED = {
    "nested_finally": "def f():\n"
    + "".join("    " * (i + 1) + "try:\n" for i in range(10))
    + "    " * 11
    + "return 1\n"
    + "".join("    " * (i + 1) + "finally:\n" + "    " * (i + 2) + f"print({i})\n" for i in reversed(range(10)))
    + "print(f())\n",
    "nested_finally_19": "".join(" " * i + "try:\n" for i in range(19))
    + " " * 19
    + "print('in')\n"
    + "".join(" " * i + "finally:\n" + " " * (i + 1) + f"print({i})\n" for i in reversed(range(19))),
    "nested_blocks_25": "".join(" " * i + "for a in '1':\n" for i in range(25)) + " " * 25 + "print('deep')\n",
    "nested_if_90": "".join(" " * i + "if 1:\n" for i in range(90)) + " " * 90 + "print('deep')\n",
    "long_expression": "print(" + "+".join(["1"] * 2000) + ")\n",
    "parentheses_150": "print(" + "(" * 150 + "1" + ")" * 150 + ")\n",
    "tab_error": "if 1:\n\tprint(1)\n        print(2)\n",
    "null_byte": "print(1)\0\n",
}

# How the text itself is written.
TEXTS = {
    "byte_order_mark": "\ufeffprint(int(input()) + 1)\n",
    "crlf": "n = int(input())\r\nif n:\r\n    print('''a\r\nb''', len('''x\r\ny'''))\r\n",
    "cr_only": "print(1)\rprint(2)\r",
    "form_feed": "\x0cprint(1)\n\x0c\nif 1:\n\x0c    print(2)\n",
    "cookie_utf8": "# -*- coding: utf-8 -*-\nprint('é')\n",
    "cookie_latin1": "# -*- coding: latin-1 -*-\nprint('é', len('é'))\n",
    "cookie_unknown": "# -*- coding: no-such-code -*-\nprint(1)\n",
    "cookie_ascii": "# coding: ascii\nprint('é')\n",
    "mark_and_cookie": "\ufeff# coding: latin-1\nprint(1)\n",
    "shebang": "#!/usr/bin/env python3\nprint(1)\n",
    "future": "from __future__ import annotations, division\nprint(3 / 2)\ndef f(x: nothing): pass\n",
    "future_late": "x = 1\nfrom __future__ import division\n",
    "no_newline": "print(1)",
    "comment_at_end": "print(1)\n# the end",
    "backslash_at_end": "print(1)\\",
    "mixed_line_ends": "print(1)\r\nprint(2)\nprint(3)\r",
    "mark_in_the_middle": "print(1)\n\ufeffprint(2)\n",
    "no_break_space": "print(1)\u00a0\n",
    "unicode_names": "ñ = 3\nπ = 3.14\nprint(ñ, π)\n",
    "control_z": "print(1)\n\x1a\n",
    "empty_statement": ";\n",
    "only_comment": "# nothing\n",
    "only_docstring": "'''nothing'''\n",
    "tabs": "for i in range(2):\n\tif i:\n\t\tprint(i)\n",
    "null_in_text": "print('a\\0b')\n",
}

INPUT_OF = {"many_cases": CASES, "eof_as_end": "1 2\n3 4\n", "numpy_fromstring": "1 2 3 4\n"}


def styles() -> list[Program]:
    """All of them, named `style:…`, `look:…` and `text:…`."""
    kinds = {"style": blocks("style") | blocks("machinery") | GENERATED, "look": blocks("look"), "text": TEXTS}
    return [
        Program(f"{kind}:{name}", code, INPUT_OF.get(name, NUMBERS), packages="numpy" in code)
        for kind, programs in kinds.items()
        for name, code in programs.items()
    ]
