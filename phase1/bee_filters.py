"""The filters that look at one training record alone, run over the input by worker processes.

Workers also guard the main process: compiling an untrusted solution can overflow the C stack of some interpreters. When
a worker dies, the records it had are done again one at a time, and the one that kills its worker is dropped.
"""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from phase1.bee import BadRecord, BeeRecord, parse_record, python_fault
from phase1.bee_input import RawRecord
from phase1.decontaminate import EvalIndex, name_key, statement_hash, words_of
from phase1.duplicates import signature
from phase1.prompts import answer, chat, extract_code, user_message

# What --skip can leave out; parsing and empty solutions cannot be.
FILTERS = ("language", "syntax", "python2", "contamination", "duplicates", "near_duplicates", "length")
PYTHON3 = {"", "PYTHON3", "PY3", "PYTHON 3"}  # "PYTHON" alone is CodeContests' word for Python 2


@dataclass
class Filters:
    """What the workers need to know. `model`: a Hugging Face directory, None leaves length unmeasured."""

    index: EvalIndex
    prompt_style: str = "codecontests"
    skip: frozenset[str] = frozenset()
    model: Path | None = None
    max_length: int = 4096
    tokenizer: Any = field(default=None, repr=False)  # this and what follows is filled in from `model`
    count_tokens: Callable[[str, str], int] | None = field(default=None, repr=False)
    special_tokens: list[str] = field(default_factory=list)


@dataclass
class Examined:
    """What became of a record: a reason to drop it, or its texts and what the later steps need to compare it."""

    file: str
    line: int
    name: str = ""
    reason: str = ""  # "" = good so far
    detail: Any = ""
    user: str = ""
    answer: str = ""
    user_chars: int = 0
    answer_chars: int = 0
    solution_chars: int = 0
    tokens: int = 0  # of the whole row under the model's chat template; 0 = not measured
    id_key: str | None = None
    statement_hash: bytes = b""
    pair_hash: bytes = b""  # of statement and solution
    statement_signature: np.ndarray | None = None
    solution_signature: np.ndarray | None = None
    at: int = 0  # where the caller put the texts


def examine_all(chunks: Iterable[list[RawRecord]], filters: Filters, workers: int) -> Iterator[Examined]:
    """Each record's fate, in input order whatever the number of workers."""
    if filters.model and filters.tokenizer is None:
        filters.tokenizer = load_tokenizer(filters.model)
        filters.count_tokens = token_counter(filters.tokenizer)
        filters.special_tokens = list(filters.tokenizer.get_added_vocab())
    pool = _pool(filters, workers)
    pending: deque[tuple[list[RawRecord], Future]] = deque()
    try:
        for chunk in chunks:
            pending.append((chunk, pool.submit(_examine_chunk, chunk)))
            if len(pending) > 3 * workers:
                done, pool = _next(pending, pool, filters, workers)
                yield from done
        while pending:
            done, pool = _next(pending, pool, filters, workers)
            yield from done
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def load_tokenizer(model: Path) -> Any:
    """The model's tokenizer; imported here because transformers takes seconds to import."""
    from transformers import AutoTokenizer

    from phase1.files import BadInput

    try:
        return AutoTokenizer.from_pretrained(str(model))
    except (OSError, ValueError) as e:
        raise BadInput(f"{model}: no tokenizer can be loaded from it ({str(e).splitlines()[0]})") from None


def token_counter(tokenizer: Any) -> Callable[[str, str], int]:
    """A function of user turn and answer that counts the tokens of the whole row under the chat template.

    The prompt is counted once for all solutions of a problem that stand close together; verl, too, tokenises a row
    turn by turn (multiturn_sft_dataset.py, _process_single_message).
    """

    def count(text: str) -> int:
        if tokenizer.is_fast:  # encode_batch_fast leaves out the offsets, which nobody reads here
            return len(tokenizer.backend_tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids)
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    @functools.lru_cache(maxsize=256)
    def prompt(user: str) -> tuple[str, int]:
        text = tokenizer.apply_chat_template(chat(user), tokenize=False, add_generation_prompt=True)
        return text, count(text)

    def row(user: str, response: str) -> int:
        head, tokens = prompt(user)
        text = tokenizer.apply_chat_template(chat(user, response), tokenize=False)
        return tokens + count(text[len(head) :]) if text.startswith(head) else count(text)

    return row


