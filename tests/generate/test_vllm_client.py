"""The vLLM client and the evaluator around it, against stub servers that fail as real ones do; the judge is the real
one."""

import asyncio
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from phase1.contract.problems import load_problems
from phase1.evaluate.display import Display
from phase1.files import BadInput, read_json, read_jsonl
from phase1.generate.generator import Asked
from phase1.generate.requests import Answer, Sampling, make_requests, prompt_ids
from phase1.generate.vllm_client import Client, Endpoint, VllmSettings, connections
from phase1.generate.vllm_servers import Server, ServerConfig, ask, environment, gpu_groups
from phase1.machine import free_ports
from phase1.model.tokenizer import load_tokenizer
from tests.conftest import ROOT, SAMPLES
from tests.generate.stub_vllm import key

SETS = ["codecontests_valid", "mbpp_reg"]


class StubServer:
    """A stub in a process of its own."""

    def __init__(self, directory: Path, model: Path, *args):
        [port] = free_ports(1)
        self.url, self.log = f"http://127.0.0.1:{port}", directory / f"stub_{port}.jsonl"
        self.command = [
            sys.executable,
            "-m",
            "tests.generate.stub_vllm",
            "--model",
            str(model),
            "--port",
            str(port),
            "--log",
            str(self.log),
            *map(str, args),
        ]
        self.process = subprocess.Popen(self.command, cwd=ROOT)
        for _ in range(400):
            with contextlib.suppress(OSError):
                ask(self.url + "/health", timeout=1)
                return
            time.sleep(0.05)
        raise AssertionError("the stub does not start")

    def asked(self) -> list[dict]:
        return [row for _, row in read_jsonl(self.log) if row["event"] == "asked"] if self.log.exists() else []

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def stub(base_model, tmp_path):
    """Start stubs that are killed at the test's end."""
    started = []

    def start(*args) -> StubServer:
        started.append(StubServer(tmp_path, base_model, *args))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="module")
def answers(base_model, tmp_path_factory) -> Path:
    """Right answers to half of the problems, wrong ones to the rest, by prompt."""
    tokenizer, texts = load_tokenizer(base_model), {}
    for dataset in SETS:
        for n, p in enumerate(load_problems(SAMPLES / "manifests", dataset)):
            code = p.canonical_solution if n % 2 and p.canonical_solution else f"print('wrong {n}')"
            texts[key(prompt_ids(tokenizer, p))] = f"<code>\n{code}\n</code>"
    path = tmp_path_factory.mktemp("answers") / "answers.json"
    path.write_text(json.dumps(texts))
    return path


def command(model: Path, output_dir: Path, urls: list[str], *args) -> list[str]:
    named = [word for url in urls for word in ("--vllm_url", url)]
    return [
        sys.executable,
        str(ROOT / "phase1_eval.py"),
        "--model_path",
        str(model),
        "--output_dir",
        str(output_dir),
        "--manifest_dir",
        str(SAMPLES / "manifests"),
        "--datasets",
        *SETS,
        *named,
        *map(str, args),
    ]


def run(*args) -> subprocess.CompletedProcess:
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=300)


def rows(output_dir: Path, kind: str) -> list[dict]:
    """The whole lines of a growing folder of records."""
    return [
        json.loads(line)
        for p in sorted((output_dir / kind).glob("*.jsonl"))
        for line in p.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
    ]


def verdicts(output_dir: Path) -> dict:
    """Of metrics.json what does not depend on the clock."""
    timeless = (
        "total_problems",
        "accepted_at_1",
        "pass_ratio_mean",
        "total_gen_tokens",
        "error_counts",
        "truncation_count",
    )
    return {d: {k: m[k] for k in timeless} for d, m in read_json(output_dir / "metrics.json").items()}


