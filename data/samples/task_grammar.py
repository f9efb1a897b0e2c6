"""Small programming tasks out of a grammar: statement, Python program and, independently of it, the expected answers.

A task is two or three operations and a constant, told in varied words; words and constant must be assembled into the
program. Each operation has words of its own, so a model of half a million parameters learns the grammar in minutes and
then solves combinations it has never seen. Everything here was written for this project.

Two tasks compute the same thing exactly when their `key` is equal: the evaluation sets hold keys that no training
record has.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

NAMES = [
    "Amara",
    "Bruno",
    "Chiara",
    "Dmitri",
    "Edda",
    "Farid",
    "Greta",
    "Hugo",
    "Ines",
    "Jakub",
    "Katja",
    "Leon",
    "Marta",
    "Nils",
    "Olga",
    "Pavel",
    "Quentin",
    "Rosa",
    "Sven",
    "Tarek",
    "Ulla",
    "Viktor",
    "Wanda",
    "Yusuf",
    "Zoe",
]
THINGS = [
    "apples",
    "boxes",
    "cards",
    "coins",
    "crates",
    "lamps",
    "parcels",
    "pebbles",
    "planks",
    "ropes",
    "shells",
    "stamps",
    "stones",
    "tiles",
    "towers",
    "trains",
    "trees",
    "wagons",
]
MEASURES = ["weights", "prices", "lengths", "heights", "ages", "scores", "sizes", "depths"]


NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine"}


@dataclass(frozen=True)
class Op:
    """One operation: ways to say it, Python source, and the same as a function. {k} and `k` are the constant."""

    words: tuple[str, ...]
    code: str
    apply: Callable[..., Any]

    def tell(self, r: random.Random, k: int, **names: str) -> str:
        """One of the ways to say it; `names` are other fields of the words."""
        return r.choice(self.words).format(k=NUMBERS[k], **names)


FILTERS = (
    Op(("that are even", "with an even value"), "x % 2 == 0", lambda x, k: x % 2 == 0),
    Op(("that are odd", "with an odd value"), "x % 2 == 1", lambda x, k: x % 2 == 1),
    Op(("that are positive", "with a positive value"), "x > 0", lambda x, k: x > 0),
    Op(("greater than {k}", "above {k}"), "x > {k}", lambda x, k: x > k),
    Op(("less than {k}", "below {k}"), "x < {k}", lambda x, k: x < k),
    Op(("different from {k}", "other than {k}"), "x != {k}", lambda x, k: x != k),
    Op(("divisible by {k}", "that are multiples of {k}"), "x % {k} == 0", lambda x, k: x % k == 0),
)
TRANSFORMS = (
    Op(("doubled", "taken twice"), "x * 2", lambda x: x * 2),
    Op(("squared", "multiplied by itself"), "x * x", lambda x: x * x),
    Op(("halved and rounded down", "cut in half and rounded down"), "x // 2", lambda x: x // 2),
    Op(("with the opposite sign", "negated"), "-x", lambda x: -x),
    Op(("without its sign", "as an absolute value"), "abs(x)", lambda x: abs(x)),
    Op(("as its last digit", "cut to the last digit"), "x % 10", lambda x: x % 10),
    Op(("unchanged", "as it is"), "x", lambda x: x),
)
AGGREGATES = (
    Op(("the sum", "the total"), "sum(b)", sum),
    Op(("the largest", "the maximum"), "max(b, default=0)", lambda b: max(b, default=0)),
    Op(("the smallest", "the minimum"), "min(b, default=0)", lambda b: min(b, default=0)),
    Op(("the number", "the count"), "len(b)", len),
    Op(("the list without repeats", "the distinct ones in order"), "sorted(set(b))", lambda b: sorted(set(b))),
    Op(("the sorted list", "the list in increasing order"), "sorted(b)", sorted),
    Op(("the reversed list", "the list from back to front"), "b[::-1]", lambda b: b[::-1]),
)
LISTS = ("sorted(set(b))", "sorted(b)", "b[::-1]")  # results that are lists, printed with a star
STRING_FIRST = (
    Op(("reverse the string", "write the string backwards"), "s[::-1]", lambda s: s[::-1]),
    Op(("make all letters capital", "turn the string into upper case"), "s.upper()", lambda s: s.upper()),
    Op(
        ("sort the letters", "put the letters in alphabetical order"),
        "''.join(sorted(s))",
        lambda s: "".join(sorted(s)),
    ),
    Op(("skip every other letter", "skip each second letter"), "s[::2]", lambda s: s[::2]),
    Op(("put a star in front", "begin with a star"), "'*' + s", lambda s: "*" + s),
    Op(
        ("replace every 'a' with 'e'", "change each 'a' into 'e'"), "s.replace('a', 'e')", lambda s: s.replace("a", "e")
    ),
)
STRING_THEN = (
    Op(("drop the first {k}", "remove {k} from the front"), "s[{k}:]", lambda s, k: s[k:]),
    Op(("keep only {k}", "cut everything behind the first {k}"), "s[:{k}]", lambda s, k: s[:k]),
    Op(("repeat it {k} times", "write {k} copies"), "s * {k}", lambda s, k: s * k),
    Op(("append the numeral {k}", "put the numeral {k} at the end"), "s + '{k}'", lambda s, k: s + str(k)),
)
STRING_RESULTS = (
    Op(("the resulting string", "the string you get"), "s", lambda s: s),
    Op(("the length of the result", "how long the result is"), "len(s)", len),
    Op(("how often 'c' occurs", "the count of 'c'"), "s.count('c')", lambda s: s.count("c")),
)
PAIR_LEFT = (
    Op(("twice a", "double a"), "a * 2", lambda a: a * 2),
    Op(("the square of a", "a squared"), "a * a", lambda a: a * a),
    Op(("half of a rounded down", "a halved and rounded down"), "a // 2", lambda a: a // 2),
    Op(("the last digit of a", "the remainder of a modulo ten"), "a % 10", lambda a: a % 10),
    Op(("a itself", "just a"), "a", lambda a: a),
)
PAIR_RIGHT = (
    Op(("b plus {k}", "b increased by {k}"), "b + {k}", lambda b, k: b + k),
    Op(("b minus {k}", "b decreased by {k}"), "b - {k}", lambda b, k: b - k),
    Op(("b times {k}", "b multiplied by {k}"), "b * {k}", lambda b, k: b * k),
)
PAIR_JOINS = (
    Op(("the sum of {p} and {q}", "{p} added to {q}"), "({p}) + ({q})", lambda p, q: p + q),
    Op(("the product of {p} and {q}", "what {p} and {q} make when multiplied"), "({p}) * ({q})", lambda p, q: p * q),
    Op(("the larger of {p} and {q}", "the maximum of {p} and {q}"), "max({p}, {q})", max),
    Op(("the smaller of {p} and {q}", "the minimum of {p} and {q}"), "min({p}, {q})", min),
    Op(("the distance between {p} and {q}", "how far {p} is from {q}"), "abs(({p}) - ({q}))", lambda p, q: abs(p - q)),
)


@dataclass(frozen=True)
class Task:
    """A task before it is told: what goes in, what comes out, and the sentence that asks for it.

    `lines` compute `result` (an expression) from the variable `a` (list), `s` (string) or `a`, `b` (pair).
    """

    kind: str  # list | string | pair
    key: str
    sentence: str  # with {verb} for Print or Return
    lines: tuple[str, ...]
    result: str
    solve: Callable[..., Any] = field(compare=False)


def list_task(r: random.Random, noun: str = "numbers") -> Task:
    """Select from a list of integers, change each of them, then aggregate."""
    filter_, transform, aggregate, k = (
        r.choice(FILTERS),
        r.choice(TRANSFORMS),
        r.choice(AGGREGATES),
        r.choice(list(NUMBERS)),
    )
    selected, changed, goal = filter_.tell(r, k), transform.tell(r, k), aggregate.tell(r, k)
    sentence = r.choice(
        (
            f"{{verb}} {goal} of the {noun} {selected}, each {changed}.",
            f"Take the {noun} {selected}, each {changed}. {{verb}} {goal} of them.",
            f"Consider only the {noun} {selected}, each {changed}, and {{lower}} {goal} of these.",
            f"We ask for {goal} of the {noun} {selected}, each {changed}. {{verb}} it.",
        )
    )
    line = f"b = [{transform.code} for x in a if {filter_.code.format(k=k)}]"

    def solve(a: list[int]) -> Any:
        return aggregate.apply([transform.apply(x) for x in a if filter_.apply(x, k)])

    return Task("list", f"{line};{aggregate.code}", sentence, (line,), aggregate.code, solve)


def string_task(r: random.Random, noun: str = "string") -> Task:
    """Two steps on a lower-case string, then what is asked of it."""
    first, then, result, k = (
        r.choice(STRING_FIRST),
        r.choice(STRING_THEN),
        r.choice(STRING_RESULTS),
        r.choice(list(NUMBERS)),
    )
    told = first.tell(r, k) + r.choice((", then ", ", after that ", "; then ", " and next ")) + then.tell(r, k)
    goal = result.tell(r, k)
    sentence = r.choice(
        (
            f"First {told}. {{verb}} {goal}.",
            f"Your steps: {told}. At the end {{lower}} {goal}.",
            f"{told[0].upper()}{told[1:]}. {{verb}} {goal}.",
        )
    )
    lines = (f"s = {first.code}", f"s = {then.code.format(k=k)}")

    def solve(s: str) -> Any:
        return result.apply(then.apply(first.apply(s), k))

    return Task("string", ";".join((*lines, result.code)), sentence, lines, result.code, solve)


def pair_task(r: random.Random, noun: str = "numbers") -> Task:
    """A value of two integers, for each of several test cases."""
    left, right, join, k = r.choice(PAIR_LEFT), r.choice(PAIR_RIGHT), r.choice(PAIR_JOINS), r.choice(list(NUMBERS))
    told = join.tell(r, k, p=left.tell(r, k), q=right.tell(r, k))
    sentence = r.choice(
        (f"{{verb}} {told}.", f"For the two {noun} {{lower}} {told}.", f"We want {told}; {{lower}} it.")
    )
    result = join.code.format(p=left.code, q=right.code.format(k=k))

    def solve(a: int, b: int) -> int:
        return int(join.apply(left.apply(a), right.apply(b, k)))

    return Task("pair", result, sentence, (), result, solve)


MAKERS = {"list": list_task, "string": string_task, "pair": pair_task}


# ------------------------------------------------------------------------------------------------- programs and input
def random_argument(kind: str, r: random.Random) -> Any:
    """One input: a list of integers, a string, or a pair."""
    if kind == "list":
        return [r.randint(-12, 25) for _ in range(r.randint(1, 7))]
    if kind == "string":
        return "".join(r.choice("abcdef") for _ in range(r.randint(1, 12)))
    return r.randint(1, 30), r.randint(1, 30)


def program(task: Task) -> str:
    """The task as a program from standard input to standard output."""
    if task.kind == "pair":
        return f"for _ in range(int(input())):\n    a, b = map(int, input().split())\n    print({task.result})"
    read = "n = int(input())\na = list(map(int, input().split()))" if task.kind == "list" else "s = input()"
    result = f"*{task.result}" if task.result in LISTS else task.result
    return "\n".join((read, *task.lines, f"print({result})"))


def function(task: Task, name: str) -> str:
    """The task as a function of its argument."""
    parameters = {"list": "a", "string": "s", "pair": "a, b"}[task.kind]
    return "\n".join(
        (f"def {name}({parameters}):", *(f"    {line}" for line in task.lines), f"    return {task.result}")
    )


def show(value: Any) -> str:
    """A value as a program prints it."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def stdin_and_stdout(task: Task, arguments: list[Any]) -> tuple[str, str]:
    """A test of the program form; a pair task takes all arguments as its test cases, the others only the first."""
    if task.kind == "pair":
        shown = "".join(f"{a} {b}\n" for a, b in arguments)
        return f"{len(arguments)}\n{shown}", "".join(f"{task.solve(*p)}\n" for p in arguments)
    a = arguments[0]
    return (f"{len(a)}\n{show(a)}\n" if task.kind == "list" else f"{a}\n"), f"{show(task.solve(a))}\n"


