"""The vLLM client and the evaluator around it, with stub servers that fail as real ones do, and the real judge."""

import asyncio
import contextlib
import itertools
import json
import random
import resource
import shutil
import statistics
import subprocess
import time
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from phase1.contract.problems import load_problems
from phase1.evaluate.display import Display
from phase1.files import BadInput, read_json
from phase1.generate import vllm_client
from phase1.generate.make_requests import Wanted, make_requests
from phase1.generate.protocol import Setup
from phase1.generate.sampling import Sampling
from phase1.generate.vllm_client import Client, ClientSettings, Endpoint, allowed_connections
from phase1.generate.vllm_servers import Server
from phase1.machine import free_ports
from phase1.model.tokenizer import load_chat_tokenizer
from tests.evaluate.running import MANIFESTS, Done, eval_command, rows, run_eval
from tests.generate.conftest import LIMIT, SETS
from tests.generate.stub_servers import StubServer


def flags(model: Path, output_dir: Path, urls: list[str], *args: object) -> list[object]:
    named = [word for url in urls for word in ("--vllm_url", url)]
    return ["--model_path", model, "--output_dir", output_dir, "--datasets", *SETS, "--limit", LIMIT, *named, *args]


def evaluate(model: Path, output_dir: Path, urls: list[str], *args: object) -> Done:
    return run_eval(*flags(model, output_dir, urls, *args))


def start(model: Path, output_dir: Path, urls: list[str], *args: object) -> subprocess.Popen[str]:
    """An evaluation in a process of its own, both outputs together."""
    command = eval_command(*flags(model, output_dir, urls, *args))
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def verdicts(output_dir: Path) -> dict:
    """Of metrics.json what does not depend on the clock."""
    kept = (
        "total_problems",
        "accepted_at_1",
        "pass_ratio_mean",
        "total_gen_tokens",
        "error_counts",
        "truncation_count",
    )
    return {d: {k: m[k] for k in kept} for d, m in read_json(output_dir / "metrics.json").items()}


@pytest.fixture(scope="module")
def undisturbed(base_model, answers, tmp_path_factory) -> Path:
    """The problems through two stubs."""
    directory = tmp_path_factory.mktemp("undisturbed")
    stubs = [StubServer(directory, base_model, "--answers", answers) for _ in range(2)]
    done = evaluate(base_model, directory / "out", [s.url for s in stubs])
    counts = [len(s.asked()) for s in stubs]
    for s in stubs:
        s.kill()
    assert done.returncode == 0, done.said
    assert sum(counts) == len(rows(directory / "out", "results")) and min(counts) > 0
    return directory / "out"


@pytest.mark.slow
def test_an_evaluation_over_two_servers_says_what_it_verified(undisturbed):
    record = read_json(undisturbed / "run.json")
    assert record["status"] == "complete" and record["sampling"]["backend"] == "vllm"
    servers = list(record["generation"]["servers"].values())
    for server in servers:
        assert (server["vllm"], server["on"], server["gone"]) == ("stub", None, None)
        assert server["defaults_verified"] and server["penalty_seen"]


@pytest.mark.slow
def test_an_evaluation_over_two_servers_says_what_each_answered(undisturbed):
    servers = list(read_json(undisturbed / "run.json")["generation"]["servers"].values())
    answers = rows(undisturbed, "completions")
    assert sum(s["answers"] for s in servers) == len(answers)
    assert sum(s["tokens"] for s in servers) == sum(a["gen_tokens"] for a in answers)
    assert all(0 < s["last_answer"] <= read_json(undisturbed / "run.json")["seconds"]["generation"] for s in servers)


@pytest.mark.slow
def test_an_evaluation_over_stubs_is_complete_and_names_their_version(undisturbed):
    record = read_json(undisturbed / "run.json")
    assert record["stamp"]["versions"]["vllm"] == "stub"
    assert 0 < read_json(undisturbed / "metrics.json")["codecontests_valid"]["accepted_at_1"] < 1


