"""Keep evaluation problems out of training: by id, by what the statement says, and by the program.

A statement tells a problem by its hash, by the share of its n-grams that occur, by its one sentence where it has no
more, and by its asserts. The original project's overlap filter had a regular expression that matched nothing. Here each
rule says which problem it found and how sure it is, and the tests fail if a rule drops nothing.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from phase1.contract.own_sets import known_sets
from phase1.contract.problems import Problem, load_problems, manifest_path, raw_path, read_manifest
from phase1.data.known_programs import KnownPrograms
from phase1.data.known_tests import KnownTests
from phase1.data.public_sets import SOURCES
from phase1.data.short_statements import ShortStatements
from phase1.files import BadInput

# As ids are spelled here. AtCoder and Aizu are one: published data mix up their numbers; names tell problems apart.
JUDGES = {number: name.lower().replace("aizu", "atcoder") for number, name in SOURCES.items()}
CODEFORCES = re.compile(r"\A\s*0*(\d{1,5})[_\-/ ]?([a-z]\d{0,2})(?![a-z0-9])", re.IGNORECASE)
# AtCoder's and Aizu's problems share one numbering in CodeContests: "p02537 AtCoder Regular Contest … - Title".
NUMBERED = re.compile(r"\A\s*(p\d{5})(?!\d)", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_DEFINED = re.compile(r"\bdef\s+(\w+)\s*\(", re.IGNORECASE)
# From the examples on, in normalised words: other numbers there do not make another problem. "For example, 47 is lucky"
# is a sentence of the statement.
_EXAMPLES = re.compile(
    r"(?<! for)(?<! in)(?<! the) "
    r"(?:(?:sample|example)s? (?:\d+ )?(?:test case )?(?:inputs?|outputs?|\d+)|examples? input) .*\Z"
)


@dataclass(frozen=True)
class Hit:
    """A training record is this evaluation problem: the rule that says so, and its score (1.0 = certain)."""

    dataset: str
    problem_id: str
    rule: str  # id | statement | ngrams | sentence | tests | solution
    score: float


@dataclass(frozen=True)
class Known:
    """What is known of an evaluation problem; "" and () where it is not.

    Attributes:
        dataset: its set.
        problem_id: its id there.
        statement: its text.
        solution: its reference program, whole.
        tests: texts that its asserts stand in.
    """

    dataset: str
    problem_id: str
    statement: str = ""
    solution: str = ""
    tests: Sequence[str] = ()


def known_problem(problem: Problem) -> Known:
    """A problem with its text, as it is looked for."""
    cases, solution = problem.test_cases, problem.canonical_solution or ""
    tests = cases["test_list"] if problem.test_type == "mbpp" else ()
    if problem.test_type == "humaneval":  # which calls what it tests "candidate"
        tests = (re.sub(r"\bcandidate\b", cases["entry_point"], cases["test_code"]),)
    return Known(problem.dataset, problem.problem_id, problem.prompt, problem.program(solution), tests)


def id_key(problem_id: str) -> str | None:
    """The comparable form of an evaluation set's id: "Codeforces/1575/G" and "1575_G" give "codeforces/1575/g".

    None for ids that name no contest problem ("HumanEval/0", "mbpp/11"): those are matched by their text alone.
    """
    head, _, rest = problem_id.partition("/")
    if head.lower() in {"humaneval", "mbpp"}:
        return None
    if not rest:
        return name_key(problem_id, None)
    judge = head.lower().replace("aizu", "atcoder")
    source = next((number for number, name in JUDGES.items() if name == judge), None)
    return name_key(rest, source) if source else None


def name_key(name: str, source: int | None) -> str | None:
    """The comparable form of a BEE record's name: "1283_D. Christmas Trees" from source 2 gives "codeforces/1283/d".

    Names without a known source count as Codeforces' where they look like it. Other judges go by source and name.
    """
    if source in (2, None) and (m := CODEFORCES.match(name)):
        return f"codeforces/{int(m[1])}/{m[2].lower()}"
    if m := NUMBERED.match(name):
        return m[1].lower()
    words = " ".join(_WORD.findall(name.lower()))
    return f"{JUDGES[source]}/{words}" if source in JUDGES and words else None


def words_of(statement: str) -> list[str]:
    """The statement's words in lower case, without punctuation and without everything from its examples on."""
    text = f"{' '.join(_WORD.findall(statement.lower()))} "
    first = text.find("ample")  # most statements have none before their end
    found = _EXAMPLES.search(text, max(0, first - 3)) if first >= 0 else None
    cut = text[: found.start()] if found else text
    return (cut if len(cut) >= 24 else text).split()


