"""Which backend is taken, and that a further one is a class and a line."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from phase1.files import BadInput, read_json
from phase1.generate.backends import BACKENDS, choose_generator
from phase1.generate.decoding import Answer
from phase1.generate.protocol import BackendRecord, Generation
from phase1.generate.settings import BackendSettings
from phase1.generate.vllm_backend import VllmGenerator
from tests.evaluate.running import rows, run_eval
from tests.generate.stub_servers import stub_interpreter


@pytest.fixture
def settings(tmp_path):
    """Settings of a model with a context of 4096 tokens, with changes."""
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 4096}')

    def make(**changes: object) -> BackendSettings:
        return BackendSettings(tmp_path, tmp_path / "logs", **changes)

    return make


@pytest.mark.parametrize(
    ("gpus", "changes", "name"),
    [
        ("", {}, "transformers"),
        ("0", {}, "transformers"),  # this interpreter has no vLLM
        ("", {"vllm_url": ("http://127.0.0.1:1",)}, "vllm"),
        ("", {"vllm_python": "stub"}, "vllm"),
        ("0", {"vllm_python": "stub", "backend": "transformers"}, "transformers"),
    ],
    ids=["cpu", "gpu", "url", "python", "named"],
)
def test_auto_takes_vllm_where_it_can_be_used(settings, tmp_path, monkeypatch, gpus, changes, name):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    if "vllm_python" in changes:
        changes = {**changes, "vllm_python": str(stub_interpreter(tmp_path))}
    assert choose_generator(settings(**changes)).name == name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "transformers", "batch_invariant": True}, "--batch_invariant is a mode of vLLM's"),
        ({"backend": "vllm"}, "has no vLLM; name an interpreter that has it with --vllm_python"),
        ({"backend": "vllm", "vllm_python": "/nowhere/python"}, "/nowhere/python: not a working interpreter"),
        ({"backend": "vllm", "vllm_args": "'--enforce-eager"}, "--vllm_args '--enforce-eager: No closing quotation"),
    ],
    ids=["batch_invariant", "no_vllm", "no_python", "quotation"],
)
def test_a_backend_that_cannot_be_used_is_one_line(settings, changes, message):
    with pytest.raises(BadInput) as refused:
        choose_generator(settings(**changes))
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_servers_get_no_more_context_than_the_model_has(settings, tmp_path):
    python = str(stub_interpreter(tmp_path))
    generator = choose_generator(settings(backend="vllm", vllm_python=python, max_model_len=6144))
    assert isinstance(generator, VllmGenerator) and generator.servers.max_model_len == 4096


@pytest.mark.parametrize(
    ("gpus", "changes", "cores"),
    [
        ("", {"num_servers": 3}, 6),
        ("0,1,2,3", {}, 8),
        ("0,1,2,3", {"tensor_parallel_size": 2}, 4),
        ("0,1", {"vllm_url": ("http://elsewhere:1",)}, 0),
    ],
    ids=["cpu", "gpus", "groups", "elsewhere"],
)
def test_two_cores_are_left_to_each_server_of_our_own(settings, tmp_path, monkeypatch, gpus, changes, cores):
    """docs/04: "two cores a server are left to vLLM"."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    python = str(stub_interpreter(tmp_path))
    assert choose_generator(settings(backend="vllm", vllm_python=python, **changes)).busy_cores == cores


@dataclass(frozen=True)
class Parrot:
    """A backend that answers with the problem's name."""

    name: str = "parrot"
    needs_torch: bool = False
    busy_cores: int = 0

    @contextlib.asynccontextmanager
    async def open(self, requests, setup, progress) -> AsyncIterator[Generation]:
        async def completions():
            for r in requests:
                progress.requests_sent()
                answer = Answer(f"print({r.problem.problem_id!r})", "stop", 3)
                yield r.completion(answer, seconds=0.1, started=1.0, session=setup.session)

        yield Generation(BackendRecord({"backend": "parrot"}, {"parrot": "1.0"}), completions())


@pytest.mark.slow
def test_a_further_backend_is_one_class_and_one_line(base_model, tmp_path, monkeypatch):
    monkeypatch.setitem(BACKENDS, "parrot", lambda settings: Parrot())
    data = ["--datasets", "mbpp_reg", "--limit", 2]
    done = run_eval("--model_path", base_model, "--output_dir", tmp_path, *data, "--backend", "parrot")
    assert done.returncode == 0, done.said
    run = read_json(tmp_path / "run.json")
    assert run["sampling"]["backend"] == run["generation"]["backend"] == "parrot"
    assert run["stamp"]["versions"]["parrot"] == "1.0"
    assert {r["code"] for r in rows(tmp_path, "results")} == {
        f"print({r['problem_id']!r})" for r in rows(tmp_path, "results")
    }


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--n_samples", 2], "greedy answers are all the same"),
        (["--temperature", "-1"], "expected temperature from 0"),
        (["--temperature", "nan"], "expected temperature from 0"),
        (["--top_p", 0], "top_p above 0"),
        (["--top_k", 0], "top_k -1 or from 1"),
        (["--repetition_penalty", 0], "a penalty above 0"),
        (["--num_servers", -1], "argument --num_servers"),
        (["--stall_timeout", 0], "argument --stall_timeout"),
        (["--backend", "vllm", "--vllm_args", "'--enforce-eager"], "No closing quotation"),
    ],
    ids=lambda value: value[-2].strip("-") if isinstance(value, list) else "",
)
def test_flags_that_make_no_sense_are_refused_before_anything_starts(base_model, tmp_path, args, message):
    data = ["--datasets", "mbpp_reg", "--limit", 1]
    done = run_eval("--model_path", base_model, "--output_dir", tmp_path / "out", *data, *args)
    assert done.returncode == 2 and message in done.stderr.splitlines()[-1], done.said
    assert not (tmp_path / "out").exists()