@pytest.mark.slow
def test_killed_at_random_moments_nothing_finished_is_asked_or_judged_again(
    base_model, answers, prompts, undisturbed, stub, tmp_path
):
    server = stub("--answers", answers, "--seconds", 0.6, "--places", 2)
    out, moments = tmp_path / "out", random.Random(20)
    had = []  # (time of the kill, prompts whose completion was on disk then)
    for _ in range(3):
        before = len(rows(out, "completions"))
        process = start(base_model, out, [server.url])
        while process.poll() is None and len(rows(out, "completions")) == before:
            time.sleep(0.02)  # its start, in which no moment of interest lies
        time.sleep(moments.uniform(0, 1.2))
        assert process.poll() is None, "it was done before the kill, so this test shows nothing"
        process.kill()
        process.communicate()
        had.append((time.time(), {prompts[r["dataset"], r["problem_id"]] for r in rows(out, "completions")}))
    assert evaluate(base_model, out, [server.url]).returncode == 0
    for when, finished in had:
        assert not [a for a in server.asked() if a["time"] > when and a["key"] in finished]
    for kind in ("completions", "results"):
        assert Counter((r["dataset"], r["problem_id"]) for r in rows(out, kind)) == Counter(prompts.keys()), kind
    assert verdicts(out) == verdicts(undisturbed)


