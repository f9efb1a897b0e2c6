"""Whatever a user gets wrong is one line that names the file and the fix, exit code 2, and nothing left behind."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import convert_fsdp_to_hf
import generate_report
import phase1_eval
import prepare_eval_data
import prepare_sft_data
import verify_handoff
from phase1 import NEEDED, NEEDED_BY
from phase1.checkpoints import __main__ as checkpoints
from phase1.files import run_script
from phase1.judge import __main__ as judge
from phase1.report import power
from tests.checkpoints.made import cut, make_checkpoint
from tests.conftest import ROOT, SAMPLES
from tests.data.prepared import record
from tests.report.fake_evaluations import PHASE0, Fake, write_evaluation, write_sampled
from tests.tiny_model import write_tiny_model

FEW = {"codecontests_valid": 6, "humaneval": 6}

STAYS = ("sft_rejects.jsonl", "eval.lock")  # the reasons, which the line names; the lock, which is empty

SCRIPTS: dict[str, tuple[Callable[[], int | None], str]] = {  # what runs, and the words that every row starts with
    "sft": (prepare_sft_data.run, "--workers 1 --no_verl_check --manifest_dir {samples}/manifests --output_dir {out}"),
    "sets": (prepare_eval_data.main, "--output_dir {out}"),
    "eval": (phase1_eval.main, "--manifest_dir {samples}/manifests --backend transformers"),
    "night": (checkpoints.main, "evaluate --settle 0 --manifest_dir {samples}/manifests"),
    "report": (generate_report.main, "--output_dir {out} --resamples 100"),
    "convert": (convert_fsdp_to_hf.main, ""),
    "handoff": (verify_handoff.main, "--output_dir {out} --skip_vllm"),
    "judge": (judge.main, ""),
    "power": (power.main, ""),
}


RIGHT = {  # words of a row beside the wrong ones
    "base": "--phase0_metrics {in}/base/metrics.json",
    "sft": "--phase1_metrics {in}/sft/metrics.json",
    "model": "--model_path {in}/model --output_dir {out}",
    "run": "--checkpoint_dir {in}/run --output_dir {out}",
    "slim": "--slim {in}/model --output_dir {out}",
    "sol": "--raw {raw} --solutions {in}/sol.jsonl",
}


@dataclass(frozen=True)
class Wrong:
    """One wrong input.

    Attributes:
        id: a short word.
        script: of SCRIPTS.
        words: of its command line, after those that every row of the script has.
        says: what its one line must hold: the file, or the flag where there is no file, and the fix.
    """

    id: str
    script: str
    words: str
    says: tuple[str, ...]


def wrong(id: str, script: str, words: str, *says: str) -> Wrong:
    return Wrong(id, script, words, says)


TABLE = [
    # ------------------------------------------------------------------------------------------- prepare_sft_data.py
    wrong("nothing", "sft", "", "give either --input_jsonl"),
    wrong("typo", "sft", "--input_json {in}/bee.jsonl", "did you mean --input_jsonl?"),
    wrong("both", "sft", "--input_jsonl {in}/bee.jsonl --grpo_raw {in}/bee.jsonl", "give either"),
    wrong("missing", "sft", "--input_jsonl {in}/no.jsonl", "{in}/no.jsonl: no such file"),
    wrong("folder", "sft", "--input_jsonl {in}/full", "{in}/full", "give"),
    wrong("empty", "sft", "--input_jsonl {in}/empty.jsonl", "{in}/empty.jsonl: holds no record", "?"),
    wrong("binary", "sft", "--input_jsonl {in}/binary.jsonl", "{in}/binary.jsonl:1: ", "--max_reject_ratio"),
    wrong("list", "sft", "--input_jsonl {in}/records.json", "{in}/records.json:1: ", "jq -c '.[]' {in}/records.json"),
    wrong("csv", "sft", "--input_jsonl {in}/rows.csv", "{in}/rows.csv:1: ", ".jsonl.gz and .parquet are read"),
    wrong("torn_gz", "sft", "--input_jsonl {in}/torn.jsonl.gz", "{in}/torn.jsonl.gz", "copy it again"),
    wrong("torn_parquet", "sft", "--input_jsonl {in}/torn.parquet", "{in}/torn.parquet", "copy it again"),
    wrong("one_row", "sft", "--input_jsonl {in}/one.jsonl", "need two; see the reasons there"),
    wrong("keep", "sft", "--input_jsonl {in}/bee.jsonl --keep 0", "--keep 0: expected shortest, first, all or"),
    wrong("val_ratio", "sft", "--input_jsonl {in}/bee.jsonl --val_ratio 1", "--val_ratio 1.0: expected a share"),
    wrong("no_model", "sft", "--input_jsonl {in}/bee.jsonl --model {in}/no", "{in}/no", "hf download"),
    wrong("hub", "sft", "--input_jsonl {in}/bee.jsonl --model Qwen/Qwen2", "Qwen/Qwen2", "hf download Qwen/Qwen2"),
    wrong("no_tok", "sft", "--input_jsonl {in}/bee.jsonl --model {in}/no_tok", "{in}/no_tok", "copy the base model's"),
    wrong("tok5", "sft", "--input_jsonl {in}/bee.jsonl --model {in}/tok5", "{in}/tok5/tok", "requirements-latest"),
    wrong("raw_alone", "sft", "--input_jsonl {in}/bee.jsonl --tests_raw {in}/bee.jsonl", "give that too"),
    wrong("grpo_none", "sft", "--grpo_raw {in}/no.jsonl", "{in}/no.jsonl: no such file"),
    wrong("grpo_bee", "sft", "--grpo_raw {in}/bee.jsonl", "{in}/bee.jsonl:1: "),
    wrong("sets_none", "sft", "--input_jsonl {in}/bee.jsonl --manifest_dir {in}/full", "{in}/full", "prepare_eval"),
    wrong("out_file", "sft", "--input_jsonl {in}/bee.jsonl --output_dir {in}/bee.jsonl", "{in}/bee.jsonl: is a file"),
    wrong(
        "out_below", "sft", "--input_jsonl {in}/bee.jsonl --output_dir {in}/bee.jsonl/x", "{in}/bee.jsonl: is a file"
    ),
    # ------------------------------------------------------------------------------------------ prepare_eval_data.py
    wrong("set_name", "sets", "--datasets humanevil", "humanevil", "humaneval"),
    wrong("he_missing", "sets", "--datasets humaneval --humaneval_file {in}/no.gz", "{in}/no.gz: no such file"),
    wrong("he_folder", "sets", "--datasets humaneval --humaneval_file {in}/full", "{in}/full"),
    wrong("he_torn", "sets", "--datasets humaneval --humaneval_file {in}/torn.jsonl.gz", "torn.jsonl.gz", "copy"),
    wrong("he_other", "sets", "--datasets humaneval --humaneval_file {in}/bee.jsonl", "{in}/bee.jsonl"),
    wrong("mbpp_empty", "sets", "--datasets mbpp_reg --mbpp_file {in}/empty.jsonl", "{in}/empty.jsonl"),
    wrong("cc_file", "sets", "--datasets codecontests_test --code_contests_dir {in}/bee.jsonl", "{in}/bee.jsonl"),
    wrong("cc_empty", "sets", "--datasets codecontests_test --code_contests_dir {in}/empty", "{in}/empty"),
    wrong("checkers", "sets", "--datasets humaneval --checkers {in}/no.parquet", "{in}/no.parquet"),
    wrong("columns", "sets", "--datasets humaneval --checker_columns id=x", "--checkers; give it, or leave them out"),
    wrong("sets_out_file", "sets", "--datasets humaneval --output_dir {in}/bee.jsonl", "{in}/bee.jsonl: is a file"),
    wrong("own_source", "sets", "--datasets mine --output_dir {in}/own", "{in}/own/manifests/sets.toml", "source"),
    # ------------------------------------------------------------------------------------------------- phase1_eval.py
    wrong("no_target", "eval", "", "give --checkpoint_dir and --step, or --model_path"),
    wrong("cut_flag", "eval", "--max_new_token 5", "did you mean --max_new_tokens?"),
    wrong("limit", "eval", "--limit 0", "--limit"),
    wrong("model_none", "eval", "--model_path {in}/no --output_dir {out}", "{in}/no: no such folder", "hf download"),
    wrong("model_hub", "eval", "--model_path Qwen/Qwen2 --output_dir {out}", "hf download Qwen/Qwen2"),
    wrong("model_empty", "eval", "--model_path {in}/empty --output_dir {out}", "{in}/empty: no config.json"),
    wrong("model_no_tok", "eval", "--model_path {in}/no_tok --output_dir {out}", "{in}/no_tok: no tokenizer", "copy"),
    wrong("model_no_vocab", "eval", "--model_path {in}/no_vocab --output_dir {out}", "{in}/no_vocab: no tok", "copy"),
    wrong("model_cut", "eval", "--model_path {in}/cut --output_dir {out}", "{in}/cut/model.safetensors", "copy"),
    wrong("model_tok5", "eval", "--model_path {in}/tok5 --output_dir {out}", "{in}/tok5/tok", "requirements-latest"),
    wrong("no_out", "eval", "--model_path {in}/model", "--model_path needs --output_dir"),
    wrong("eval_out_file", "eval", "--model_path {in}/model --output_dir {in}/bee.jsonl", "{in}/bee.jsonl: is a file"),
    wrong("ckpt_none", "eval", "--checkpoint_dir {in}/no --step 5", "{in}/no: no such folder", "global_step_N"),
    wrong("step_999", "eval", "--checkpoint_dir {in}/run --step 999", "{in}/run: no step 999", "there are 5, 10"),
    wrong("step_word", "eval", "--checkpoint_dir {in}/run --step last", "--step last: neither", "there are 5, 10"),
    wrong("no_steps", "eval", "--checkpoint_dir {in}/empty --step 5", "{in}/empty: no step 5", "no global_step_N"),
    wrong(
        "best",
        "eval",
        "--checkpoint_dir {in}/run --step best --output_dir {out} --best_checkpoint {in}/no.json",
        "no.json",
    ),
    wrong("eval_set", "eval", "{model} --datasets humanevil", "humanevil", "humaneval"),
    wrong("eval_sets", "eval", "{model} --manifest_dir {in}/empty", "{in}/empty", "prepare_eval_data.py"),
    wrong("samples", "eval", "{model} --n_samples 2", "--temperature"),
    wrong("top_p", "eval", "{model} --top_p 2", "top_p"),
    wrong(
        "test_only",
        "eval",
        "--checkpoint_dir {in}/run --step 5 --datasets humaneval --best_checkpoint {in}/no.json",
        "no.json",
        "run_eval_checkpoints.sh",
    ),
    wrong("rejudge", "eval", "--rejudge --output_dir {in}/empty", "{in}/empty/run.json"),
    # ------------------------------------------------------------------------------------------- the night's evaluator
    wrong(
        "night_none", "night", "--checkpoint_dir {in}/no --output_dir {out}", "{in}/no: no such folder", "global_step_N"
    ),
    wrong(
        "night_file", "night", "--checkpoint_dir {in}/bee.jsonl --output_dir {out}", "{in}/bee.jsonl: no such folder"
    ),
    wrong("night_empty", "night", "--checkpoint_dir {in}/empty --output_dir {out}", "{in}/empty", "global_step_N"),
    wrong("night_other", "night", "--checkpoint_dir {in}/full --output_dir {out}", "{in}/full", "global_step_N"),
    wrong("night_above", "night", "--checkpoint_dir {in} --output_dir {out}", "{in}", "{in}/run"),
    wrong("night_999", "night", "{run} --steps 999", "{in}/run has no step 999", "there are 5, 10"),
    wrong("night_step", "night", "{run} --step 5", "--step: ", "--steps"),
    wrong("night_out", "night", "--checkpoint_dir {in}/run --output_dir {in}/bee.jsonl", "{in}/bee.jsonl: is a file"),
    wrong("night_phase0", "night", "{run} --phase0_metrics {in}/no.json", "{in}/no.json: no such file"),
    wrong("night_sets", "night", "{run} --manifest_dir {in}/empty", "{in}/empty", "prepare_eval_data.py"),
    # --------------------------------------------------------------------------------------------- generate_report.py
    wrong("report_none", "report", "", "give --phase0_metrics and --phase1_metrics"),
    wrong("one_side", "report", "{base}", "go together"),
    wrong("side_missing", "report", "--phase0_metrics {in}/no.json {sft}", "{in}/no.json: no such file"),
    wrong(
        "summary",
        "report",
        "--phase0_metrics {in}/base/summary.json {sft}",
        "{in}/base/summary.json",
        "{in}/base/metrics.json",
    ),
    wrong("run_json", "report", "--phase0_metrics {in}/base/run.json {sft}", "{in}/base/run.json", "metrics.json"),
    wrong("itself", "report", "{base} --phase1_metrics {in}/base/metrics.json", "{in}/base/metrics.json", "both"),
    wrong(
        "itself_glob",
        "report",
        "--phase0_metrics {in}/bas*/metrics.json --phase1_metrics {in}/base",
        "{in}/base/metrics.json",
        "both",
    ),
    wrong("torn_json", "report", "--phase0_metrics {in}/torn.json {sft}", "{in}/torn.json:1"),
    wrong("list_json", "report", "--phase0_metrics {in}/list.json {sft}", "{in}/list.json: a JSON list"),
    wrong("gate_none", "report", "{sides} --gate {in}/no.toml", "{in}/no.toml: no such file"),
    wrong("gate_torn", "report", "{sides} --gate {in}/torn.json", "{in}/torn.json: not valid TOML"),
    wrong("gate_set", "report", "{sides} --gate {in}/set.toml", "{in}/set.toml: rule 1", "humanevil", "humaneval"),
    wrong("gate_key", "report", "{sides} --gate {in}/key.toml", "{in}/key.toml: rule 1", "known are"),
    wrong("report_out", "report", "{sides} --output_dir {in}/bee.jsonl", "{in}/bee.jsonl: is a file"),
    wrong("resamples", "report", "{sides} --resamples 10", "--resamples 10", "leave it at"),
    wrong("log_none", "report", "{sides} --train_log {in}/no.log", "{in}/no.log"),
    wrong("data_none", "report", "{sides} --train_data {in}/no.parquet", "{in}/no.parquet"),
    wrong("data_torn", "report", "{sides} --train_data {in}/torn.parquet", "{in}/torn.parquet"),
    wrong("curve_none", "report", "{sides} --checkpoints {in}/no", "--checkpoints {in}/no: no such folder; give"),
    wrong("runs_name", "report", "--runs {in}/base/metrics.json {in}/sft/metrics.json", "expected NAME=metrics.json"),
    wrong("runs_one", "report", "--runs a={in}/base/metrics.json", "give two or more"),
    wrong("runs_twice", "report", "--runs a={in}/base/metrics.json a={in}/sft/metrics.json", "give each its own name"),
    wrong("runs_same", "report", "--runs a={in}/base/metrics.json b={in}/base", "{in}/base/metrics.json", "a and b"),
    wrong("runs_missing", "report", "--runs a={in}/base/metrics.json b={in}/no.json", "{in}/no.json: no such file"),
    wrong("runs_base", "report", "--runs a={in}/base/metrics.json b={in}/sft/metrics.json --base c", "there are a, b"),
    wrong(
        "runs_out",
        "report",
        "--runs a={in}/base/metrics.json b={in}/sft/metrics.json --output_dir {in}/bee.jsonl",
        "{in}/bee.jsonl: is a file",
    ),
    # ------------------------------------------------------------------------------------------ convert_fsdp_to_hf.py
    wrong("convert_none", "convert", "", "give --ckpt_dir with --output_dir, or --slim"),
    wrong("shards_none", "convert", "--ckpt_dir {in}/no --output_dir {out}", "{in}/no"),
    wrong("shards_lack", "convert", "--ckpt_dir {in}/empty --output_dir {out}", "{in}/empty", "model_world_size"),
    wrong("slim_none", "convert", "--slim {in}/no", "{in}/no"),
    wrong("slim_empty", "convert", "--slim {in}/empty --output_dir {out}", "{in}/empty: holds no model.safetensors"),
    wrong("slim_cut", "convert", "--slim {in}/cut --output_dir {out}", "{in}/cut/model.safetensors", "again"),
    wrong("there", "convert", "--slim {in}/model --output_dir {in}/full", "{in}/full: exists", "--overwrite"),
    wrong("convert_out", "convert", "--slim {in}/model --output_dir {in}/bee.jsonl", "{in}/bee.jsonl: is a file"),
    wrong("shard_size", "convert", "{slim} --max_shard_size big", "write 5GB or 512MiB"),
    wrong("convert_hub", "convert", "{slim} --base_model Qwen/Qwen2", "Qwen/Qwen2", "hf download Qwen/Qwen2"),
    # ---------------------------------------------------------------------------------------------- verify_handoff.py
    wrong("handoff_none", "handoff", "", "give either --model_path or --best_checkpoint"),
    wrong("handoff_gone", "handoff", "--model_path {in}/no", "{in}/no: no such directory"),
    wrong("handoff_hub", "handoff", "--model_path Qwen/Qwen2", "hf download Qwen/Qwen2"),
    wrong("handoff_empty", "handoff", "--model_path {in}/empty", "{in}/empty: empty; rebuild it"),
    wrong(
        "handoff_best", "handoff", "--best_checkpoint {in}/no.json", "{in}/no.json: no such", "run_eval_checkpoints.sh"
    ),
    wrong("handoff_torn", "handoff", "--best_checkpoint {in}/torn.json", "{in}/torn.json:1"),
    wrong("handoff_base", "handoff", "--model_path {in}/model --base_model Qwen/Qwen2", "hf download Qwen/Qwen2"),
    wrong("handoff_rate", "handoff", "--best_checkpoint {in}/no.json --min_exec_success_rate 2", "between 0 and 1"),
    wrong("handoff_there", "handoff", "--model_path {in}/model --export {in}/full", "{in}/full: exists; remove it"),
    wrong("handoff_out", "handoff", "--model_path {in}/model --output_dir {in}/bee.jsonl", "{in}/bee.jsonl: is a file"),
    wrong("handoff_report", "handoff", "--model_path {in}/model --report {in}/no.json", "{in}/no.json: no such file"),
    # ------------------------------------------------------------------------------------------ python -m phase1.judge
    wrong("judge_none", "judge", "", "give --raw, --solutions and --out, or --probe"),
    wrong("judge_raw", "judge", "--raw {in}/no.jsonl --solutions {in}/sol.jsonl --out {out}/v.jsonl", "{in}/no.jsonl"),
    wrong("judge_sol", "judge", "--raw {raw} --solutions {in}/no.jsonl --out {out}/v.jsonl", "{in}/no.jsonl: no such"),
    wrong("judge_empty", "judge", "--raw {raw} --solutions {in}/empty.jsonl --out {out}/v.jsonl", "holds no solution"),
    wrong("judge_id", "judge", "{sol} --out {out}/v.jsonl", "{in}/sol.jsonl:1: "),
    wrong("judge_code", "judge", "--raw {raw} --solutions {in}/nocode.jsonl --out {out}/v.jsonl", "needs `code`"),
    wrong("judge_out", "judge", "{sol} --out {in}/full", "is a directory; give --out"),
    wrong("judge_below", "judge", "{sol} --out {in}/bee.jsonl/v", "{in}/bee.jsonl: is a file"),
    wrong("judge_time", "judge", "{sol} --out {out}/v --run_timeout 0", "--run_timeout"),
    # ------------------------------------------------------------------------------------ python -m phase1.report.power
    wrong("gain", "power", "--gain 5", "--gain 5.0: expected a share"),
    wrong("measured", "power", "--measured_on {in}/no.json", "{in}/no.json: no such file"),
    wrong("measured_one", "power", "--measured_on {in}/base/metrics.json", "{in}/base/metrics.json", "--n_samples 4"),
    wrong("measured_set", "power", "--measured_on {in}/sampled/metrics.json --dataset humanevil", "no humanevil"),
]


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """The wrong files, and right ones beside which they stand; no test changes them."""
    root = tmp_path_factory.mktemp("given")
    for name in ("empty", "full", "own/manifests"):
        (root / name).mkdir(parents=True)
    (root / "full" / "notes.txt").write_text("notes")
    (root / "own" / "manifests" / "sets.toml").write_text('[mine]\nrole = "dev"\nsource = "../no.jsonl"\n')
    first_id = json.loads((SAMPLES / "raw" / "humaneval_raw.jsonl").read_text().splitlines()[0])["problem_id"]
    lines = [json.dumps(record(i)) + "\n" for i in range(4)]
    texts = {
        "bee.jsonl": "".join(lines),
        "one.jsonl": lines[0],
        "empty.jsonl": "",
        "records.json": f"[{lines[0].strip()}]",
        "rows.csv": "prompt,solution\nSay 1.,print(1)\n",
        "torn.json": '{"humaneval": ',
        "list.json": "[]",
        "sol.jsonl": '{"problem_id": "no such problem", "code": "print(1)"}\n',
        "nocode.jsonl": json.dumps({"problem_id": first_id}) + "\n",
        "set.toml": '[[rule]]\ndataset = "humanevil"\nmetric = "accepted_at_1"\nmin = 0.5\n',
        "key.toml": '[[rule]]\ndataset = "humaneval"\nmetric = "accepted_at_1"\nmost = 0.5\n',
    }
    for name, text in texts.items():
        (root / name).write_text(text)
    (root / "binary.jsonl").write_bytes(bytes(range(128, 256)) * 9)
    (root / "torn.jsonl.gz").write_bytes(gzip.compress("".join(lines).encode())[:-20])
    (root / "torn.parquet").write_bytes(b"PAR1" + bytes(90))
    for step in (5, 10):
        make_checkpoint(root / "run", step)
    write_models(root)
    for seed, name in enumerate(("base", "sft")):
        write_evaluation(root / name, Fake(PHASE0, sizes=FEW, seed=seed))
    write_sampled(root / "sampled", Fake(PHASE0, sizes=FEW), 2)
    return root


def write_models(root: Path) -> None:
    """The smallest model, whole and damaged."""
    for name in ("model", "no_tok", "no_vocab", "cut", "tok5"):
        (root / name).mkdir()
        write_tiny_model(root / name)
        if name != "no_tok":
            (root / name / "tokenizer_config.json").write_text("{}")
        if name not in ("no_tok", "no_vocab"):
            (root / name / "tokenizer.json").write_text("{}")
    cut(root / "cut" / "model.safetensors")
    (root / "tok5" / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')


@pytest.fixture(autouse=True)
def unchanged(given) -> Iterator[None]:
    """What is given stays as it is, and the signals as they were."""
    before, handler = sorted(given.rglob("*")), signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    left = sorted(set(given.rglob("*")) - set(before))
    for path in left:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    assert not left


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.id)
def test_it_is_one_line_with_file_and_fix_and_leaves_nothing(case, given, tmp_path, monkeypatch, capsys):
    main, common = SCRIPTS[case.script]
    raw = SAMPLES / "raw" / "humaneval_raw.jsonl"
    places = {"in": given, "out": tmp_path / "out", "samples": SAMPLES, "raw": raw}
    places |= {name: words.format(**places) for name, words in RIGHT.items()}
    places["sides"] = f"{places['base']} {places['sft']}"
    monkeypatch.setattr(sys, "argv", ["script.py", *shlex.split(f"{common} {case.words}".format(**places))])
    with pytest.raises(SystemExit) as end:
        run_script(main)
    out, err = capsys.readouterr()
    assert end.value.code == 2, out + err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    missing = [says for says in case.says if says.format(**places) not in err]
    assert not missing, err
    left = [p for p in (tmp_path / "out").rglob("*") if p.is_file() and p.name not in STAYS]
    assert not left
    if case.script in ("sft", "sets"):  # not even an empty folder
        assert [p.name for p in tmp_path.rglob("*")] in ([], ["out", "sft_rejects.jsonl"])


# ---------------------------------------------------------------------------------------------------- a process each
SHELLS = [
    ("sft_flag", "run_sft.sh --smok", {}, ("--smok: unknown flag; --smoke",)),
    ("sft_word", "run_sft.sh eight", {}, ("'eight': neither a number of processes",)),
    ("sft_stop", "run_sft.sh --stop_on inf", {}, ("--stop_on inf: only nan is known",)),
    ("sft_preset", "run_sft.sh --preset", {}, ("--preset nothing: only small is known",)),
    ("sft_python", "run_sft.sh", {"PYTHON": "/no/python"}, ("PYTHON=/no/python: no such program; name",)),
    ("sft_out", "run_sft.sh", {"OUTPUT_DIR": "{in}/bee.jsonl"}, ("{in}/bee.jsonl: is a file", "OUTPUT_DIR")),
    ("sft_ckpt", "run_sft.sh", {"CKPT_DIR": "{in}/bee.jsonl"}, ("{in}/bee.jsonl is a file", "CKPT_DIR")),
    ("eval_python", "run_eval_checkpoints.sh", {"PYTHON": "/no/python"}, ("PYTHON=/no/python: no such program",)),
    ("eval_none", "run_eval_checkpoints.sh", {"CKPT_DIR": "{in}/no"}, ("{in}/no: no such folder",)),
    ("eval_empty", "run_eval_checkpoints.sh", {"CKPT_DIR": "{in}/empty"}, ("{in}/empty", "CKPT_DIR of run_sft.sh")),
    ("eval_999", "run_eval_checkpoints.sh --steps 999", {"CKPT_DIR": "{in}/run"}, ("there are 5, 10",)),
]


def shell(command: str, given: Path, out: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a shell script with these variables, in which {in} is the folder of what is given."""
    places = {"in": given, "out": out}
    env = {"PYTHON": sys.executable, "OUTPUT_DIR": "{out}", "CKPT_DIR": "{out}/ckpt", "LOGGER": "console"} | variables
    env = os.environ | {name: value.format(**places) for name, value in env.items()}
    return subprocess.run(["bash", *command.split()], cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(("command", "variables", "says"), [row[1:] for row in SHELLS], ids=[row[0] for row in SHELLS])
def test_a_shell_script_says_it_in_one_line_too(given, tmp_path, command, variables, says):
    done = shell(command, given, tmp_path / "out", variables)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert not [part for part in says if part.format(**{"in": given}) not in done.stderr], done.stderr
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"TRAIN_FILE": "none"}, "error: none: no such file; write it with prepare_sft_data.py, or set "),
        ({"TRAIN_FILE": "{in}/torn.parquet"}, "error: {in}/torn.parquet: not a whole Parquet file"),
        ({"MODEL_PATH": "{in}/no_tok"}, "{in}/no_tok: no tokenizer_config.json; copy"),
    ],
    ids=["no_rows", "torn_rows", "no_tok"],
)
def test_the_last_line_before_training_names_file_and_fix(given, tmp_path, variables, says):
    """Above it stands a line a check."""
    done = shell("run_sft.sh", given, tmp_path / "out", variables)
    *checks, last = done.stderr.splitlines()
    assert done.returncode == 2 and last.startswith("error: ") and says.format(**{"in": given}) in done.stderr
    assert {line.split()[0] for line in checks} <= {"pass", "warn", "fail"}, done.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory) -> Path:
    """An interpreter with nothing but the standard library."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


@pytest.mark.parametrize("script", [*sorted(p.name for p in ROOT.glob("*.py")), "-m phase1.judge", "-m phase1.train"])
def test_a_python_without_the_packages_is_named_with_the_way_to_the_right_one(bare_python, script):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([bare_python, *script.split()], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"error: {bare_python} has no ") and "PYTHON" in done.stderr
    assert ".venv/bin/python" in done.stderr or "setup_cpu.sh" in done.stderr


@pytest.mark.parametrize("script", NEEDED_BY)
def test_a_python_that_has_some_of_the_packages_is_named_too(bare_python, tmp_path, script):
    """As a system's Python with numpy may be."""
    for name in NEEDED:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([bare_python, script], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"error: {bare_python} has no {NEEDED_BY[script][0]}: ")


