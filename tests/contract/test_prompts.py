"""phase1.contract.prompts: what evaluation reads out of an answer (contract 5), and that training asks in evaluation's
words."""

import json

import pytest

from phase1.contract.extraction import extract_code
from phase1.contract.problems import EVAL_SETS, load_problems
from phase1.contract.prompts import USER_TEMPLATES, answer, chat, user_message
from phase1.data.bee import parse_record
from tests.conftest import SAMPLES

LONG = "x = 1\n" * 9


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        ("<code>\nprint(1)\n</code>", "print(1)"),
        ("Sure!\n<CODE>print(1)</Code> Done.", "print(1)"),
        ("<code>a</code> or better <code>print(12)</code>", "print(12)"),  # the longest
        (f"```python\n{LONG}```\n<code>print(1)</code>", "print(1)"),  # a tag beats a longer fence
        ("<code>\nprint(1)\nprint(2)", "print(1)\nprint(2)"),  # unclosed: the rest
        ("<code>a</code> <code>print(1)\nprint(2)", "print(1)\nprint(2)"),
        ("<code>\n```python\nprint(1)\n```\n</code>", "print(1)"),  # a fence inside the tag
        ("<code>\ns = '''\n```\nnot code\n```\n'''\n</code>", "s = '''\n```\nnot code\n```\n'''"),  # fences in a string
        ("Here:\n```python3\nprint(1)\n```\nand\n```\nprint(1)\nprint(2)\n```\n", "print(1)\nprint(2)"),
        ("```py\nprint(1)", "print(1)"),  # unclosed: cut off by the token limit
        ("  ```python\n  print(1)\n  ```", "  print(1)"),
        ("print(1)", "print(1)"),
        ("\n\n    return 1\n\n", "    return 1"),  # indentation of a function body is kept
        ("Sure: ```python\nprint(1)\n```\nThis prints one.", "print(1)"),
        ('- ```python title="a.py"\nprint(1)\n```\nDone.', "print(1)"),
        ("a ``` b", "a ``` b"),  # no fence: it does not open a line
        ("<code></code>", ""),
        ("", ""),
        ("\n \t\n", ""),
        ("</code>print(1)", "</code>print(1)"),  # a lone closing tag opens nothing
        ("<code>print('<code>')</code>", "print('<code>')"),
        ("```\r\nprint(1)\r\n```", "print(1)"),
    ],
)
def test_code_is_taken_by_the_contracts_order(completion, code):
    assert extract_code(completion) == code


@pytest.mark.parametrize(
    "code", ["print(1)", "    return a", "x = '''\n```python\n'''", "if 1:\n\n    pass", "a = b'\\x00'"]
)
def test_a_training_answer_gives_its_code_back(code):
    assert extract_code(answer(code)) == code


def test_braces_in_a_statement_are_not_fields():
    statement = "Print {entry_point} and {0} and {prompt}."
    assert statement in user_message("codecontests", statement)
    assert user_message("mbpp", "p", "f", "f({prompt})").endswith("f({prompt})")


def test_every_template_shows_the_statement():
    assert all("{prompt}" in template for template in USER_TEMPLATES.values())


@pytest.fixture(scope="module")
def tokenizer(base_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_model)


@pytest.mark.slow  # verl takes seconds to import
def test_training_asks_in_the_very_tokens_of_evaluation(tokenizer, base_model, tmp_path):
    """For the same problem: what verl puts before the loss mask = what evaluation sends, token for token."""
    pytest.importorskip("torch")
    import pyarrow as pa
    import pyarrow.parquet as pq

    from phase1.data.training_file import SCHEMA
    from phase1.data.verl_rows import load_dataset, prompt_and_loss

    problems = [
        p for name in EVAL_SETS for p in load_problems(SAMPLES / "manifests", name) if p.test_type == "codecontests"
    ][:40]
    records = [
        parse_record(
            {
                "text": "### Prompt\n\nIn Python3, your task is to solve the following problem: "
                f"{p.prompt}\n\n### Response\n\n```python3\n{p.canonical_solution}\n```"
            }
        )
        for p in problems
    ]
    rows = [chat(user_message("codecontests", r.statement), answer(r.solution)) for r in records]
    pq.write_table(pa.table({"messages": rows}, schema=SCHEMA), tmp_path / "rows.parquet")
    dataset = load_dataset(tmp_path / "rows.parquet", base_model, 512)
    if dataset is None:
        pytest.skip("verl is not installed: only its own data set class can show what it trains on")
    for index, problem in enumerate(problems):
        prompt, trained = prompt_and_loss(dataset, index)
        sent = tokenizer.apply_chat_template(chat(problem.user), add_generation_prompt=True)
        assert prompt == sent, json.dumps(problem.prompt)
        assert tokenizer.decode(trained) == answer(problem.canonical_solution) + "<|im_end|>\n"