def wait_for_answers(out: Path, at_least: int, process: subprocess.Popen[str]) -> None:
    while len(rows(out, "completions")) < at_least:
        assert process.poll() is None, "it ended before anything could be killed"
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_amid_several_answers_a_problem_it_ends_with_the_seeds_counts_and_pass_at_k_of_an_undisturbed_run(
    base_model, prompts, stub, tmp_path
):
    """pass@k beside its definition: the share of all k of a problem's answers of which one is accepted."""
    texts = {}
    for problem in load_problems(MANIFESTS, "mbpp_reg", 6):
        right, wrong = (f"<code>\n{code}\n</code>" for code in (problem.canonical_solution, "print('wrong')"))
        texts[prompts["mbpp_reg", problem.problem_id]] = [right, wrong, "no program"]  # the seed picks one
    (tmp_path / "by_seed.json").write_text(json.dumps(texts))
    server = stub("--answers", tmp_path / "by_seed.json", "--seconds", 0.2, "--places", 2)
    calm, killed = (
        ["--model_path", base_model, "--output_dir", tmp_path / name, "--datasets", "mbpp_reg", "--limit", 6]
        + ["--vllm_url", server.url, "--n_samples", 4, "--temperature", 0.8, "--seed", 7]
        for name in ("calm", "killed")
    )
    assert run_eval(*calm).returncode == 0
    asked_calm = len(server.asked())
    for wanted in (3, 9):
        process = subprocess.Popen(eval_command(*killed), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_for_answers(tmp_path / "killed", wanted, process)
        process.kill()
        process.communicate()
    assert run_eval(*killed).returncode == 0

    def judged(name: str) -> dict[tuple[str, int], tuple]:
        found = rows(tmp_path / name, "results")
        answers = {(r["problem_id"], r["sample"]): (r["completion"], r["accepted"], r["error_type"]) for r in found}
        assert len(found) == len(answers) == 24
        return answers

    assert judged("calm") == judged("killed")
    seeds = [(asked["key"], asked["parameters"]["seed"]) for asked in server.asked()]
    assert set(seeds[:asked_calm]) == set(seeds[asked_calm:]) and len(set(seeds)) == 24
    metrics = [read_json(tmp_path / name / "metrics.json")["mbpp_reg"] for name in ("calm", "killed")]
    assert metrics[0]["error_counts"] == metrics[1]["error_counts"]
    by_problem = [[judged("killed")[p, n][1] for n in range(4)] for p in {p for p, _ in judged("killed")}]
    for k, share in metrics[1]["pass_at_k"].items():
        drawn = [any(chosen) for answers in by_problem for chosen in itertools.combinations(answers, int(k))]
        assert share == metrics[0]["pass_at_k"][k] == pytest.approx(statistics.fmean(drawn))
    assert 0 < metrics[1]["pass_at_k"]["1"] < 1


@pytest.mark.slow
def test_one_of_two_servers_killed_the_other_takes_its_requests(base_model, answers, undisturbed, stub, tmp_path):
    stubs = [stub("--answers", answers, "--seconds", 0.3, "--places", 4) for _ in range(2)]
    process = start(base_model, tmp_path / "out", [s.url for s in stubs])
    wait_for_answers(tmp_path / "out", 8, process)
    stubs[0].kill()
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert f"{stubs[0].url} is taken out" in said
    assert verdicts(tmp_path / "out") == verdicts(undisturbed)


@pytest.mark.slow
def test_both_servers_killed_it_judges_what_it_has_exits_1_and_goes_on_later(
    base_model, answers, undisturbed, stub, tmp_path
):
    stubs = [stub("--answers", answers, "--seconds", 0.3, "--places", 4) for _ in range(2)]
    out = tmp_path / "out"
    process = start(base_model, out, [s.url for s in stubs])
    wait_for_answers(out, 8, process)
    for s in stubs:
        s.kill()
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 1, said
    assert "no vLLM server is left" in said and "incomplete" in said
    assert len(rows(out, "results")) == len(rows(out, "completions")) >= 8
    assert read_json(out / "run.json")["status"] == "incomplete"
    again = stub("--answers", answers)
    assert evaluate(base_model, out, [again.url]).returncode == 0
    assert verdicts(out) == verdicts(undisturbed)
    assert not {a["key"] for a in again.asked()} & {a["key"] for s in stubs for a in s.answered()}


@pytest.mark.slow
def test_an_engine_that_answers_health_but_produces_nothing_is_taken_out(
    base_model, answers, undisturbed, stub, tmp_path
):
    hung, sound = stub("--answers", answers, "--hang_after", 3), stub("--answers", answers)
    done = evaluate(base_model, tmp_path / "out", [hung.url, sound.url], "--stall_timeout", 2)
    assert done.returncode == 0, done.said
    assert f"{hung.url} is taken out: it answers /health but has produced nothing for 2 s" in done.stdout
    assert verdicts(tmp_path / "out") == verdicts(undisturbed)


@pytest.mark.slow
def test_the_only_server_hangs_what_it_answered_is_judged_and_the_rest_is_for_later(
    base_model, answers, stub, tmp_path
):
    out = tmp_path / "out"
    done = evaluate(base_model, out, [stub("--answers", answers, "--hang_after", 5).url], "--stall_timeout", 2)
    assert done.returncode == 1, done.said
    for words in ("no vLLM server is left", "has produced nothing for 2 s", "no other is left"):
        assert words in done.stdout
    assert len(rows(out, "results")) == len(rows(out, "completions")) == 5


@pytest.mark.slow
def test_a_server_that_hangs_before_its_first_answer_is_one_line_after_the_stall_timeout(base_model, stub, tmp_path):
    done = evaluate(base_model, tmp_path / "out", [stub("--hang_after", 0).url], "--stall_timeout", 2)
    assert done.returncode == 2 and len(done.errors) == 1, done.said
    assert "three short questions are not answered in 2 s" in done.stderr


@pytest.mark.slow
def test_an_answer_that_takes_too_long_is_tried_again_and_then_given_up(base_model, stub, tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_client, "BACK_OFF", 0.01)
    server = stub("--seconds", 60)
    done = evaluate(base_model, tmp_path / "out", [server.url], "--limit", 1, "--request_timeout", 1)
    assert done.returncode == 1, done.said
    assert {r["error"] for r in rows(tmp_path / "out", "completions")} == {
        f"tried 5 times, last at {server.url}: no answer in 1 s"
    }
    assert set(Counter(a["key"] for a in server.asked()).values()) == {5}


@contextlib.asynccontextmanager
async def client_of(servers: list[Server], model: Path, said: list[str]):
    """A client of servers of our own, with what it says."""
    tokenizer = load_chat_tokenizer(model)
    setup = Setup(model.resolve(), tokenizer, Sampling(), stop_ids=[], context_limit=6144, session=0)
    display = Display(1, 0, 0)
    display.say = said.append
    async with aiohttp.ClientSession() as http:
        yield Client(http, [Endpoint(s.url, s) for s in servers], ClientSettings(), setup, display)


@pytest.mark.slow
def test_one_of_our_own_servers_that_dies_before_its_first_answer_is_taken_out(base_model, stub, tmp_path):
    """Between /health and the first question lie seconds, in which a server may run out of memory."""
    sound, ended = stub(), subprocess.Popen(["false"])
    ended.wait()
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    dead, alive = (
        Server(url, tmp_path / "vllm.log", "the CPU", process)
        for url, process in ((nobody, ended), (sound.url, sound.process))
    )
    problem = load_problems(MANIFESTS, "mbpp_reg", 1)[0]
    [request] = make_requests([Wanted(problem, 0)], load_chat_tokenizer(base_model), 6144, Sampling())
    said: list[str] = []

    async def check(*servers: Server) -> tuple[list[str], list[bool]]:
        async with client_of(list(servers), base_model, said) as client:
            await client.check(request)
            return list(client.records()), [e.gone is not None for e in client.endpoints]

    assert asyncio.run(check(dead, alive)) == ([sound.url], [True, False])
    assert "is taken out" in said[0]
    with pytest.raises(BadInput, match=r"no vLLM server is left: .*vllm\.log"):
        asyncio.run(check(dead))


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
    ids=["raised", "shared", "halved", "enough", "soft", "none"],
)
def test_more_connections_than_open_files_are_allowed_are_not_opened(monkeypatch, limits, open_to, limit):
    now = [limits]
    monkeypatch.setattr(resource, "getrlimit", lambda _: now[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: now.append(new))
    assert allowed_connections(8 * 258) == open_to and now[-1] == (limit, limits[1])


@pytest.mark.slow
def test_a_shell_that_allows_few_open_files_makes_no_server_look_dead(base_model, answers, undisturbed, stub, tmp_path):
    server = stub("--answers", answers, "--seconds", 1)
    words = eval_command(*flags(base_model, tmp_path / "out", [server.url], "--n_samples", 8, "--temperature", 0.8))
    limited = ["bash", "-c", 'ulimit -Sn 120; exec "$@"', "bash", *words]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "taken out" not in done.stdout, done.stdout + done.stderr
    assert verdicts(tmp_path / "out") == verdicts(undisturbed)


@pytest.mark.slow
def test_errors_500_are_tried_again(base_model, answers, undisturbed, stub, tmp_path):
    server = stub("--answers", answers, "--fail_first", 6)
    done = evaluate(base_model, tmp_path / "out", [server.url], "--max_concurrent", 4)
    assert done.returncode == 0, done.said
    assert verdicts(tmp_path / "out") == verdicts(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "/elsewhere/global_step_500/huggingface"], "serves /elsewhere/global_step_500/huggingface, not "),
        (["--max_model_len", "100"], "serves a context of 100 tokens, the evaluation needs 6144"),
        (["--own_penalty", "1.1"], "start it with --generation-config vllm"),
    ],
    ids=["model", "context", "penalty"],
)
def test_a_server_that_would_change_the_protocol_is_refused(base_model, stub, tmp_path, args, message):
    server = stub(*args)
    done = evaluate(base_model, tmp_path / "out", [server.url], "--limit", 1)
    assert done.returncode == 2 and message in done.stderr and len(done.errors) == 1, done.said
    assert not server.asked() and read_json(tmp_path / "out" / "run.json")["status"] == "interrupted"


