"""Write the embedded data, the same bytes every time: records in BEE's form with its faults, and five evaluation sets.

python data/samples/build_samples.py
python data/samples/build_samples.py --output_dir /tmp/samples   # elsewhere, to compare with the committed files
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import task_grammar as grammar
from task_grammar import MEASURES, THINGS, Task

from phase1.files import run_script, sha256_text, write_text

Record = dict[str, Any]  # JSON: a training record, or a row of a raw file

# Lead sentences of code_contests_instruct; the first is by far the most frequent here.
LEADS = (
    "In Python3, your task is to solve the following problem: ",
    "In Python3, your task is to solve the following problem: ",
    "In Python3, your task is to solve the following problem: ",
    "Your challenge is to write a Python3 solution to the following problem:\n\n",
    "Please create a solution in Python3 to the following problem:\n\n",
    "Develop a solution in python3 to the problem described below:\n\n",
    "Construct a PYTHON3 code solution to the problem outlined:\n\n",
)
FENCES = ("```python3", "```python3", "```python3", "```python", "```py", "```", None)
# problems: enough for codecontests_valid's rates to mean something, the contract's order of size elsewhere
DATASETS = {
    "codecontests_valid": 60,
    "codecontests_valid_big": 40,
    "codecontests_test": 24,
    "humaneval": 24,
    "mbpp_reg": 24,
}
KINDS = ("list", "list", "string", "pair")


def main() -> None:
    args = parse_args()
    r = random.Random(20)
    keys: set[str] = set()  # what the evaluation sets compute; no training record may compute it
    sets = {name: evaluation_set(name, size, r, keys) for name, size in DATASETS.items()}
    records = training_records(args.records, r, keys)
    records += dirt(records, r)
    records += disguises(sets, r)
    r.shuffle(records)
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    lines[10:10] = ['{"name": "9001_A. Torn line", "source": 2, "text": "### Prompt', '["a list", "not an object"]']

    write_text(args.output_dir / "bee.jsonl", "\n".join(lines) + "\n")
    for name, problems in sets.items():
        rows = [json.dumps(p, ensure_ascii=False) for p in problems]
        write_text(args.output_dir / "raw" / f"{name}_raw.jsonl", "\n".join(rows) + "\n")
        ids = [json.dumps({"problem_id": p["problem_id"]}) for p in problems]
        write_text(args.output_dir / "manifests" / f"{name}_manifest.jsonl", "\n".join(ids) + "\n")
    print(f"{args.output_dir}: {len(lines)} training lines, {sum(map(len, sets.values()))} evaluation problems")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output_dir", type=Path, default=Path(__file__).resolve().parent, help="default: beside this file"
    )
    parser.add_argument("--records", type=int, default=1800, help="clean training records, before the dirt")
    return parser.parse_args()


# -------------------------------------------------------------------------------------------------- evaluation sets
def evaluation_set(name: str, size: int, r: random.Random, keys: set[str]) -> list[Record]:
    """Problems of one set as raw-file rows; the keys of their tasks are added to `keys`."""
    problems: list[Record] = []
    while len(problems) < size:
        kind = r.choice(KINDS)
        noun = r.choice(MEASURES)
        task = grammar.MAKERS[kind](r, noun)
        if task.key in keys:
            continue
        keys.add(task.key)
        number = len(problems)
        if name.startswith("codecontests"):
            row = contest_problem(task, r, noun, 9100 + 200 * list(DATASETS).index(name) + 3 * number)
        elif name == "humaneval":
            row = humaneval_problem(task, r, number)
        else:
            row = mbpp_problem(task, r, 11 + number)
        problems.append(row)
    return problems


def contest_problem(task: Task, r: random.Random, noun: str, contest: int) -> Record:
    """A task as a Codeforces problem with five to eight tests; `contest` is the number in its id."""
    prompt = grammar.statement(task, r, noun)
    tests = [
        grammar.stdin_and_stdout(task, [grammar.random_argument(task.kind, r) for _ in range(r.randint(1, 4))])
        for _ in range(r.randint(5, 8))
    ]
    cases: Record = {"type": "codecontests", "tests": [{"input": given, "output": wanted} for given, wanted in tests]}
    if r.random() < 0.3:
        cases |= {"time_limit": r.choice((1, 2)), "memory_limit_mb": 256}
    return {
        "problem_id": f"Codeforces/{contest}/{r.choice(('A', 'B', 'C1', 'C2', 'D', 'G'))}",
        "prompt": prompt,
        "prompt_sha256": sha256_text(prompt),
        "canonical_solution": grammar.program(task),
        "test_cases": cases,
    }


def humaneval_problem(task: Task, r: random.Random, number: int) -> Record:
    name = r.choice(grammar.FUNCTION_NAMES)
    prompt = grammar.docstring_prompt(task, r, name)
    body = "\n".join(grammar.function(task, name).splitlines()[1:]) + "\n"
    asserts = "".join(
        f"    assert {equation(task, 'candidate', grammar.random_argument(task.kind, r))}\n" for _ in range(6)
    )
    return {
        "problem_id": f"SampleEval/{number}",
        "prompt": prompt,
        "prompt_sha256": sha256_text(prompt),
        "canonical_prompt": prompt.split('"""')[1].strip(),
        "canonical_solution": body,
        "test_cases": {"type": "humaneval", "test_code": f"def check(candidate):\n{asserts}", "entry_point": name},
    }