@pytest.mark.parametrize("script", ["generate_report.py", "tests/other.py"])
def test_ctrl_c_while_a_script_still_imports_is_one_word(script):
    program = f"import sys; sys.argv = [{str(ROOT / script)!r}]; import phase1; raise KeyboardInterrupt"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    ours = script == "generate_report.py"
    assert done.returncode in (130, -signal.SIGINT) and (done.stderr == "interrupted\n") == ours, done.stderr


def test_both_shell_scripts_take_the_same_python():
    lines = [
        next(x for x in (ROOT / name).read_text().splitlines() if x.startswith("PYTHON="))
        for name in ("run_sft.sh", "run_eval_checkpoints.sh")
    ]
    assert lines[0].split("  #")[0] == lines[1].split("  #")[0]


# ------------------------------------------------------------------------------------------ what is no wrong folder
def night(given: Path, folder: Path, out: Path, *words: object) -> int | str | None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        argv = ["script.py", "evaluate", "--settle", "0", "--manifest_dir", SAMPLES / "manifests", "--dry_run"]
        patch.setattr(sys, "argv", [str(w) for w in (*argv, "--checkpoint_dir", folder, "--output_dir", out, *words)])
        run_script(checkpoints.main)
    return end.value.code


@pytest.mark.parametrize("mark", ["train_run.json", ".train_node0.lock"])
def test_cron_before_the_first_checkpoint_is_no_error(given, tmp_path, mark):
    """run_sft.sh leaves both marks before a step is trained."""
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt" / mark).write_text("" if mark.endswith("lock") else TRAINING)
    assert night(given, tmp_path / "ckpt", tmp_path) == 0
    assert night(given, tmp_path / "ckpt", tmp_path, "--steps", 500) == 0


def test_a_step_is_awaited_as_long_as_training_may_save_it(given, tmp_path):
    make_checkpoint(tmp_path / "ckpt", 5)
    run = tmp_path / "ckpt" / "train_run.json"
    run.write_text(TRAINING)
    codes = {step: night(given, tmp_path / "ckpt", tmp_path, "--steps", step) for step in (4, 5, 500, 1001)}
    assert codes == {4: 2, 5: 0, 500: 0, 1001: 2}
    run.write_text(TRAINING.replace("running", "complete"))
    assert night(given, tmp_path / "ckpt", tmp_path, "--steps", 500) == 2
    (tmp_path / "eval_step_500").mkdir()
    assert night(given, tmp_path / "ckpt", tmp_path, "--steps", 500) == 0


TRAINING = json.dumps(
    {
        "status": "running",
        "expected_steps": 1000,
        "world_size": 1,
        "shape": {},
        "sessions": [{"started": "2026-01-01T00:00:00+00:00", "from_step": 0}],
        "command": [],
        "stamp": {"arguments": {}},
    }
)