@pytest.mark.slow
def test_a_model_behind_another_name_is_asked_for_by_that_name_only(base_model, stub, tmp_path):
    server = stub("--model", "the-best")
    done = evaluate(base_model, tmp_path / "out", [server.url], "--limit", 1)
    assert done.returncode == 2 and "serves the-best, not " in done.stderr, done.said
    done = evaluate(base_model, tmp_path / "out", [server.url], "--limit", 1, "--served_model_name", "another")
    assert done.returncode == 2 and "serves the-best, not another" in done.stderr, done.said
    done = evaluate(base_model, tmp_path / "out", [server.url], "--limit", 1, "--served_model_name", "the-best")
    assert done.returncode == 0, done.said
    assert {a["parameters"]["model"] for a in server.asked()} == {"the-best"}


@pytest.mark.slow
def test_a_proxy_that_drops_the_penalty_is_noticed(base_model, stub, tmp_path):
    done = evaluate(base_model, tmp_path / "out", [stub("--ignore_penalty").url], "--limit", 1)
    assert done.returncode == 0 and "proves nothing about penalties" in done.stdout, done.said


@pytest.mark.slow
def test_a_url_where_nobody_answers_is_one_line(base_model, tmp_path):
    done = evaluate(base_model, tmp_path / "out", [f"http://127.0.0.1:{free_ports(1)[0]}"], "--limit", 1)
    assert done.returncode == 2 and len(done.errors) == 1, done.said
    assert "no vLLM server that answers there" in done.stderr


