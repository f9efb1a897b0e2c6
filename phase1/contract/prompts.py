"""The contract between training and evaluation: system prompt, user templates, answer form.

Training rows and evaluation requests are both built by these functions, so evaluation asks a model in the words it was
trained on. The original project had two definitions; its fine-tuned model became worse than its base.
`PROMPTS_SHA256` goes into every result file: a report refuses to compare results made under different prompts.
"""

from __future__ import annotations

import re

from phase1.files import sha256_json

# The tag around the program in an answer; only this module spells it. Readers take it in upper or lower case.
TAG, END_TAG = "<code>", "</code>"

SYSTEM_PROMPT = (
    "You are an expert Python programmer. Solve the task in Python 3. "
    f"Put the complete code inside {TAG} and {END_TAG}, and write nothing else."
)

# One user template for each test type; {fields} are those of the raw file's record.
USER_TEMPLATES = {
    "codecontests": ("Solve this problem. The program reads standard input and writes standard output.\n\n{prompt}"),
    "humaneval": ("Complete this function. Give the whole function with its imports.\n\n{prompt}"),
    "mbpp": ("{prompt}\n\nThe function is called {entry_point}. Example call: {example_call}"),
}

PROMPTS_SHA256 = sha256_json([SYSTEM_PROMPT, USER_TEMPLATES, f"{TAG}\n{{code}}\n{END_TAG}"])


def user_message(test_type: str, prompt: str, entry_point: str = "", example_call: str = "") -> str:
    """The user turn for one problem.

    Args:
        test_type: a key of USER_TEMPLATES.
        prompt: the problem's statement; newlines around it are dropped.
        entry_point: the name of the function that the tests call, for the templates that show it.
        example_call: a call of that function, as in a test.

    Raises:
        KeyError: there is no template for `test_type`.
    """
    fields = {"prompt": prompt.strip("\n"), "entry_point": entry_point, "example_call": example_call}
    # str.replace, not str.format: statements are full of braces.
    return re.sub(r"\{(prompt|entry_point|example_call)\}", lambda m: fields[m[1]], USER_TEMPLATES[test_type])


def answer(code: str) -> str:
    """The assistant turn that training shows for a solution: the form that `extraction.extract_code` reads first."""
    return f"{TAG}\n{code.strip(chr(10))}\n{END_TAG}"


def chat(user: str, assistant: str | None = None) -> list[dict[str, str]]:
    """System and user turn as evaluation sends them; with `assistant`, the training row's three turns."""
    turns = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": user}]
    return turns if assistant is None else [*turns, {"role": "assistant", "content": assistant}]