def names_in(statement: str) -> set[str]:
    """The functions that a statement defines, in lower case."""
    return {name.lower() for name in _DEFINED.findall(statement)}


def statement_hash(words: list[str]) -> bytes:
    """The digest of a statement's words (`words_of`), 16 bytes."""
    return hashlib.blake2b(" ".join(words).encode("utf-8", "surrogatepass"), digest_size=16).digest()


class _Sized(NamedTuple):
    """An evaluation problem and the number of its n-grams that count."""

    dataset: str
    problem_id: str
    grams: int


class EvalIndex:
    """The evaluation problems, ready to be found in training records.

    n-grams that more than `common` problems share are phrases of the trade ("the first line contains a single
    integer") and count for none of them.
    """

    def __init__(self, problems: Iterable[Known], n: int = 8, threshold: float = 0.6, common: int = 2) -> None:
        """Index the problems.

        Args:
            problems: the problems.
            n: words of an n-gram.
            threshold: share of a problem's n-grams, or of its reference program, 0 to 1, from which a record is taken
                for it.
            common: problems that may share an n-gram before it counts for none of them.
        """
        self.n = n
        self.threshold = threshold
        self._find_text = functools.lru_cache(maxsize=256)(self._search_text)  # a problem's solutions come together
        self.ids: dict[str, tuple[str, str]] = {}
        self.statements: dict[bytes, tuple[str, str]] = {}
        self.problems: list[_Sized] = []
        grams: list[set[tuple[str, ...]]] = []
        every, statements = list(problems), []
        self.names = {name for problem in every for name in names_in(problem.statement)}
        for problem in every:
            place = (problem.dataset, problem.problem_id)
            if key := id_key(problem.problem_id):
                self.ids.setdefault(key, place)
            words = self._words(problem.statement)
            known = self.statements.setdefault(statement_hash(words), place) if words else None
            # A statement that stands in three sets counts once: its n-grams are no phrases of the trade.
            grams.append(set(self._grams(words)) if known == place else set())
            statements.append(words)
            self.problems.append(_Sized(*place, 0))
        self.sentences = ShortStatements(statements)
        self.tests = KnownTests(problem.tests for problem in every)
        self.programs = KnownPrograms((problem.solution for problem in every), threshold)
        shared = Counter(g for s in grams for g in s)
        self.common = {g for g, count in shared.items() if count > common}
        self.grams: dict[tuple[str, ...], list[int]] = {}
        for i, s in enumerate(grams):
            own = s - self.common
            self.problems[i] = self.problems[i]._replace(grams=len(own))
            for g in own:
                self.grams.setdefault(g, []).append(i)

    def _words(self, statement: str) -> list[str]:
        """`words_of`, with one word for every function that it or an evaluation problem defines: another name makes no
        other problem."""
        words = words_of(statement)
        names = self.names | names_in(statement) if "def " in statement or "DEF " in statement else self.names
        return words if names.isdisjoint(words) else ["function" if word in names else word for word in words]

    def _grams(self, words: list[str]) -> Iterable[tuple[str, ...]]:
        return zip(*(words[i:] for i in range(self.n)), strict=False)

    def find(self, name: str, source: int | None, statement: str, solution: str = "") -> Hit | None:
        """The evaluation problem that a training record is, by the surest rule; None for an unrelated record."""
        return self._find(name_key(name, source), statement, solution)

    def find_problem(self, problem: Problem) -> Hit | None:
        """As `find`, for a problem with tests, whose id is spelled as an evaluation set spells it."""
        own = known_problem(problem)
        found = self._find(id_key(own.problem_id), own.statement, own.solution)
        return found or self._find_tests("\n".join(own.tests))

    def _find(self, key: str | None, statement: str, solution: str) -> Hit | None:
        if key is not None and key in self.ids:
            return Hit(*self.ids[key], "id", 1.0)
        return self._find_text(statement) or self._find_solution(solution)

    def _search_text(self, statement: str) -> Hit | None:
        words = self._words(statement)
        if found := self.statements.get(statement_hash(words)):
            return Hit(*found, "statement", 1.0)
        if found_by_phrases := self._find_ngrams(words):
            return found_by_phrases
        number = self.sentences.find(words)
        return self._find_tests(statement) if number is None else self._hit(number, "sentence", 1.0)

    def _find_tests(self, text: str) -> Hit | None:
        found = self.tests.find(text)
        return self._hit(found.number, "tests", found.score) if found else None

    def _find_solution(self, program: str) -> Hit | None:
        found = self.programs.find(program)
        return self._hit(found.number, "solution", found.score) if found else None

    def _hit(self, number: int, rule: str, score: float) -> Hit:
        found = self.problems[number]
        return Hit(found.dataset, found.problem_id, rule, round(score, 4))

    def _find_ngrams(self, words: list[str]) -> Hit | None:
        """Containment either way: of the problem in the record, or of the record in the problem (a part of it)."""
        own = set(self._grams(words))
        shared: Counter[int] = Counter()
        for g in own & self.grams.keys():
            shared.update(self.grams[g])
        # Three n-grams at least: ten words in a row, which no two authors write by chance.
        hits = {problem: count for problem, count in shared.items() if count >= 3}
        if not hits:
            return None
        rare = len(own - self.common)
        scores = {problem: count / min(self.problems[problem].grams, rare) for problem, count in hits.items()}
        best = max(scores, key=lambda problem: (scores[problem], -problem))  # of equal ones the first
        if scores[best] < self.threshold:
            return None
        return self._hit(best, "ngrams", scores[best])