@pytest.mark.slow
def test_greedy_requests_say_every_parameter_and_no_seed(base_model, stub, tmp_path):
    """EVAL@1, contract 5."""
    server = stub()
    assert evaluate(base_model, tmp_path / "out", [server.url], "--limit", 1).returncode == 0
    eval_at_1 = {"temperature": 0, "top_p": 1, "top_k": -1, "repetition_penalty": 1, "max_tokens": 2048}
    eval_at_1 |= {"min_p": 0, "presence_penalty": 0, "frequency_penalty": 0}
    for asked in server.asked():
        assert {name: asked["parameters"][name] for name in eval_at_1} == eval_at_1
        assert "seed" not in asked["parameters"]


@pytest.mark.slow
def test_sampled_answers_give_pass_at_k_beside_accepted_at_1(base_model, answers, stub, tmp_path):
    server, out = stub("--answers", answers), tmp_path / "out"
    args = ["--n_samples", 3, "--temperature", 0.8, "--limit", 4]
    more = ["--top_p", 0.9, "--top_k", 7, "--repetition_penalty", 1.2, "--max_new_tokens", 33]
    done = evaluate(base_model, out, [server.url], *args, *more)
    assert done.returncode == 0, done.said
    assert Counter(r["sample"] for r in rows(out, "results")) == {0: 8, 1: 8, 2: 8}
    metrics = read_json(out / "metrics.json")["codecontests_valid"]
    assert metrics["total_problems"] == 4 and metrics["pass_at_k"] == {"1": 0.5, "2": 0.5, "3": 0.5}
    flags = {"temperature": 0.8, "top_p": 0.9, "top_k": 7, "repetition_penalty": 1.2, "max_tokens": 33}
    for asked in server.asked():
        assert {name: asked["parameters"][name] for name in flags} == flags
    again = evaluate(base_model, out, ["http://127.0.0.1:1"], *args, *more)
    assert again.returncode == 0 and "complete already" in again.stdout


@pytest.mark.slow
def test_the_seed_of_each_answer_follows_from_the_flag(base_model, stub, tmp_path):
    server, seeds = stub(), []
    for number, seed in enumerate((5, 5, 6)):
        asked_before = len(server.asked())
        args = ["--n_samples", 2, "--temperature", 1, "--limit", 2, "--seed", seed]
        assert evaluate(base_model, tmp_path / f"out_{number}", [server.url], *args).returncode == 0
        seeds.append({asked["parameters"]["seed"] for asked in server.asked()[asked_before:]})
    assert seeds[0] == seeds[1] and not seeds[0] & seeds[2] and len(seeds[0]) == 8


@pytest.mark.slow
def test_rejudge_judges_the_stored_answers_under_another_rule_without_a_server(undisturbed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    done = run_eval("--output_dir", out, "--rejudge", "--compare", "exact")
    assert done.returncode == 0, done.said
    record = read_json(out / "run.json")
    assert record["judge"]["compare"] == "exact" and record["status"] == "complete"
    assert "--rejudge" in record["stamp"]["rejudged_by"]["command"]
    aside, before = (d / "mbpp_reg.jsonl" for d in (out / "results_before_rejudge_0", undisturbed / "results"))
    assert aside.read_bytes() == before.read_bytes()
    assert rows(out, "completions") == rows(undisturbed, "completions")
    assert verdicts(out).keys() == verdicts(undisturbed).keys()


@pytest.mark.slow
def test_recompute_derives_the_same_files_again(undisturbed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    (out / "metrics.json").unlink()
    (out / "summary.json").unlink()
    shutil.rmtree(out / "qa_logs")
    done = run_eval("--recompute", "--output_dir", out)
    assert done.returncode == 0, done.said
    for name in ("metrics.json", "summary.json", "qa_logs/mbpp_reg_qa.jsonl", "results/mbpp_reg.jsonl"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert read_json(out / "run.json")["recomputed"]["arguments"]["recompute"] is True
