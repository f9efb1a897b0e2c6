"""The program in an answer: by the contract's rule, which EVAL@1 measures, and as a careful reader would take it.

RULES has every rule that `--extraction` can name.

The contract takes the longest tag, else the longest fence, else everything (`extract_code`). It is misled by
tags that are only mentioned, by drafts, sample outputs and fences in lists. Where the two rules differ, both programs
are judged. That shows what a model gained in *form* and what in *programs*: a base model never writes the tag.

The reader cuts off a think block. Then it takes, in this order:

1. a tag that holds a program, or stands where one would be; a fence inside it is taken off;
2. a fence: first those marked as Python, then unmarked ones with Python in them, then the rest; of several of one kind
   the longest that parses;
3. the lines that are Python when the prose around them is left out.

Nothing is run.
"""

from __future__ import annotations

import ast
import itertools
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from phase1.contract.prompts import END_TAG, TAG

COMPARED = ("contract", "reader")  # where one of them is measured, the other's program is judged beside it
UNRECORDED = {"extraction": "contract"}  # the judge's setting where a run.json is too old to name it
LONGEST = 50_000  # characters that are parsed; a longer text counts as no Python
PYTHON = ("python", "python3", "py", "py3", "pypy", "pypy3")
MOST_ENDS = 8  # closing tags that are tried for one opening tag
MOST_TAGS = 32
LONGEST_LINE = 500  # characters: a longer one opens no fence and is no sentence