def mbpp_problem(task: Task, r: random.Random, number: int) -> Record:
    name = r.choice(grammar.FUNCTION_NAMES)
    prompt = grammar.function_prompt(task, r)
    arguments = [grammar.random_argument(task.kind, r) for _ in range(4)]
    return {
        "problem_id": f"SampleMBPP/{number}",
        "prompt": prompt,
        "prompt_sha256": sha256_text(prompt),
        "canonical_solution": grammar.function(task, name) + "\n",
        "test_cases": {
            "type": "mbpp",
            "test_list": [f"assert {equation(task, name, a)}" for a in arguments[:3]],
            "test_setup_code": "",
            "entry_point": name,
            "example_call": grammar.call_of(task, name, arguments[3]),
        },
    }


def equation(task: Task, name: str, argument: object) -> str:
    """What an assert says: a call of the function and its value."""
    return f"{grammar.call_of(task, name, argument)} == {grammar.value_of(task, argument)!r}"


# --------------------------------------------------------------------------------------------------- training records
def training_records(count: int, r: random.Random, keys: set[str]) -> list[Record]:
    """Clean records: contest programs, and one in five a function, told as `prompt` and `solution`."""
    records: list[Record] = []
    while len(records) < count:
        noun = r.choice(MEASURES)
        task = grammar.MAKERS[r.choice(KINDS)](r, noun)
        if task.key in keys:
            continue
        number = len(records)
        title = f"{r.choice(THINGS).capitalize()} and {noun.capitalize()}"
        name = f"{8000 + number // 6}_{'ABCDEF'[number % 6]}. {title}"
        if r.random() < 0.15:
            name = f"p{5000 + number:05d} AtCoder Sample Contest {number:03d} - {title}"
        record = {
            "name": name,
            "source": 2 if "_" in name else 6,
            "difficulty": r.randint(7, 12),
            "language": "PYTHON3",
        }
        if r.random() < 0.2:
            function = r.choice(grammar.FUNCTION_NAMES)
            prompt = (
                f"Complete this function.\n\n{grammar.docstring_prompt(task, r, function)}"
                if r.random() < 0.5
                else f"{grammar.function_prompt(task, r)}\n\nThe function is called {function}. Example call: "
                f"{grammar.call_of(task, function, grammar.random_argument(task.kind, r))}"
            )
            record |= {"prompt": prompt, "solution": grammar.function(task, function)}
        else:
            record["text"] = bee_text(grammar.statement(task, r, noun), grammar.program(task), r)
        records.append(record)
    return records


def bee_text(statement: str, solution: str, r: random.Random, lead: str | None = None) -> str:
    """The `text` of a BEE record: prompt with a lead sentence, solution in one of the fences or in none."""
    fence = r.choice(FENCES)
    shown = f"{fence}\n{solution}\n```" if fence else f"{solution}\n"
    return f"### Prompt\n\n{lead or r.choice(LEADS)}{statement}\n\n### Response\n\n{shown}"


def split_text(record: Record) -> tuple[str, str]:
    """Prompt part and solution of a record that `bee_text` made."""
    prompt, response = record["text"].split("\n\n### Response\n\n")
    lines = response.rstrip("\n").split("\n")
    return prompt, "\n".join(lines[1:-1] if lines[0].startswith("```") else lines)


