"""What a careful reader takes from an answer, beside what the contract takes."""

import json
import time

import pytest

from phase1.contract.extraction import contract_form, extract_code, is_program, read_answer
from phase1.contract.prompts import answer

P = "n = int(input())\nprint(n * n)"  # the program that a reader takes
LONG = "\n".join(f"line {i} of an output that goes on" for i in range(20))
DRAFT = "for i in range(int(input())):\n    for j in range(i):\n        print(i, j, i * j, end=' ')"
BODY = "    total = 0\n    for x in xs:\n        total += x\n    return total"


def py(text, fence="```", info="python"):
    return f"{fence}{info}\n{text}\n{fence}"


def indented(text, by):
    return "\n".join(by + line if line else line for line in text.split("\n"))


# name -> (answer, program, rule)
CASES = {
    # ------------------------------------------------------------------------------------------- the contract's own
    # form
    "tags": (f"<code>\n{P}\n</code>", P, "code_tag"),
    "tags in capitals": (f"<CODE>\n{P}\n</Code>", P, "code_tag"),
    "prose before tags": (f"Here it is.\n\n<code>\n{P}\n</code>\n\nIt squares.", P, "code_tag"),
    "tags without line ends": ("<code>print(input())</code>", "print(input())", "code_tag"),
    "tags never closed": (f"<code>\n{P}\n", P, "unclosed_tag"),
    "tags with a broken program": ("<code>\nprint((1\n</code>", "print((1", "code_tag"),
    "a fence in tags": (f"<code>\n{py(P)}\n</code>", P, "code_tag_fence"),
    "prose and a fence in tags": (f"<code>\nHere is it:\n{py(P)}\nThat is all.\n</code>", P, "code_tag_fence"),
    "two fences in tags": (f"<code>\n{py(P)}\nprints\n```\n{LONG}\n```\n</code>", P, "code_tag_fence"),
    "tags in a fence": (f"```python\n<code>\n{P}\n</code>\n```", P, "code_tag"),
    "a draft in tags, then the program": (f"<code>\nprint(1)\n</code>\nBetter:\n<code>\n{P}\n</code>", P, "code_tag"),
    "an end tag in a string": ("<code>\ns = '</code>'\nprint(s)\n</code>", "s = '</code>'\nprint(s)", "code_tag"),
    "a fence in a docstring in tags": (
        f'<code>\n"""\n{py("x = 1")}\n"""\n{P}\n</code>',
        f'"""\n{py("x = 1")}\n"""\n{P}',
        "code_tag",
    ),
    "the body of a function in tags": (f"<code>\n{BODY}\n</code>", BODY, "code_tag"),
    # -------------------------------------------------------------------------------------------------- tags only named
    "tags named": (f"Here is the code inside <code> and </code>:\n\n{py(P)}\n", P, "tag_in_prose+fence"),
    "tags named in backticks": (f"I put it in `<code>` and `</code>` tags:\n{py(P)}", P, "tag_in_prose+fence"),
    "tags named in quotes": (f'The "<code>" tag was asked for. {chr(10)}{py(P)}', P, "tag_in_prose+fence"),
    "tags named twice": (f"Between <code> and </code>, as <code> ... </code> says:\n{py(P)}", P, "tag_in_prose+fence"),
    "one tag named": (f"The <code> tag holds it.\n{py(P)}", P, "tag_in_prose+fence"),
    "a variable in tags": (f"We read <code>n</code> and print its square.\n{py(P)}", P, "tag_in_prose+fence"),
    "tags named, then used": (f"The code in <code> and </code> tags:\n<code>\n{P}\n</code>", P, "code_tag"),
    "tags named behind": (f"{py(P)}\nThe code stands in <code> and </code> as asked.", P, "tag_in_prose+fence"),
    "tags named in a sentence, then used": (
        f"The code is in the <code> tag below.\n\n<code>\n{P}\n</code>",
        P,
        "code_tag",
    ),
    "dots in tags": (f"<code>...</code> as requested:\n{py(P)}", P, "tag_in_prose+fence"),
    "a placeholder in tags": (f"The form is <code>your code here</code>.\n{py(P)}", P, "tag_in_prose+fence"),
    "prose in tags": (f"<code>\nHere is the program:\n\n{P}\n</code>", P, "code_tag_prose"),
    "prose behind tags never closed": (
        f"<code>\n{P}\n\nThis program reads n and prints its square.",
        P,
        "code_tag_prose",
    ),
    "an output in tags": (f"<code>\n{P}\n</code>\nOutput:\n<code>\n{LONG}\n</code>", P, "code_tag"),
    # ----------------------------------------------------------------------------------------------------------
    # thoughts
    "thoughts with a draft": (f"<think>\n{py(DRAFT)}\nno\n</think>\n{py(P)}", P, "after_think+fence"),
    "thoughts with tags": (
        f"<think>\n<code>\n{DRAFT}\n</code>\n</think>\n<code>\n{P}\n</code>",
        P,
        "after_think+code_tag",
    ),
    "thinking": (f"<thinking>{py(DRAFT)}</thinking>\n\n{py(P)}", P, "after_think+fence"),
    "the template opened the thoughts": (
        f"First\n{py(DRAFT)}\nno, better so\n</think>\n\n{py(P)}",
        P,
        "after_think+fence",
    ),
    "thoughts, then bare code": (f"<think>\n{DRAFT}\n</think>\n{P}", P, "after_think+whole"),
    "two blocks of thoughts": (f"<think>{py(DRAFT)}</think>\n<think>{DRAFT}</think>\n{py(P)}", P, "after_think+fence"),
    "thoughts that never end, behind": (f"{py(P)}\n<think>\n{py(DRAFT)}\nhm", P, "after_think+fence"),
    "thoughts that are all there is": (f"<think>\n{py(P)}\n", P, "fence"),
    "a program that prints the tag": (
        py("print('<think>')\nprint('</think>')"),
        "print('<think>')\nprint('</think>')",
        "fence",
    ),
    # ------------------------------------------------------------------------------------------------------------
    # fences
    "a fence": (py(P), P, "fence"),
    "a fence behind a word": (f"Sure: {py(P)}", P, "fence"),
    "a fence without a mark": (py(P, info=""), P, "fence"),
    "python3": (py(P, info="python3"), P, "fence"),
    "py": (py(P, info="py"), P, "fence"),
    "a title": (py(P, info='python title="main.py"'), P, "fence"),
    "braces": (py(P, info="{.python .numberLines}"), P, "fence"),
    "Python in capitals": (py(P, info="Python"), P, "fence"),
    "a fence never closed": (f"```python\n{P}", P, "unclosed_fence"),
    "four backticks": (py(P, fence="````"), P, "fence"),
    "four backticks around three": (py(f'"""\n```\n"""\n{P}', fence="````"), f'"""\n```\n"""\n{P}', "fence"),
    "tildes": (py(P, fence="~~~"), P, "tilde_fence"),
    "five tildes without a mark": (py(P, fence="~~~~~", info=""), P, "tilde_fence"),
    "a body in a fence": (py(BODY), BODY, "fence"),
    "CRLF": (f"<code>\n{P}\n</code>".replace("\n", "\r\n"), P, "code_tag"),
    "CRLF in a fence": (f"Here:\n{py(P)}\n".replace("\n", "\r\n"), P, "fence"),
    # --------------------------------------------------------------------------------------------- a program among
    # fences
    "a longer output": (f"{py(P)}\nOutput:\n```\n{LONG}\n```", P, "program_fence"),
    "a longer output before": (f"For\n```\n{LONG}\n```\nwrite\n{py(P)}", P, "program_fence"),
    "a longer output, nothing marked": (f"{py(P, info='')}\n```\n{LONG}\n```", P, "program_fence"),
    "an output that parses": (f"{py(P, info='')}\n```\n{'[1, 2, 3], ' * 20}\n```", P, "program_fence"),
    "a shell": (
        f"```bash\n$ python3 main.py < input.txt > output.txt && cat output.txt\n```\n{py(P)}",
        P,
        "program_fence",
    ),
    "a shell line that parses": (
        f"{py(P)}\n```sh\nsource = here_is_a_long_line_of_shell_that_is_python_as_well\n```",
        P,
        "program_fence",
    ),
    "text": (f"{py(P)}\n```text\n{LONG}\n```", P, "program_fence"),
    "another language": (f"```cpp\nint main() {{ {LONG} }}\n```\nIn Python:\n{py(P)}", P, "program_fence"),
    "an example of its use": (f"{py(P)}\nRun it:\n```python\nprint(5)\n```", P, "program_fence"),
    "a draft of the same length": (f"{py(P.replace('n * n', 'n + n'))}\nNo:\n{py(P)}", P, "program_fence"),
    "a broken draft": (f"{py('n = int(input()')}\nA bracket was missing:\n{py(P)}", P, "program_fence"),
    "a broken program and an example": (
        f"{py(P + chr(10) + 'print((n')}\n```python\nprint(5)\n```",
        P + "\nprint((n",
        "program_fence",
    ),
    "an empty fence": (f"```\n```\n{py(P)}", P, "fence"),
    "a marked program beside a longer unmarked one": (f"{py(DRAFT, info='')}\n{py(P)}", P, "program_fence"),
    # ------------------------------------------------------------------------------------------------- lists and quotes
    "in a list": (f"1. The program:\n\n{indented(py(P), '   ')}\n", P, "indented_fence"),
    "in a list, by a tab": (f"- The program:\n\n{indented(py(P), chr(9))}\n", P, "indented_fence"),
    "on the line of a list": ("1. ```python\n   n = int(input())\n   print(n * n)\n   ```", P, "indented_fence"),
    "in a list in a list": (f"- a\n  - b\n{indented(py(P), '      ')}\n", P, "indented_fence"),
    "tildes in a list": (f"1. So:\n{indented(py(P, fence='~~~'), '   ')}\n", P, "indented_fence"),
    "a block in a list": (
        f"* a\n{indented(py('if 1:' + chr(10) + '    print(1)'), '  ')}\n",
        "if 1:\n    print(1)",
        "indented_fence",
    ),
    "in a quote": (indented(py(P), "> "), P, "indented_fence"),
    "in a quote in a quote": (indented(py(P), "> > "), P, "indented_fence"),
    # -------------------------------------------------------------------------------------------------------------
    # prose
    "bare code": (P, P, "whole"),
    "a bare body": (BODY, BODY, "whole"),
    "prose before bare code": (f"Here is my solution.\n\n{P}", P, "prose_around"),
    "prose around bare code": (f"Here is my solution:\n\n{P}\n\nIt reads a number and squares it.", P, "prose_around"),
    "bare code cut off": (f"{P}\n\nans.sort(", f"{P}\n\nans.sort(", "whole"),
    "bare code cut off at a word": (f"{P}\n\nimport", f"{P}\n\nimport", "whole"),
    "code in tags cut off": (f"<code>\n{P}\n\nres = solve(n", f"{P}\n\nres = solve(n", "unclosed_tag"),
    "only prose": ("I cannot do this.", "I cannot do this.", "whole"),
    "nothing": ("", "", "whole"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_reader_takes_the_program(name):
    text, code, rule = CASES[name]
    reading = read_answer(text)
    assert (reading.code, reading.rule) == (code, rule)


def test_the_cases_that_were_read_wrong(shared_cases):
    for line in (shared_cases / "judge" / "extraction.jsonl").read_text().splitlines():
        case = json.loads(line)
        assert read_answer(case["completion"]).code == case["code"], case["case"]


ORDINARY = [
    "tags",
    "tags in capitals",
    "prose before tags",
    "tags never closed",
    "a fence in tags",
    "a fence",
    "a fence behind a word",
    "a title",
    "a fence never closed",
    "a body in a fence",
    "bare code",
    "a bare body",
    "an example of its use",
    "the body of a function in tags",
]


@pytest.mark.parametrize("name", ORDINARY)
def test_of_ordinary_answers_reader_and_contract_take_the_same(name):
    assert read_answer(CASES[name][0]).code == extract_code(CASES[name][0])


@pytest.mark.parametrize(
    "code",
    [
        P,
        DRAFT,
        BODY,
        "print('```')",
        "s = '<code>'",
        "x = '</code>'\nprint(x)",
        "# <think>\nprint(1)",
        'print("""\n```\nno fence\n```\n""")',
        "print((1",
    ],
)
def test_both_read_the_training_form_back(code):
    assert read_answer(answer(code)).code == code
    if "code>" not in code:
        assert extract_code(answer(code)) == code


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("tags", "code_tag"),
        ("tags named", "code_tag"),
        ("a fence", "fence"),
        ("tildes", "whole"),
        ("bare code", "whole"),
        ("nothing", "whole"),
    ],
)
def test_the_contracts_form_is_told(name, form):
    assert contract_form(CASES[name][0]) == form