@dataclass(frozen=True)
class KeptOut:
    """The evaluation problems that training must not see; and how many each set has, or why its text is not known."""

    index: EvalIndex
    sets: dict[str, int | str]


def read_kept_out(manifest_dir: Path, allow_missing: bool, threshold: float) -> KeptOut:
    """Read the evaluation sets: the contract's and sets.toml's, which must be there, and every other manifest there.

    Args:
        manifest_dir: the manifests; the raw files lie in ../raw.
        allow_missing: go on where a file of a set is missing.
        threshold: as in EvalIndex.

    Raises:
        BadInput: a file is missing or damaged.
    """
    problems: list[Known] = []
    sets: dict[str, int | str] = {}
    found = {path.name.removesuffix("_manifest.jsonl") for path in manifest_dir.glob("*_manifest.jsonl")}
    known = known_sets(manifest_dir)
    for name in (*known, *sorted(found - known.keys())):
        paths = (manifest_path(manifest_dir, name), raw_path(manifest_dir, name))
        missing = [path for path in paths if not path.exists()]
        if missing and not allow_missing:
            raise BadInput(
                f"{missing[0]}: no such file, so {name} could leak into training; make it with "
                "prepare_eval_data.py or say --allow_missing_manifests"
            )
        if name not in found:
            sets[name] = "no manifest"
        elif missing:
            ids = read_manifest(manifest_dir, name)
            problems += [Known(name, problem_id) for problem_id in ids]
            sets[name] = f"{len(ids)} ids, no statements"
        else:
            loaded = load_problems(manifest_dir, name)
            problems += map(known_problem, loaded)
            sets[name] = len(loaded)
    return KeptOut(EvalIndex(problems, threshold=threshold), sets)