# ------------------------------------------------------------------------------------------------------- statements
def statement(task: Task, r: random.Random, noun: str) -> str:
    """A contest statement: story, task, Input, Output, Examples (the sections of the CodeContests descriptions)."""
    who, thing = r.choice(NAMES), r.choice(THINGS)
    ask = task.sentence.format(verb="Print", lower="print")
    if task.kind == "list":
        story = r.choice(
            (
                f"{who} has n {thing} and has written down their {noun}.",
                f"There are n {thing} in the yard of {who}, and their {noun} are known.",
                f"On the table {who} lines up n {thing}; we know all {noun}.",
                f"{who} got n {thing} as a present. The {noun} of the {thing} are given.",
                f"In a row stand n {thing}. {who} knows their {noun}.",
                f"{who} collects {thing}. A list tells the {noun} of n of them.",
            )
        )
        reading = r.choice(
            (
                f"The first line contains an integer n. The second line contains n integers, the {noun}.",
                f"First comes n, then on the next line the n {noun}.",
                f"Line one: n, the number of {thing}. Line two: n integers, their {noun}.",
                f"You get n on one line and the {noun} on another.",
                f"An integer n, followed by a line with {noun}, n integers in all.",
            )
        )
    elif task.kind == "string":
        story = r.choice(
            (
                f"{who} found a string s on a box of {thing}.",
                f"The {thing} of {who} carry a label s of small letters.",
                f"While counting {thing}, {who} invented a game with a string s.",
                f"{who} paints a word s on the {thing}.",
                f"A string s is the secret of {who} and the {thing}.",
            )
        )
        reading = r.choice(
            (
                "The only line contains the string s.",
                "One line with s, which consists of letters from 'a' to 'f'.",
                f"You get the string s that {who} has.",
                "A single string s.",
                "The input is one word s of small letters.",
            )
        )
    else:
        story = r.choice(
            (
                f"{who} compares two piles of {thing}, one of a and one of b {thing}.",
                f"There are a {thing} on the left and b {thing} on the right of {who}.",
                f"{who} sold a {thing} today and b {thing} on the day before.",
                f"For a birthday {who} gets a {thing} from an aunt and b from an uncle.",
                f"Two integers a and b describe the {thing} of {who}.",
            )
        )
        reading = r.choice(
            (
                "The first line contains t, the number of test cases. Each test case is a line with a and b.",
                "There are t test cases. First comes t, then t lines with two integers a and b.",
                "Line one: t. Each of the next t lines holds a and b.",
                f"You get t, followed by t lines; each has the numbers a and b of {thing}.",
            )
        )
    writing = r.choice(
        (
            "Print the answer.",
            "The answer on one line.",
            f"What {who} wants to know.",
            "Output what is asked.",
            f"Write the answer of {who}.",
        )
    )
    if task.kind == "pair":
        writing = r.choice(
            (
                "One answer a line.",
                "For each test case print the answer.",
                "The t answers, one on each line.",
                f"Print the answers of {who} line by line.",
            )
        )
    given, wanted = stdin_and_stdout(task, [random_argument(task.kind, r) for _ in range(2)])
    return (
        f"{story} {ask}\n\nInput\n\n{reading}\n\nOutput\n\n{writing}\n\nExamples\n\nInput\n\n{given}\n\nOutput\n\n"
        f"{wanted}"
    )