def dirt(records: list[Record], r: random.Random) -> list[Record]:
    """Records with a fault that a filter must find, each made from a clean one; and second solutions of a problem."""
    made: list[Record] = []
    texts = [x for x in records if "text" in x and "\n    " not in x["text"]]  # one level deep: easy to spoil
    pool = iter(r.sample(texts, 330))

    def spoil(count: int, change: Callable[[int, str, str], Record]) -> None:
        """Take `count` clean records and change them: number, prompt and solution give the fields that differ."""
        for i in range(count):
            record = dict(next(pool))
            prompt, solution = split_text(record)
            made.append(record | change(i, prompt, solution))

    def text(prompt: str, solution: str) -> Record:
        return {"text": f"{prompt}\n\n### Response\n\n```python3\n{solution}\n```"}

    def other_id(i: int) -> str:
        return f"{7000 + len(made) // 6}_{'ABCDEF'[len(made) % 6]}. Again {i}"

    spoil(12, lambda i, p, s: {"name": other_id(i), "text": p})  # no ### Response
    spoil(8, lambda i, p, s: {"name": other_id(i), "text": f"{p}\n\n### Response\n"})
    spoil(8, lambda i, p, s: {"name": other_id(i)} | text(p, "   "))
    spoil(8, lambda i, p, s: {"name": other_id(i), "prompt": p, "solution": None})
    spoil(
        20, lambda i, p, s: {"name": other_id(i)} | text(p, s.rstrip(")") + "(" * (i % 2))
    )  # cut off in the last line
    spoil(4, lambda i, p, s: {"name": other_id(i)} | text(p, s + "\x00"))
    spoil(4, lambda i, p, s: {"name": other_id(i)} | text(p, "x = " + "(" * 3000 + ")" * 3000))  # too deep to compile
    spoil(20, lambda i, p, s: {"name": other_id(i)} | text(p, python2(s, i)))
    spoil(12, lambda i, p, s: {"name": other_id(i), "language": ("PYTHON", "CPP", "JAVA")[i % 3]})
    spoil(40, lambda i, p, s: {"text": p + "\n\n### Response\n\n```py\n" + s + "\n```"})  # the same, fenced otherwise
    spoil(
        30,
        lambda i, p, s: {"name": other_id(i)} | text(p.replace("Print", "Output", 1).replace("Examples", "Example"), s),
    )
    spoil(60, lambda i, p, s: text(p, "import sys\n\n\ndef main():\n    " + s.replace("\n", "\n    ") + "\n\n\nmain()"))
    spoil(
        6,
        lambda i, p, s: {"name": other_id(i)} | text(p + f"\n\nNote\n\n{r.choice(THINGS)} {i}", s + "\nn = 0" * 300),
    )
    return made


def python2(solution: str, i: int) -> str:
    """The program in Python 2: print statements (do not compile), or raw_input and xrange (compile, then crash)."""
    if i % 2:
        return solution.replace("input()", "raw_input()")
    head, _, last = solution.rpartition("\n")
    return f"{head}\nprint {last.removeprefix('print(').removesuffix(')').lstrip('*')}"


def disguises(sets: dict[str, list[Record]], r: random.Random) -> list[Record]:
    """Evaluation problems as training records: under their own id, or another with the text kept or disturbed."""
    made: list[Record] = []
    for name in ("codecontests_valid", "codecontests_valid_big", "codecontests_test"):
        for i, problem in enumerate(r.sample(sets[name], 14)):
            _, contest, index = problem["problem_id"].split("/")
            prompt, solution, lead = problem["prompt"], problem["canonical_solution"], None
            bee_name = f"{6000 + len(made)}_A. In Disguise"
            if i % 7 == 0:  # the id gives it away; the text is another one, as when a statement was rewritten
                bee_name = f"{contest}_{index}. Rewritten"
                prompt = f"Help us. {prompt.split(chr(10))[0][::-1]}"
            elif i % 7 == 1:
                bee_name = f"{contest}_{index.lower()}. Same Id and Text"
            elif i % 7 == 3:
                prompt = prompt.upper().replace(" ", "  ").replace("\n\n", "\n")
            elif i % 7 == 4:  # other examples
                prompt = (
                    prompt.split("Examples")[0]
                    + f"Examples\n\nInput\n\n{r.randint(1, 9)}\n\n\nOutput\n\n{r.randint(1, 9)}\n"
                )
            elif i % 7 == 5:
                lead = "Please formulate a Python3 solution to the following problem:\n\n"
            elif i % 7 == 6:  # cut in half: story and task are left, Input and Output are gone
                prompt = prompt.split("\n\nInput")[0]
            made.append(
                {
                    "name": bee_name,
                    "source": 2,
                    "difficulty": 8,
                    "language": "PYTHON3",
                    "text": bee_text(prompt, solution, r, lead),
                }
            )
    for name in ("humaneval", "mbpp_reg"):
        for problem in r.sample(sets[name], 5):
            made.append(
                {
                    "name": f"{6000 + len(made)}_B. In Disguise",
                    "source": 2,
                    "difficulty": 8,
                    "language": "PYTHON3",
                    "prompt": problem["prompt"],
                    "solution": "def answer():\n    return 0",
                }
            )
    return made


if __name__ == "__main__":
    run_script(main)
