"""One start a pass: a real vLLM server takes the weights of one checkpoint after the other, and ends with the pass."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from phase1.checkpoints.child import run_child
from phase1.files import read_json
from phase1.generate import kept_servers
from phase1.generate.decoding import decode
from phase1.generate.inside import phase1_weights
from phase1.generate.kept_servers import (
    HELD,
    STATE,
    Kept,
    KeptServers,
    NotProved,
    description,
    held_servers,
    inherited,
)
from phase1.generate.model_config import stop_ids
from phase1.generate.vllm_servers import ServerConfig, environment
from phase1.model.tokenizer import chat_ids, load_chat_tokenizer
from phase1.owned import birth
from tests.evaluate import running
from tests.generate.stub_servers import stub_interpreter
from tests.generate.test_vllm_real import EAGER, PYTHON, command, completions, processes
from tests.generate.test_vllm_real import pytestmark as needs_vllm

FLAGS = ["--datasets", "mbpp_reg", "--limit", "6", "--vllm_python", str(PYTHON), "--num_servers", "1"]
FLAGS += [f"--vllm_args={EAGER}", "--max_concurrent", "1"]


@pytest.fixture(scope="module")
def models(base_model, tmp_path_factory) -> list[Path]:
    """Three checkpoints: the base model, and two whose every weight is another."""
    import torch
    from safetensors.torch import load_file, save_file

    home = tmp_path_factory.mktemp("checkpoints")
    made = []
    for n in range(3):
        made.append(shutil.copytree(base_model, home / f"global_step_{n}" / "huggingface"))
        noise = torch.Generator().manual_seed(n)
        weights = load_file(made[-1] / "model.safetensors")
        moved = {k: v + n * 0.02 * torch.randn(v.shape, generator=noise).to(v.dtype) for k, v in weights.items()}
        save_file(moved, made[-1] / "model.safetensors", metadata={"format": "pt"})
    return made


@pytest.fixture(scope="module")
def kept(models, tmp_path_factory):
    """The three evaluations of a pass, whose server still runs; their folders and what each said."""
    home = tmp_path_factory.mktemp("pass")
    with held_servers(home / "servers") as environment:
        for n, model in enumerate(models):
            arguments = [*command(model, home / f"eval_step_{n}", *FLAGS)[2:]]
            of_one = {**environment, "OMP_NUM_THREADS": "1"}
            error = asyncio.run(run_child("phase1_eval.py", arguments, home / f"log_{n}", of_one))
            assert not error, (home / f"log_{n}").read_text()
        # Of a session of its own: this process is the pass, and takes the servers over as an evaluation does.
        pipe = int(environment[HELD].partition(" ")[0])
        yield home, Kept(home / "servers", pipe)
    deadline = time.monotonic() + 10
    while (left := processes(str(home / "servers"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, "a server outlived its pass"
    assert not (home / "servers" / STATE).exists() and not (home / "servers" / "model").is_symlink()


@pytest.fixture(scope="module")
def own_start(models, kept, tmp_path_factory) -> list[Path]:
    """The answers of the second and third, each loaded by itself in a fresh process, to what the pass asked; in the
    form of an evaluation's. One request at a time and one thread as in the pass: the order of a sum depends on both."""
    asked = running.rows(kept[0] / "eval_step_0", "completions")
    tokenizer = load_chat_tokenizer(models[0])
    stops = stop_ids(models[0], tokenizer)
    prompts = [chat_ids(tokenizer, row["prompt"]) for row in asked]
    home = tmp_path_factory.mktemp("own")
    wanted = {"models": [*map(str, models[1:])], "prompts": prompts, "stop": stops, "max_tokens": 96}
    config = ServerConfig(models[0], home, python=str(PYTHON.absolute()))
    done = subprocess.run(
        [PYTHON, Path(__file__).with_name("own_answers.py"), home / "answers.json"],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        env={**environment(config, "the CPU", 1), "OMP_NUM_THREADS": "1"},
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outs = []
    for n, answers in enumerate(read_json(home / "answers.json")):
        outs.append(home / f"model_{n}")
        (outs[-1] / "completions").mkdir(parents=True)
        with open(outs[-1] / "completions" / "mbpp_reg.jsonl", "w", encoding="utf-8") as lines:
            for row, prompt, ids in zip(asked, prompts, answers, strict=True):
                answer = decode(tokenizer, ids, stops)
                own = {"completion": answer.text, "finish_reason": answer.reason, "gen_tokens": answer.tokens}
                lines.write(json.dumps({**row, **own, "prompt_tokens": len(prompt)}) + "\n")
    return outs


@needs_vllm[0]
@needs_vllm[1]
class TestARealServer:
    def test_three_checkpoints_need_one_start_and_answer_as_by_their_own(self, models, own_start, kept):
        home, _ = kept
        said = [(home / f"log_{n}").read_text() for n in range(3)]
        assert [s.count("starting 1 servers") for s in said] == [1, 0, 0]
        assert [s.count("1 servers took the weights of") for s in said] == [0, 1, 1]
        answers = [completions(home / f"eval_step_{n}") for n in range(3)]
        assert len(answers[0]) == 6
        assert answers[0] != answers[1] != answers[2] != answers[0], "the checkpoints answer alike: nothing is shown"
        assert answers[1:] == [completions(out) for out in own_start]
        for n, model in enumerate(models):
            run = read_json(home / f"eval_step_{n}" / "run.json")
            assert run["model"]["path"] == str(model.resolve())
            assert ("swap" in run["seconds"], "start" in run["seconds"]) == (n > 0, n == 0)

    @pytest.mark.parametrize(
        ("sabotaged", "word"),
        [
            (["load_weights"], "holds other weights than .* in .* parameters"),
            (["load_weights", "prove_weights"], "answers as with the last checkpoint's weights"),
        ],
        ids=["the files are not read", "nor do the workers notice"],
    )
    def test_old_weights_that_stay_are_noticed(self, models, kept, monkeypatch, sabotaged, word):
        _, pool = kept
        for name in sabotaged:
            monkeypatch.setattr(kept_servers, name, lambda *_: None)
        before = KeptServers.read(pool.folder / STATE)
        with pytest.raises(NotProved, match=word):
            swap(pool, before, models[0])
        assert KeptServers.read(pool.folder / STATE).how == {}, "another evaluation would trust them"
        before.write(pool.folder / STATE)
        pool._link(models[2])

    def test_what_differs_in_more_than_weights_is_started_anew_and_the_old_server_is_gone(
        self, models, kept, monkeypatch, tmp_path
    ):
        """Last, since it stops the server."""
        _, pool = kept
        other = shutil.copytree(models[0], tmp_path / "other")
        (other / "tokenizer_config.json").write_text((other / "tokenizer_config.json").read_text() + " ")
        state, said = KeptServers.read(pool.folder / STATE), []

        class Started(Exception):
            pass

        def start(config):
            assert config.model_path == pool.model and pool.model.resolve() == other.resolve()
            raise Started

        monkeypatch.setattr(kept_servers, "start_servers", start)
        with pytest.raises(Started):
            pool.serve(config_for(other, state), said.append)
        assert said == ["vLLM: started anew: tokenizer_config.json is not that of the last checkpoint"]
        assert kept_servers.Keeper(state.servers[0].pid, state.servers[0].born).poll() is not None


def config_for(model: Path, state: KeptServers) -> ServerConfig:
    """How the pass's evaluations start a server."""
    return ServerConfig(
        model_path=model,
        log_dir=Path("unused"),
        num_servers=1,
        dtype="float32",
        max_model_len=2048,
        max_num_seqs=1,
        python=str(PYTHON.absolute()),
        more_args=(EAGER,),
    )


def swap(pool: Kept, state: KeptServers, model: Path) -> None:
    config = config_for(model, state)
    assert description(config) == state.how, "the test's settings are not the evaluation's"
    pool._load(state, [kept_servers._server(s) for s in state.servers], description(config), config)


# ------------------------------------------------------------------------------------------- without a server
@pytest.mark.parametrize(
    ("file", "text", "same"),
    [
        ("config.json", '{"a": 1, "transformers_version": "9", "_name_or_path": "x"}', True),
        ("config.json", '{"a": 2}', False),
        ("tokenizer.json", "{} ", False),
        ("chat_template.jinja", "new", False),
        ("model.safetensors.index.json", "{}", True),
        ("model.safetensors", "weights", True),
    ],
)
def test_all_but_weights_must_be_equal(tmp_path, file, text, same):
    (tmp_path / "config.json").write_text('{"a": 1}')
    (tmp_path / "tokenizer.json").write_text("{}")
    config = ServerConfig(tmp_path, tmp_path)
    before = description(config)
    (tmp_path / file).write_text(text)
    assert (description(config) == before) is same


class Files(dict):
    """Tensors as safetensors' files give them."""

    def get_tensor(self, name):
        return self[name]


def laid_out(files, name, rank, ranks, kv_copies=1):
    """A weight as vLLM's layers hold it on one rank."""
    import torch

    if name.endswith("norm.weight"):
        return files[name].clone()
    if ".o_proj." in name or ".down_proj." in name:
        return files[name].chunk(ranks, 1)[rank].clone()
    parts = [files[source] for source in phase1_weights.sources_of(name)]
    copies = [1, kv_copies, kv_copies] if ".qkv_proj." in name else [1, 1]
    return torch.cat([p.chunk(ranks // c, 0)[rank // c] for p, c in zip(parts, copies, strict=False)])


LAYER = "model.layers.0"
HELD_BY_VLLM = [
    "model.embed_tokens.weight",
    f"{LAYER}.self_attn.qkv_proj.weight",
    f"{LAYER}.self_attn.qkv_proj.bias",
    f"{LAYER}.self_attn.o_proj.weight",
    f"{LAYER}.mlp.gate_up_proj.weight",
    f"{LAYER}.mlp.down_proj.weight",
    f"{LAYER}.input_layernorm.weight",
]


@pytest.fixture
def files():
    import torch

    torch.manual_seed(0)
    shapes = {"model.embed_tokens.weight": (32, 8), f"{LAYER}.input_layernorm.weight": (8,)}
    for name, rows in (("q_proj", 8), ("k_proj", 4), ("v_proj", 4)):
        shapes |= {f"{LAYER}.self_attn.{name}.weight": (rows, 8), f"{LAYER}.self_attn.{name}.bias": (rows,)}
    shapes |= {f"{LAYER}.self_attn.o_proj.weight": (8, 8), f"{LAYER}.mlp.down_proj.weight": (8, 16)}
    shapes |= {f"{LAYER}.mlp.{name}.weight": (16, 8) for name in ("gate_proj", "up_proj")}
    tensors = Files({name: torch.randn(shape) for name, shape in shapes.items()})
    return dict.fromkeys(tensors, tensors), tensors


@pytest.mark.parametrize("name", HELD_BY_VLLM)
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_one_other_element_on_one_rank_is_seen_in_every_kind_of_layer(files, name, ranks):
    """In bfloat16, to which the server rounds what the files hold in float32."""
    import torch

    by_name, tensors = files
    for rank in range(ranks):
        held = laid_out(tensors, name, rank, ranks).bfloat16()
        assert phase1_weights.equals_files(name, held, by_name, rank, ranks) is True
        for at in (0, -1):
            other = held.clone()
            other.view(-1)[at] = torch.nextafter(other.view(-1)[at], torch.tensor(9.0).bfloat16())
            assert phase1_weights.equals_files(name, other, by_name, rank, ranks) is False


def test_what_cannot_be_laid_side_by_side_is_said_to_be_unknown(files):
    import torch

    by_name, tensors = files
    qkv = f"{LAYER}.self_attn.qkv_proj.weight"
    replicated = laid_out(tensors, qkv, 0, 4, kv_copies=2)
    assert phase1_weights.equals_files(qkv, replicated, by_name, 0, 4) is None
    assert phase1_weights.equals_files(f"{LAYER}.mlp.experts.w13", torch.zeros(2, 2), by_name, 0, 1) is None
    assert phase1_weights.equals_files(HELD_BY_VLLM[0], torch.zeros(8, 8), by_name, 0, 1) is None
    tied = tensors["model.embed_tokens.weight"].clone()
    assert phase1_weights.equals_files("lm_head.weight", tied, by_name, 0, 1) is True


@pytest.mark.parametrize("change", ["dtype", "max_model_len", "more_args", "tensor_parallel_size", "python"])
def test_every_argument_must_be_equal(tmp_path, change):
    config = ServerConfig(tmp_path, tmp_path)
    other = replace(config, **{change: ("--x",) if change == "more_args" else "float16"})
    assert description(config) != description(other)
    assert description(config) == description(replace(config, model_path=tmp_path, log_dir=Path("elsewhere")))


def test_a_pass_waits_for_the_keepers_that_its_state_names_and_they_end_with_it(tmp_path):
    """A keeper as vllm_keeper.py is, over a process that would run for an hour."""
    keeper = Path(kept_servers.__file__).with_name("vllm_keeper.py")
    with held_servers(tmp_path) as environment:
        pipe = int(environment[HELD].partition(" ")[0])
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(keeper), "5", "sleep", "3600"], stdin=pipe, start_new_session=True
        )
        time.sleep(0.5)
        born = birth(process.pid)
        assert born and process.poll() is None
        server = {"url": "", "log": "", "gpus": "", "pid": process.pid, "born": born, "ready_after": 0.0}
        KeptServers(how={}, model="", servers=[server], answers=[]).write(tmp_path / STATE)
    assert birth(process.pid) is None, "the pass did not wait"
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    assert process.returncode is not None


def test_a_process_of_the_same_number_is_not_taken_for_a_keeper():
    born = birth(os.getpid())
    assert kept_servers.Keeper(os.getpid(), born).poll() is None
    stranger = kept_servers.Keeper(os.getpid(), born - 1)
    assert stranger.poll() is not None
    stranger.terminate()  # reaches nobody: this test goes on


@pytest.mark.slow
def test_a_signal_ends_an_evaluation_whose_servers_are_still_starting(base_model, tmp_path):
    """They may take 15 minutes to fail; here they never answer."""
    python = stub_interpreter(tmp_path, answers=False)
    arguments = [str(python), "--datasets", "mbpp_reg", "--limit", "1", "--num_servers", "1"]
    with held_servers(tmp_path / "servers") as environment, open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            command(base_model, tmp_path / "out", "--vllm_python", *arguments),
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
            pass_fds=inherited(environment),
        )
        deadline = time.monotonic() + 60
        while b"starting 1 servers" not in (tmp_path / "log").read_bytes() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.terminate()
        said = (tmp_path / "log").read_text
        assert process.wait(40) == 1 and "stopped by SIGTERM" in said() and "Traceback" not in said(), said()
        state = KeptServers.read(tmp_path / "servers" / STATE)
        assert all(kept_servers.Keeper(s.pid, s.born).poll() is not None for s in state.servers), "a server is left"