_TAGGED = re.compile(rf"{TAG}(.*?)(?:{END_TAG}|\Z)", re.IGNORECASE | re.DOTALL)
# A fence may open at the end of a line ("Sure: ```python") and closes at the start of one; unclosed, it takes the rest.
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
_THINK = re.compile(r"\A\s*<(think|thinking|thought|reasoning)>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
_END_OF_THINK = re.compile(rf"</(?:think|thinking|thought|reasoning)>(?=\s*(?:\n|\Z|{TAG}|```|~~~))", re.IGNORECASE)
_OPEN_THINK = re.compile(r"^[ \t]*<(think|thinking|thought|reasoning)>", re.IGNORECASE | re.MULTILINE)
_TAG = re.compile(TAG, re.IGNORECASE)
_END_TAG = re.compile(END_TAG, re.IGNORECASE)
# A fence opens behind anything (`Sure: ```python`), one of tildes behind a list's or quote's mark only.
_QUOTE = re.compile(r"[ \t]{0,3}(?:>[ \t]?)+")
_MARK = r"[ \t]*(?:(?:[-*+]|\d{1,3}[.)])[ \t]+)*"
_OPEN = re.compile(rf"(?P<mark>{_MARK})(?P<before>[^`]*?)(?P<fence>`{{3,}})(?P<info>[^`]*)\Z")
_OPEN_TILDE = re.compile(rf"(?P<mark>{_MARK})(?P<before>)(?P<fence>~{{3,}})(?P<info>.*)\Z")
_STARTS_CODE = re.compile(
    r"(?:import |from \w|def |class |@\w|if |for |while |with |try:|elif |else:|except|finally:|return |raise "
    r"|assert |del |async |await |global |print\(|#!"
    r"|[A-Za-z_][\w, ]*(?:\[.*\])? *[-+*/|&]?= *\S)"
)
_SENTENCE = re.compile(r"[^\w\s]{0,3} ?\w[\w'’\-]*(?:[,:;.!?*]*(?: +\S+)+|[.:!?*]+)\Z")


@dataclass(frozen=True)
class Reading:
    """A program and the rule by which it was found.

    The rules: code_tag, code_tag_fence, code_tag_prose, unclosed_tag, fence, program_fence (one of several),
    tilde_fence, indented_fence, unclosed_fence, prose_around, whole, too_long. `after_think+` stands before one where a
    think block was cut off, `tag_in_prose+` where tags were only mentioned.
    """

    code: str
    rule: str


@dataclass(frozen=True)
class Taken:
    """What is taken from an answer.

    Attributes:
        code: the program that is measured.
        form: of the answer, as `contract_form` tells it.
        rule: the reader's; "" where the measured rule is none of COMPARED.
        beside: the other one of COMPARED, "" where it takes the same program.
        beside_code: the program that it takes.
    """

    code: str
    form: str
    rule: str = ""
    beside: str = ""
    beside_code: str = ""


@dataclass(frozen=True)
class Fence:
    """A fenced block: its text without marks and indentation. `marked`: python, none or other."""

    text: str
    marked: str
    kind: str  # fence | tilde_fence | indented_fence
    closed: bool


def contract_form(completion: str) -> str:
    """Which of the contract's three forms an answer has: code_tag, fence or whole."""
    if _TAG.search(completion):
        return "code_tag"
    return "fence" if re.search(r"```[^\n`]*\n", completion) else "whole"


def extract_code(completion: str) -> str:
    """The program in an answer (contract 5): the longest `<code>…</code>`, else the longest fence, else all of it.

    Tags match in any case; an unclosed `<code>` or fence takes the rest. A fence inside the chosen `<code>` is taken
    off, since models that were tuned on both forms nest them. Surrounding blank lines are dropped, indentation kept.
    """
    tagged = _TAGGED.findall(completion)
    text = max(tagged, key=len) if tagged else completion
    fenced = _FENCE.findall(text)
    if fenced and (not tagged or text.strip().startswith("```")):
        text = max(fenced, key=len)
    return re.sub(r"\A(?:[ \t\r]*\n)+", "", text).rstrip()


def read_answer(completion: str) -> Reading:
    """The program that a careful reader would take from an answer, and by which rule."""
    if len(completion) > LONGEST:  # 2,048 tokens of a program are shorter; reading it would hold up the evaluation
        return _tidy(extract_code(completion), "too_long")
    text, prefix = _without_thoughts(completion.replace("\r\n", "\n"))
    tagged = list(_tagged(text))
    if tagged:
        found = max(tagged, key=lambda r: (is_program(r.code), len(r.code)))
        return _tidy(found.code, prefix + found.rule)
    if _TAG.search(text):
        prefix += "tag_in_prose+"
    fences = [f for f in _fences(text) if f.text.strip()]
    if fences:
        best = _program_among(fences)
        rule = best.kind if len(fences) == 1 else "program_fence"
        return _tidy(best.text, prefix + (rule if best.closed else "unclosed_fence"))
    if is_program(text):
        return _tidy(text, prefix + "whole")
    if (inner := _without_prose(text)) is not None:
        return _tidy(inner, prefix + "prose_around")
    return _tidy(extract_code(text), prefix + "whole")


def _by_reader(completion: str) -> str:
    return read_answer(completion).code


RULES: dict[str, Callable[[str], str]] = {"contract": extract_code, "reader": _by_reader}
EXTRACTIONS = tuple(RULES)


def program_of(completion: str, extraction: str) -> str:
    """The program of an answer; `extraction` is a key of RULES."""
    return RULES[extraction](completion)


def take(completion: str, extraction: str) -> Taken:
    """The program that `extraction` takes and, where it is one of COMPARED, what the other one takes."""
    form = contract_form(completion)
    if extraction not in COMPARED:
        return Taken(program_of(completion, extraction), form)
    reading = read_answer(completion)
    programs = {"contract": extract_code(completion), "reader": reading.code}
    code = programs.pop(extraction)
    [(beside, beside_code)] = programs.items()
    if beside_code == code:
        return Taken(code, form, reading.rule)
    return Taken(code=code, form=form, rule=reading.rule, beside=beside, beside_code=beside_code)


def _tidy(code: str, rule: str) -> Reading:
    """Surrounding blank lines dropped, indentation kept, as `extract_code` does."""
    return Reading(re.sub(r"\A(?:[ \t\r]*\n)+", "", code).rstrip(), rule)


def is_program(text: str) -> bool:
    """Whether a text is Python that does something: more than names, numbers and words that happen to parse."""
    if not text.strip() or len(text) > LONGEST or "\0" in text:
        return False
    first = next(line for line in text.splitlines() if line.strip())
    if first[0] in " \t":  # the body of a function, as HumanEval asks for
        text = "if 1:\n" + text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    body = tree.body
    if first[0] in " \t" and len(body) == 1 and isinstance(body[0], ast.If):
        body = body[0].body
    return any(not isinstance(s, ast.Expr) or isinstance(s.value, ast.Call | ast.Await | ast.NamedExpr) for s in body)


# ------------------------------------------------------------------------------------------------------------- thoughts
def _without_thoughts(text: str) -> tuple[str, str]:
    """The text behind the model's thoughts and the rule's prefix; all of it where nothing stands behind them."""
    rest = text
    while match := _THINK.match(rest):
        rest = rest[match.end() :]
    if rest == text:  # a template may have opened the block, so that only its end is in the answer
        last = list(_END_OF_THINK.finditer(text))[-MOST_ENDS:]
        ends = [m.end() for m in last if not _inside_program(text, m.start())]
        rest = text[ends[-1] :] if ends else text
    if (opened := _OPEN_THINK.search(rest)) and not _inside_program(rest, opened.start()):
        rest = rest[: opened.start()]  # thoughts that never end
    return (rest, "after_think+") if rest != text and rest.strip() else (text, "")


def _inside_program(text: str, position: int) -> bool:
    """Whether a position stands inside an open fence or tag that closes behind it: there it is a program's own text."""
    fences = [line for line in text[:position].splitlines() if line.lstrip().startswith(("```", "~~~"))]
    before = text[:position]
    in_tag = len(_TAG.findall(before)) > len(_END_TAG.findall(before)) and _END_TAG.search(text, position) is not None
    return in_tag or (len(fences) % 2 == 1 and "```" in text[position:])


# ----------------------------------------------------------------------------------------------------------------- tags
def _tagged(text: str) -> Iterator[Reading]:
    """What stands in the tags that hold a program, or stand where one would be."""
    position = tried = 0
    while (start := _TAG.search(text, position)) and tried < MOST_TAGS:
        position, tried = start.end(), tried + 1
        if _quoted(text, start):
            continue
        ends = [m.start() for m in itertools.islice(_END_TAG.finditer(text, start.end()), MOST_ENDS)]
        contents = [text[start.end() : end] for end in ends] or [text[start.end() :]]
        # "</code>" may stand in a string of the program: then a later one closes it.
        content = next((c for c in contents if is_program(c)), contents[0])
        position = start.end() + len(content)
        if is_program(content):
            yield Reading(content, "code_tag" if ends else "unclosed_tag")
            continue
        if (not ends and _in_a_sentence(text, start)) or _TAG.search(content):
            position = start.end()  # a later tag is the answer's
            continue
        fences = [f for f in _fences(content) if f.text.strip()]
        if fences:
            yield Reading(_program_among(fences).text, "code_tag_fence")
        elif (inside := _without_prose(content)) is not None:
            yield Reading(inside, "code_tag_prose")
        elif content.strip() and _stands_alone(text, content):
            yield Reading(content, "code_tag" if ends else "unclosed_tag")


def _quoted(text: str, tag: re.Match[str]) -> bool:
    """Whether a tag is only mentioned: it stands in backticks or quotes."""
    before, behind = text[max(0, tag.start() - 1) : tag.start()], text[tag.end() : tag.end() + 1]
    return before != "" and before in "`'\"" and behind in ("`", "'", '"')


def _in_a_sentence(text: str, tag: re.Match[str]) -> bool:
    """Whether words stand before and behind a tag on its line."""
    line, _, behind = text[text.rfind("\n", 0, tag.start()) + 1 :].partition("\n")[0].partition(tag[0])
    return bool(line.strip() and behind.strip())


def _stands_alone(text: str, content: str) -> bool:
    """Whether a tag's content is the answer though it does not parse: it has lines, or there is no other candidate."""
    return "\n" in content.strip() or not any(f.text.strip() for f in _fences(text))


# --------------------------------------------------------------------------------------------------------------- fences
def _fences(text: str) -> Iterator[Fence]:
    """The fenced blocks of a text, in lists and quotes too; an unclosed one takes the rest."""
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        quoted = _QUOTE.match(lines[number])
        bare = lines[number][quoted.end() :] if quoted else lines[number]
        number += 1
        if len(bare) > LONGEST_LINE or ("```" not in bare and "~~~" not in bare):
            continue
        opening = _OPEN.match(bare) or _OPEN_TILDE.match(bare)
        if opening is None:
            continue
        fence, mark = opening["fence"], opening["mark"]
        indent = len(mark.expandtabs(4))
        content, closed = [], False
        while number < len(lines):
            line = lines[number]
            if quoted and (again := _QUOTE.match(line)):
                line = line[again.end() :]
            number += 1
            stripped = line.strip()
            if stripped.startswith(fence) and not stripped.strip(fence[0]):
                closed = True
                break
            content.append(_outdented(line, indent))
        kind = "indented_fence" if indent or quoted else "tilde_fence" if fence[0] == "~" else "fence"
        yield Fence("\n".join(content), _marked(opening["info"]), kind, closed)


def _outdented(line: str, columns: int) -> str:
    """A line less the indentation of its fence, as CommonMark takes it off: at most so many columns of white space."""
    taken = 0
    for at, c in enumerate(line):
        if taken >= columns or c not in " \t":
            return line[at:]
        taken += 4 - taken % 4 if c == "\t" else 1
    return ""


def _marked(info: str) -> str:
    """What the words behind a fence's opening say it holds: python, none (no words) or other."""
    language = re.split(r"[\s{},:]+", info.strip().strip("{}. ").lower())[0]
    if not language:
        return "none"
    return "python" if language.lstrip(".") in PYTHON else "other"


def _program_among(fences: list[Fence]) -> Fence:
    """The fence with the program, by the order in the module's docstring.

    A fence that parses goes before a longer one that does not, if that is less than twice as long.
    """

    def rank(fence: Fence) -> int:
        if fence.marked == "python":
            return 3
        program = is_program(fence.text)
        return (2 if fence.marked == "none" else 1) if program else 0

    best = max(map(rank, fences))
    among = [f for f in fences if rank(f) == best]
    longest = max(len(f.text) for f in among)
    sound = [f for f in among if 2 * len(f.text) >= longest and is_program(f.text)]
    candidates = sound or among
    return max(reversed(candidates), key=lambda f: len(f.text))  # of equal ones the last: drafts come first


# ---------------------------------------------------------------------------------------------------------------- prose
def _without_prose(text: str) -> str | None:
    """The longest run of paragraphs that begins with a line like Python's and is a program; None where there is none.

    Only sentences are left out, so that a program that was cut off does not become a shorter one that runs.
    """
    lines = text.split("\n")
    starts = [i for i, line in enumerate(lines) if _STARTS_CODE.match(line[:LONGEST_LINE])][:MOST_ENDS]
    ends = [len(lines), *(i for i in range(len(lines) - 1, 0, -1) if not lines[i].strip())][: 2 * MOST_ENDS]
    for start in starts:
        for end in ends:
            block = "\n".join(lines[start:end])
            if end > start and all(map(_is_sentence, lines[:start] + lines[end:])) and is_program(block):
                return block
    return None


def _is_sentence(line: str) -> bool:
    """Whether a line is nothing but words: blank, or some words of which none makes it Python."""
    return not line.strip() or bool(
        len(line) <= LONGEST_LINE and _SENTENCE.match(line) and not _STARTS_CODE.match(line)
    )
