"""The filters that look at one training record alone, run over the input by worker processes.

Workers also guard the main process: compiling an untrusted solution can overflow the C stack of some interpreters. When
a worker dies, the records it had are done again one at a time, and the one that kills its worker is dropped.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import multiprocessing
import os
import pickle
import re
import signal
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from phase1.contract.compile_apart import compile_error
from phase1.contract.prompts import answer, chat, user_message
from phase1.contract.training_row import read_training_row
from phase1.data.bee import BeeRecord, parse_record, python_fault
from phase1.data.decontaminate import EvalIndex, name_key, statement_hash, words_of
from phase1.data.duplicates import signature
from phase1.data.examples import examples
from phase1.data.record_forms import BadRecord
from phase1.data.tokens import RowTokens
from phase1.data.training_records import Payload, RawRecord
from phase1.model.tokenizer import load_chat_tokenizer

# What --skip can leave out; parsing and empty solutions cannot be.
FILTERS = ("language", "syntax", "python2", "contamination", "duplicates", "near_duplicates", "length")
PR_SET_PDEATHSIG = 1  # prctl(2): the signal that this process gets when its parent dies
# "PYTHON" in capitals is CodeContests' word for Python 2; "python" is everybody's for 3.
PYTHON3 = re.compile(r"|[Pp]ython|py|(?i:py(?:thon)?[ -]?3(?:\.\d+)*)")


@dataclass
class Filters:
    """What the workers need to know.

    Attributes:
        index: the evaluation problems.
        prompt_style: "codecontests" or "raw", as --prompt_style.
        skip: those of FILTERS that are left out.
        model: a Hugging Face directory; None leaves lengths unmeasured.
        max_length: tokens of a whole row.
        examples: read the statement's examples, for --verify_solutions.
        tokens: filled in from `model`.
    """

    index: EvalIndex
    prompt_style: str = "codecontests"
    skip: frozenset[str] = frozenset()
    model: Path | None = None
    max_length: int = 4096
    examples: bool = False
    tokens: RowTokens | None = field(default=None, repr=False)


@dataclass(slots=True)
class Examined:
    """What became of a record: a reason to drop it, or its texts and what the later steps need to compare it."""

    file: str
    line: int
    name: str = ""
    reason: str = ""  # "" = good so far
    detail: JsonValue = ""
    texts: bytes = b""  # pickled Texts
    user_chars: int = 0
    answer_chars: int = 0
    solution_chars: int = 0
    tokens: int = 0  # of the whole row under the model's chat template; 0 = not measured
    trained_tokens: int = 0  # of those, the answer and the end of its turn
    id_key: str | None = None
    statement_hash: bytes = b""
    pair_hash: bytes = b""  # of statement and solution
    signatures: bytes = b""  # of statement and solution, one behind the other


class _Fault(NamedTuple):
    """Why a record goes; both "" where it stays."""

    reason: str
    detail: JsonValue = ""


@dataclass(slots=True)
class Texts:
    """What of a record is read again only when it is dropped, run or written."""

    name: str
    user: str
    answer: str
    examples: list[dict[str, str]]


_Examining = Future[list[Examined]]


class _Chunk(NamedTuple):
    """Records that were handed to a worker, and its answer to come."""

    records: list[RawRecord]
    examining: _Examining


def examine_all(chunks: Iterable[list[RawRecord]], filters: Filters, workers: int) -> Generator[Examined, None, None]:
    """What becomes of each record, in input order whatever the number of workers.

    Raises:
        BadInput: no tokenizer can be loaded from the model's directory.
    """
    if filters.model and filters.tokens is None:
        filters.tokens = RowTokens(load_chat_tokenizer(filters.model))
    if "near_duplicates" not in filters.skip:
        signature(())  # imports its library here, once, and not in each worker
    pool = _pool(filters, workers)
    pending: deque[_Chunk] = deque()
    try:
        for chunk in chunks:
            pending.append(_Chunk(chunk, _submit(pool, chunk)))
            if len(pending) > 3 * workers:
                done, pool = _next(pending, pool, filters, workers)
                yield from done
        while pending:
            done, pool = _next(pending, pool, filters, workers)
            yield from done
    finally:
        # And wait: an interpreter that ends meanwhile can fail in the pool's own thread.
        pool.shutdown(cancel_futures=True)


def _pool(filters: Filters, workers: int) -> ProcessPoolExecutor:
    # Forked, so that index and tokenizer are there without being sent; tokenizers' own threads do not survive a fork.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    context = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(filters, os.getpid()))


def _submit(pool: ProcessPoolExecutor, chunk: list[RawRecord]) -> _Examining:
    """The future of a chunk; where a worker has died already, a failed one, like those of the chunks before it."""
    try:
        return pool.submit(_examine_chunk, chunk)
    except BrokenProcessPool as e:
        failed: _Examining = Future()
        failed.set_exception(e)
        return failed


def _next(
    pending: deque[_Chunk], pool: ProcessPoolExecutor, filters: Filters, workers: int
) -> tuple[list[Examined], ProcessPoolExecutor]:
    """The result of the oldest chunk, and the pool to go on with: a new one where a worker died."""
    chunk = pending.popleft()
    try:
        return chunk.examining.result(), pool
    except BrokenProcessPool:
        pool.shutdown(cancel_futures=True)
    results = []
    for record in chunk.records:  # each in a process of its own: one of them killed its worker
        alone = _pool(filters, 1)
        try:
            results += alone.submit(_examine_chunk, [record]).result()
        except BrokenProcessPool:
            results.append(Examined(record.file, record.line, reason="syntax_error", detail="it crashes the compiler"))
        finally:
            alone.shutdown(cancel_futures=True)
    pool = _pool(filters, workers)
    for i, waiting in enumerate(pending):
        pending[i] = _Chunk(waiting.records, _submit(pool, waiting.records))
    return results, pool


# ------------------------------------------------------------------------------------------------------ in a worker
_filters: Filters


def _start(filters: Filters, parent: int) -> None:
    global _filters
    _filters = filters
    # Ctrl-C and SIGTERM are the main process's to answer. When that is killed, the pool's workers would wait for ever.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _examine_chunk(chunk: list[RawRecord]) -> list[Examined]:
    return [examine(raw, _filters) for raw in chunk]


def examine(raw: RawRecord, filters: Filters) -> Examined:
    """One record through all filters that need no other record, in the order in which they are reported."""
    result = Examined(raw.file, raw.line)
    try:
        record = parse_record(_row_of(raw.payload))
    except (ValueError, RecursionError, BadRecord) as e:
        result.reason, result.detail = "parse_errors", str(e)[:400]
        return result
    result.name = record.name
    fault = _fault(record, filters)
    result.reason, result.detail = fault.reason, fault.detail
    if result.reason:
        return result
    user = record.statement if filters.prompt_style == "raw" else user_message("codecontests", record.statement)
    response = answer(record.solution)
    if read_training_row(chat(user, response)).program != record.solution:
        result.reason, result.detail = "answer_form", "the evaluation would cut other code out of this answer"
        return result
    _measure(result, user, response, filters)
    if not result.reason:
        _compare(result, record, filters)
        tests = examples(record.statement) if filters.examples else []
        result.texts = pickle.dumps(Texts(record.name, user, response, tests), protocol=4)
    return result


def _row_of(payload: Payload) -> dict[str, JsonValue]:
    if isinstance(payload, BadRecord):
        raise payload
    row = payload if isinstance(payload, dict) else json.loads(payload)
    if not isinstance(row, dict):
        raise BadRecord(f"a JSON {type(row).__name__}, expected an object")
    return row


def _fault(record: BeeRecord, filters: Filters) -> _Fault:
    skip = filters.skip
    if "language" not in skip and not PYTHON3.fullmatch(record.language):
        return _Fault("not_python3", f"language {record.language!r}, not PYTHON3")
    if not record.solution.strip():
        return _Fault("empty_solution")
    fault = python_fault(record.solution) if not {"syntax", "python2"} <= skip else None
    if fault and fault.removesuffix("_error") not in skip:
        return _Fault(fault, compile_error(record.solution) or "" if fault == "syntax_error" else "")
    if "contamination" not in skip:
        hit = filters.index.find(record.name, record.source, record.statement, record.solution)
        if hit:
            return _Fault("contaminated", asdict(hit))
    return _Fault("")


def _measure(result: Examined, user: str, response: str, filters: Filters) -> None:
    """Lengths; a row that is too long or holds the template's own marks gets a reason."""
    result.user_chars, result.answer_chars = len(user), len(response)
    if filters.tokens is None:
        return
    if special := filters.tokens.special_in(user) or filters.tokens.special_in(response):
        result.reason, result.detail = "special_token", special
        return
    length = filters.tokens.count(user, response)
    result.tokens, result.trained_tokens = length.prompt + length.trained, length.trained
    if "length" not in filters.skip and result.tokens > filters.max_length:
        result.reason, result.detail = "too_long", f"{result.tokens} tokens"


def _compare(result: Examined, record: BeeRecord, filters: Filters) -> None:
    """Hashes and signatures, by which the later steps compare records."""
    statement, signed = _statement_keys(record.statement, "near_duplicates" not in filters.skip)
    code = record.solution.split()
    pair = statement + " ".join(code).encode("utf-8", "surrogatepass")
    result.solution_chars = len(record.solution)
    result.id_key = name_key(record.name, record.source) if record.name else None
    result.statement_hash = statement
    result.pair_hash = hashlib.blake2b(pair, digest_size=8).digest()
    if signed:
        result.signatures = signed + signature(code).tobytes()


@functools.lru_cache(maxsize=256)  # the solutions of a problem stand close together
def _statement_keys(text: str, signed: bool) -> tuple[bytes, bytes]:
    """A statement's hash and, where it is wanted, its signature."""
    words = words_of(text)
    return statement_hash(words), signature(words).tobytes() if signed else b""