def call_of(task: Task, name: str, argument: Any) -> str:
    """The call of the function `name` with `argument`, as source."""
    return f"{name}({', '.join(map(repr, argument)) if task.kind == 'pair' else repr(argument)})"


def value_of(task: Task, argument: Any) -> Any:
    """The right answer."""
    return task.solve(*argument) if task.kind == "pair" else task.solve(argument)


FUNCTION_NAMES = ["solve", "result", "answer", "compute", "total", "measure", "work", "find", "value", "process"]


def docstring_prompt(task: Task, r: random.Random, name: str) -> str:
    """A HumanEval-like prompt: signature and docstring with one example."""
    argument = random_argument(task.kind, r)
    head = function(task, name).splitlines()[0]
    return (
        f'{head}\n    """{task.sentence.format(verb="Return", lower="return")}\n\n    >>> '
        f'{call_of(task, name, argument)}\n    {value_of(task, argument)!r}\n    """\n'
    )


def function_prompt(task: Task, r: random.Random) -> str:
    """An MBPP-like prompt: one sentence and no signature."""
    what = {"list": "a list a of integers", "string": "a string s", "pair": "two integers a and b"}[task.kind]
    return (
        r.choice((f"Write a function of {what}.", f"Write a function that takes {what}.", f"A function gets {what}."))
        + " "
        + task.sentence.format(verb="Return", lower="return")
    )