@pytest.fixture(scope="module")
def undisturbed(base_model, answers, tmp_path_factory) -> Path:
    """All problems of two sets through two stubs."""
    directory = tmp_path_factory.mktemp("undisturbed")
    stubs = [StubServer(directory, base_model, "--answers", answers) for _ in range(2)]
    done = run(base_model, directory / "out", [s.url for s in stubs])
    counts = [len(s.asked()) for s in stubs]
    for s in stubs:
        s.kill()
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(counts) == len(rows(directory / "out", "results")) and min(counts) > 0.3 * sum(counts)
    return directory / "out"


@pytest.mark.slow
def test_an_evaluation_over_two_servers_says_what_it_verified(undisturbed):
    record = read_json(undisturbed / "run.json")
    assert record["status"] == "complete" and record["sampling"]["backend"] == "vllm"
    assert [s["defaults_verified"] and s["penalty_seen"] for s in record["generation"]["servers"].values()] == [
        True,
        True,
    ]
    assert record["stamp"]["versions"]["vllm"] == "stub"
    assert 0 < read_json(undisturbed / "metrics.json")["codecontests_valid"]["accepted_at_1"] < 1


@pytest.mark.slow
def test_killed_at_ten_random_moments_nothing_finished_is_asked_or_judged_again(
    base_model, answers, undisturbed, stub, tmp_path
):
    server = stub("--answers", answers, "--seconds", 0.5, "--places", 2)
    out, moments = tmp_path / "out", random.Random(20)
    had, killed = [], 0  # (time of the kill, prompts whose completion was on disk then)
    tokenizer = load_tokenizer(base_model)
    prompts = {
        (p.dataset, p.problem_id): key(prompt_ids(tokenizer, p))
        for d in SETS
        for p in load_problems(SAMPLES / "manifests", d)
    }
    for _ in range(10):
        before = len(rows(out, "completions"))
        process = subprocess.Popen(
            command(base_model, out, [server.url]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and len(rows(out, "completions")) == before:
            time.sleep(0.02)  # its start, which no moment of interest lies in
        time.sleep(moments.uniform(0, 1.2))
        killed += process.poll() is None
        process.kill()
        process.wait()
        had.append((time.time(), {prompts[r["dataset"], r["problem_id"]] for r in rows(out, "completions")}))
    assert killed == 10 and len(had[-1][1]) < len(prompts), (
        "it was done before the last kill, so this test shows nothing"
    )
    assert run(base_model, out, [server.url]).returncode == 0
    for when, finished in had:
        assert not [a for a in server.asked() if a["time"] > when and a["key"] in finished]
    for kind in ("completions", "results"):
        assert Counter((r["dataset"], r["problem_id"]) for r in rows(out, kind)) == Counter(prompts.keys()), kind
    assert verdicts(out) == verdicts(undisturbed)


def answering(out: Path, at_least: int, process: subprocess.Popen) -> None:
    while len(rows(out, "completions")) < at_least:
        assert process.poll() is None, "it ended before anything could be killed"
        time.sleep(0.02)


@pytest.mark.slow
def test_one_of_two_servers_killed_the_other_takes_its_requests(base_model, answers, undisturbed, stub, tmp_path):
    stubs = [stub("--answers", answers, "--seconds", 0.3, "--places", 4) for _ in range(2)]
    process = subprocess.Popen(
        command(base_model, tmp_path / "out", [s.url for s in stubs]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    answering(tmp_path / "out", 8, process)
    stubs[0].kill()
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    assert f"{stubs[0].url} is taken out" in said
    assert verdicts(tmp_path / "out") == verdicts(undisturbed)


@pytest.mark.slow
def test_both_servers_killed_it_judges_what_it_has_exits_1_and_goes_on_later(
    base_model, answers, undisturbed, stub, tmp_path
):
    stubs = [stub("--answers", answers, "--seconds", 0.3, "--places", 4) for _ in range(2)]
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(base_model, out, [s.url for s in stubs]), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    answering(out, 8, process)
    for s in stubs:
        s.kill()
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 1, said
    assert "no vLLM server is left" in said and "incomplete" in said
    assert len(rows(out, "results")) == len(rows(out, "completions")) >= 8
    assert read_json(out / "run.json")["status"] == "incomplete"
    again = stub("--answers", answers)
    assert run(base_model, out, [again.url]).returncode == 0
    assert verdicts(out) == verdicts(undisturbed)
    assert not {a["key"] for a in again.asked()} & {
        a["key"] for s in stubs for _, a in read_jsonl(s.log) if a["event"] == "answered"
    }


@pytest.mark.slow
def test_an_engine_that_answers_health_but_produces_nothing_is_taken_out(
    base_model, answers, undisturbed, stub, tmp_path
):
    hung, sound = stub("--answers", answers, "--hang_after", 3), stub("--answers", answers)
    done = run(base_model, tmp_path / "out", [hung.url, sound.url], "--stall_timeout", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{hung.url} is taken out: it answers /health but has produced nothing for 2 s" in done.stdout
    assert verdicts(tmp_path / "out") == verdicts(undisturbed)


@pytest.mark.slow
def test_the_only_server_hangs_what_it_answered_is_judged_and_the_rest_is_for_later(
    base_model, answers, stub, tmp_path
):
    done = run(base_model, tmp_path / "out", [stub("--answers", answers, "--hang_after", 5).url], "--stall_timeout", 2)
    assert done.returncode == 1, done.stdout + done.stderr
    assert (
        "no vLLM server is left" in done.stdout
        and "has produced nothing for 2 s" in done.stdout
        and "no other is left" in done.stdout
    )
    assert len(rows(tmp_path / "out", "results")) == len(rows(tmp_path / "out", "completions")) == 5


@pytest.mark.slow
def test_a_server_that_hangs_before_its_first_answer_is_one_line_after_the_stall_timeout(base_model, stub, tmp_path):
    done = run(base_model, tmp_path / "out", [stub("--hang_after", 0).url], "--stall_timeout", 2)
    assert (
        done.returncode == 2
        and "three short questions are not answered in 2 s" in done.stderr
        and done.stderr.count("\n") == 1
    )


def test_one_of_our_own_servers_that_dies_before_its_first_answer_is_taken_out(base_model, stub, tmp_path):
    """Between /health and the first question lie seconds, in which a server may run out of memory."""
    sound, tokenizer, said, info = stub(), load_tokenizer(base_model), [], {}
    display = Display(1, 0, 0)
    display.say = said.append
    [problem] = load_problems(SAMPLES / "manifests", "mbpp_reg", 1)
    [request] = make_requests([Answer(problem, 0)], tokenizer, 6144, Sampling())
    asked = Asked(base_model.resolve(), tokenizer, Sampling(), 0, display)
    ended = subprocess.Popen(["false"])
    ended.wait()
    owned = [
        Server(url, tmp_path / "vllm.log", "the CPU", process)
        for url, process in ((f"http://127.0.0.1:{free_ports(1)[0]}", ended), (sound.url, sound.process))
    ]

    async def check(servers: list[Server]) -> list[str | None]:
        async with aiohttp.ClientSession() as http:
            client = Client(http, [Endpoint(s.url, s) for s in servers], VllmSettings(), asked)
            info.update(await client.check(request))
            return [e.gone for e in client.endpoints]

    gone, alive = asyncio.run(check(owned))
    assert gone and alive is None and list(info) == [sound.url] and "is taken out" in said[0]
    with pytest.raises(BadInput, match=r"no vLLM server is left: .*vllm\.log"):
        asyncio.run(check(owned[:1]))


@pytest.mark.parametrize(
    ("limits", "open_to", "limit"),
    [
        ((1024, 20000), 2064, 3088),  # eight servers: raised as far as they need
        ((1024, 2048), 1024, 2048),  # as far as it goes, the judge keeps its share
        ((1024, 1024), 512, 1024),
        ((8192, 8192), 2064, 8192),
        ((1024, resource.RLIM_INFINITY), 2064, 3088),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 2064, resource.RLIM_INFINITY),
    ],
)
def test_more_connections_than_open_files_are_allowed_are_not_opened(monkeypatch, limits, open_to, limit):
    now = [limits]
    monkeypatch.setattr(resource, "getrlimit", lambda _: now[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: now.append(new))
    assert connections(8 * 258) == open_to and now[-1] == (limit, limits[1])


@pytest.mark.slow
def test_a_shell_that_allows_few_open_files_makes_no_server_look_dead(base_model, answers, undisturbed, stub, tmp_path):
    words = command(
        base_model,
        tmp_path / "out",
        [stub("--answers", answers, "--seconds", 1).url],
        "--n_samples",
        3,
        "--temperature",
        0.8,
    )
    done = subprocess.run(
        ["bash", "-c", 'ulimit -Sn 120; exec "$@"', "bash", *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and "taken out" not in done.stdout, done.stdout + done.stderr
    assert verdicts(tmp_path / "out") == verdicts(undisturbed)


def test_a_proxy_of_the_cluster_is_not_asked_for_our_own_servers(stub, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask(stub().url + "/version") == {"version": "stub"}


@pytest.mark.slow
def test_errors_500_are_tried_again(base_model, answers, undisturbed, stub, tmp_path):
    done = run(base_model, tmp_path / "out", [stub("--answers", answers, "--fail_first", 6).url], "--max_concurrent", 4)
    assert done.returncode == 0, done.stdout + done.stderr
    assert verdicts(tmp_path / "out") == verdicts(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "/elsewhere/global_step_500/huggingface"], "serves /elsewhere/global_step_500/huggingface, not "),
        (["--max_model_len", "100"], "serves a context of 100 tokens, the evaluation needs 6144"),
        (["--own_penalty", "1.1"], "start it with --generation-config vllm"),
    ],
)
def test_a_server_that_would_change_the_protocol_is_refused(base_model, stub, tmp_path, args, message):
    server = stub(*args)
    done = run(base_model, tmp_path / "out", [server.url], "--limit", 1)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stdout + done.stderr
    assert not server.asked() and read_json(tmp_path / "out" / "run.json")["status"] == "interrupted"


@pytest.mark.slow
def test_a_proxy_that_drops_the_penalty_is_noticed(base_model, stub, tmp_path):
    done = run(base_model, tmp_path / "out", [stub("--ignore_penalty").url], "--limit", 1)
    assert done.returncode == 0 and "proves nothing about penalties" in done.stdout


@pytest.mark.slow
def test_a_url_where_nobody_answers_is_one_line(base_model, tmp_path):
    done = run(base_model, tmp_path / "out", [f"http://127.0.0.1:{free_ports(1)[0]}"], "--limit", 1)
    assert done.returncode == 2 and "no vLLM server that answers there" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_sampled_answers_give_pass_at_k_beside_accepted_at_1(base_model, answers, stub, tmp_path):
    args = ["--n_samples", 3, "--temperature", 0.8, "--limit", 4]
    done = run(base_model, tmp_path / "out", [stub("--answers", answers).url], *args)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Counter(r["sample"] for r in rows(tmp_path / "out", "results")) == {0: 8, 1: 8, 2: 8}
    metrics = read_json(tmp_path / "out" / "metrics.json")["codecontests_valid"]
    assert metrics["total_problems"] == 4 and metrics["pass_at_k"] == {"1": 0.5, "2": 0.5, "3": 0.5}
    again = run(base_model, tmp_path / "out", ["http://127.0.0.1:1"], *args)
    assert again.returncode == 0 and "complete already" in again.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--n_samples", 2], "greedy answers are all the same"),
        (["--temperature", "-1"], "expected temperature from 0"),
        (["--temperature", "nan"], "expected temperature from 0"),
        (["--top_p", 0], "top_p above 0"),
        (["--top_k", 0], "top_k -1 or from 1"),
        (["--num_servers", -1], "argument --num_servers"),
        (["--stall_timeout", 0], "argument --stall_timeout"),
        (["--vllm_args", "'--enforce-eager"], "--vllm_args '--enforce-eager: No closing quotation"),
    ],
)
def test_flags_that_make_no_sense_are_refused_before_anything_starts(base_model, tmp_path, args, message):
    done = run(base_model, tmp_path / "out", [], "--backend", "vllm", *args)
    assert done.returncode == 2 and message in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_rejudge_judges_the_stored_answers_under_another_rule_without_a_server(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "out")
    again = [
        sys.executable,
        str(ROOT / "phase1_eval.py"),
        "--output_dir",
        str(tmp_path / "out"),
        "--manifest_dir",
        str(SAMPLES / "manifests"),
    ]
    done = subprocess.run([*again, "--rejudge", "--compare", "exact"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    record = read_json(tmp_path / "out" / "run.json")
    assert record["judge"]["compare"] == "exact" and record["status"] == "complete"
    assert (tmp_path / "out" / "results_before_rejudge_0" / "mbpp_reg.jsonl").read_bytes() == (
        undisturbed / "results" / "mbpp_reg.jsonl"
    ).read_bytes()
    assert rows(tmp_path / "out", "completions") == rows(undisturbed, "completions")
    assert verdicts(tmp_path / "out").keys() == verdicts(undisturbed).keys()


@pytest.mark.slow
def test_recompute_derives_the_same_files_again(undisturbed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    for name in ("metrics.json", "summary.json", "qa_logs"):
        shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink()
    done = subprocess.run(
        [sys.executable, str(ROOT / "phase1_eval.py"), "--recompute", "--output_dir", str(out)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for name in ("metrics.json", "summary.json", "qa_logs/mbpp_reg_qa.jsonl", "results/mbpp_reg.jsonl"):
        ours, theirs = (d / name for d in (out, undisturbed))
        assert ours.read_bytes().replace(b'"out"', b"") == theirs.read_bytes().replace(b'"out"', b""), name


@pytest.mark.parametrize(
    ("gpus", "servers", "size", "groups"),
    [
        ([], 0, 1, ["the CPU"]),
        ([], 2, 1, ["the CPU", "the CPU"]),
        (["0", "1", "2"], 0, 1, ["GPU 0", "GPU 1", "GPU 2"]),
        (["4", "6", "7"], 0, 2, ["GPU 4,6"]),
        (["GPU-ab", "GPU-cd"], 1, 1, ["GPU GPU-ab"]),
    ],
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
        environment(ServerConfig(tmp_path, tmp_path, python=p), "the CPU", 2)
        for p in (sys.executable, "/venv/bin/python")
    )
    assert own["OMP_NUM_THREADS"] == "7" and own["PYTHONPATH"] == "/ours" and "PYTHONPATH" not in other


def test_the_keeper_takes_everything_with_it(tmp_path):
    """A server with a child in a session of its own, whose parent is SIGKILLed: nothing of it is left."""
    server = (
        "import subprocess, sys, time; print(subprocess.Popen(['sleep', '300'], start_new_session=True).pid, "
        "flush=True); time.sleep(300)"
    )
    parent = (
        "import subprocess, sys, time\n"
        f"k = subprocess.Popen([sys.executable, {str(ROOT / 'phase1' / 'generate' / 'vllm_keeper.py')!r}, '1', "
        f"sys.executable, '-c', {server!r}], stdin=subprocess.PIPE, start_new_session=True)\n"
        "print(k.pid, flush=True); time.sleep(300)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    pids = [int(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while (left := [p for p in pids if os.path.exists(f"/proc/{p}")]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