def _pool(filters: Filters, workers: int) -> ProcessPoolExecutor:
    # Forked, so that index and tokenizer are there without being sent; tokenizers' own threads do not survive a fork.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    context = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_set_filters, initargs=(filters,))


def _next(pending: deque, pool: ProcessPoolExecutor, filters: Filters, workers: int) -> tuple[list[Examined], ProcessPoolExecutor]:
    """The result of the oldest chunk, and the pool to go on with: a new one where a worker died."""
    chunk, future = pending.popleft()
    try:
        return future.result(), pool
    except BrokenProcessPool:
        pool.shutdown(wait=False, cancel_futures=True)
    results = []
    for record in chunk:  # each in a process of its own: one of them killed its worker
        alone = _pool(filters, 1)
        try:
            results += alone.submit(_examine_chunk, [record]).result()
        except BrokenProcessPool:
            results.append(Examined(record[0], record[1], reason="syntax_error", detail="it crashes the compiler"))
        finally:
            alone.shutdown(wait=False, cancel_futures=True)
    pool = _pool(filters, workers)
    for i, (waiting, _) in enumerate(pending):
        pending[i] = (waiting, pool.submit(_examine_chunk, waiting))
    return results, pool


# ------------------------------------------------------------------------------------------------------ in a worker
_filters: Filters


def _set_filters(filters: Filters) -> None:
    global _filters
    _filters = filters


def _examine_chunk(chunk: list[RawRecord]) -> list[Examined]:
    return [examine(file, line, payload, _filters) for file, line, payload in chunk]


def examine(file: str, line: int, payload: bytes | dict, filters: Filters) -> Examined:
    """One record through all filters that need no other record, in the order in which they are reported."""
    result = Examined(file, line)
    try:
        row = payload if isinstance(payload, dict) else json.loads(payload)
        if not isinstance(row, dict):
            raise BadRecord(f"a JSON {type(row).__name__}, expected an object")
        record = parse_record(row)
    except (ValueError, RecursionError, BadRecord) as e:
        result.reason, result.detail = "parse_errors", str(e)[:200]
        return result
    result.name = record.name
    result.reason, result.detail = _fault(record, filters)
    if result.reason:
        return result
    result.user = record.statement if filters.prompt_style == "raw" else user_message("codecontests", record.statement)
    result.answer = answer(record.solution)
    if extract_code(result.answer) != record.solution:
        result.reason, result.detail = "answer_form", "the evaluation would cut other code out of this answer"
        return result
    _measure(result, record, filters)
    return result


def _fault(record: BeeRecord, filters: Filters) -> tuple[str, Any]:
    skip = filters.skip
    if "language" not in skip and record.language.upper() not in PYTHON3:
        return "not_python3", record.language
    if not record.solution.strip():
        return "empty_solution", ""
    fault = python_fault(record.solution) if not {"syntax", "python2"} <= skip else None
    if fault and fault.removesuffix("_error") not in skip:
        return fault, ""
    if "contamination" not in skip and (hit := filters.index.find(record.name, record.source, record.statement)):
        return "contaminated", asdict(hit)
    return "", ""


def _measure(result: Examined, record: BeeRecord, filters: Filters) -> None:
    """Lengths, hashes and signatures; a row that is too long or holds the template's own marks gets a reason."""
    result.user_chars, result.answer_chars = len(result.user), len(result.answer)
    result.solution_chars = len(record.solution)
    if filters.tokenizer is not None:
        specials = [t for t in filters.special_tokens if t in result.user or t in result.answer]
        if specials:
            result.reason, result.detail = "special_token", specials[0]
            return
        result.tokens = filters.count_tokens(result.user, result.answer)
        if "length" not in filters.skip and result.tokens > filters.max_length:
            result.reason, result.detail = "too_long", f"{result.tokens} tokens"
            return
    words = words_of(record.statement)
    code = record.solution.split()
    result.id_key = name_key(record.name, record.source) if record.name else None
    result.statement_hash = statement_hash(words)
    result.pair_hash = hashlib.blake2b(result.statement_hash + " ".join(code).encode("utf-8", "surrogatepass"),
                                       digest_size=16).digest()  # fmt: skip
    if "near_duplicates" not in filters.skip:
        result.statement_signature, result.solution_signature = _statement_signature(" ".join(words)), signature(code)


@functools.lru_cache(maxsize=256)  # the solutions of a problem stand close together
def _statement_signature(words: str) -> np.ndarray:
    return signature(words.split())