@pytest.mark.parametrize("name", CASES)
def test_every_line_that_is_read_stands_in_the_answer(name):
    lines = {line.strip(" \t>") for line in CASES[name][0].replace("\r\n", "\n").split("\n")}
    for line in read_answer(CASES[name][0]).code.split("\n"):
        assert any(line.strip(" \t>") in whole for whole in lines)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000,
        "[" * 100 + "]" * 100,
        "-" * 20000 + "1",
        "a" + ".a" * 20000,
        "+".join("a" * 20000),
        "x = 1\0",
        "\ud800",
        "lambda: " * 5000 + "1",
        "f'" + "{" * 500,
        "if 1:\n" * 3000,
        "`" * 10000,
        "<code>" * 3000,
        "~~~\n" * 3000,
        "</think>" * 3000,
        "> " * 5000,
    ],
    ids=range(15),
)
def test_a_text_made_to_break_a_parser_is_only_a_text(text):
    assert is_program(text) in (True, False)
    assert isinstance(read_answer(text).code, str)


MANY = [
    " ",
    "<code>",
    "<code></code>",
    "<code>a b</code>\n",
    "```\n",
    "~~~\n",
    "> ",
    "\n",
    "<think>",
    "</think>\n",
    "a ",
    "x = 1\n",
    "`",
    "- ",
    "a, ",
    "<code>\n```\n",
    "x\n\n",
]


@pytest.mark.parametrize("text", MANY)
def test_a_long_answer_of_one_thing_does_not_hold_up_the_evaluation(text):
    """CPU seconds; 100,000 spaces once took 77."""
    spent = []
    for length in (24_000, 48_000, 200_000):
        started = time.process_time()
        read_answer(text * (length // len(text)))
        spent.append(time.process_time() - started)
    assert max(spent) < 3, spent


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("print(1)", True),
        ("x = 1", True),
        ("def f(): pass", True),
        ("    return 1", True),
        ("hello", False),
        ("1 2 3", False),
        ("YES", False),
        ("[1, 2]", False),
        ("-5", False),
        ("'words'", False),
        ("", False),
        ("# only a comment", False),
    ],
)
def test_what_happens_to_parse_is_no_program(text, program):
    assert is_program(text) is program
