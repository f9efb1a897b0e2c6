"""Stub servers that are killed at a test's end, and the answers that they give."""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phase1.contract.problems import load_problems
from phase1.model.tokenizer import chat_ids, load_chat_tokenizer
from tests.evaluate.running import MANIFESTS
from tests.generate.stub_servers import StubServer
from tests.generate.stub_vllm import key

SETS = ["codecontests_valid", "mbpp_reg"]
LIMIT = 16  # problems of each


@pytest.fixture
def stub(base_model, tmp_path) -> Iterator[Callable[..., StubServer]]:
    """Start a stub with these arguments; it serves the base model unless they name another."""
    running = []

    def start(*args: object) -> StubServer:
        running.append(StubServer(tmp_path, base_model, *args))
        return running[-1]

    yield start
    for server in running:
        server.kill()


@pytest.fixture(scope="session")
def prompts(base_model) -> dict[tuple[str, str], str]:
    """The key under which a stub knows each of the first LIMIT problems of SETS."""
    tokenizer = load_chat_tokenizer(base_model)
    return {
        (dataset, p.problem_id): key(chat_ids(tokenizer, p.user))
        for dataset in SETS
        for p in load_problems(MANIFESTS, dataset, limit=LIMIT)
    }


@pytest.fixture(scope="session")
def answers(prompts, tmp_path_factory) -> Path:
    """Right answers to half of the problems, wrong ones to the rest, by prompt."""
    texts = {}
    for dataset in SETS:
        for n, p in enumerate(load_problems(MANIFESTS, dataset, limit=LIMIT)):
            code = p.canonical_solution if n % 2 and p.canonical_solution else f"print('wrong {n}')"
            texts[prompts[dataset, p.problem_id]] = f"<code>\n{code}\n</code>"
    path = tmp_path_factory.mktemp("answers") / "answers.json"
    path.write_text(json.dumps(texts))
    return path


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose name leaves room for that of a socket, which pytest's own do not."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
