"""The checklist and the model card, from what run_demo.sh left; each item turns when what it reads is damaged."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phase1.contract.state.best_checkpoint import BestCheckpoint
from phase1.contract.state.handoff import CheckResult
from phase1.handoff.check_report import check_report
from phase1.handoff.handoff import Handoff
from phase1.handoff.model_card import model_card, training_data
from phase1.handoff.run_folders import comparison_at, run_folders
from phase1.handoff.seed_checklist import checklist

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "outputs" / "demo"
NAMES = ("files", "weights_index", "parameters", "generation", "generated_code", "vllm", "metrics", "report")

pytestmark = pytest.mark.skipif(
    not (DEMO / "report/comparison_data.json").exists(), reason="bash run_demo.sh has not been run to its end here"
)


@pytest.fixture
def left(tmp_path) -> Handoff:
    """A copy of the demo's files without its weights, as a hand-off finds them."""
    shutil.copytree(
        DEMO,
        tmp_path / "demo",
        ignore=shutil.ignore_patterns("*.safetensors", "*.pt", "completions", "base_model", "converted", "phase0"),
    )
    best = BestCheckpoint.read(tmp_path / "demo/best_checkpoint.json")
    home = tmp_path / f"demo/kept/global_step_{best.best_step}"  # the best is handed over from where it is kept
    (source,) = (tmp_path / "demo/checkpoints").glob(f"*/*/{home.name}/huggingface")
    edit(home / "kept.json", lambda d: d.update(source=str(source)))
    train_file = str(tmp_path / "demo/data/sft_train.parquet")
    edit(
        source.parents[1] / "train_run.json",
        lambda d: d["stamp"]["arguments"].update({"data.train_files": train_file}),
    )
    return Handoff(home / "huggingface", None, tmp_path / f"demo/eval_step_{best.best_step}", best)


def results(**statuses: str) -> list[CheckResult]:
    return [
        CheckResult(name=n, status=statuses.get(n, "pass"), evidence=statuses.get(n + "_evidence", "seen"))
        for n in NAMES
    ]


def items(handoff: Handoff, **statuses: str) -> dict[str, str]:
    return {i.item: i.status for i in checklist(run_folders(handoff, ROOT), handoff, results(**statuses))}


def test_every_item_of_the_plan_passes_or_does_not_apply_to_the_demo(left):
    found = items(left)
    assert len(found) == 23 and {k[:3] for k in found} == {"6.1", "6.2", "6.3", "6.4", "6.5"}
    assert {k for k, v in found.items() if v == "fail"} == set()
    assert {k for k, v in found.items() if v == "not applicable"} == {
        "6.2 smoke test of ten steps",
        "6.2 the same in W&B",
    }
    assert {k for k, v in found.items() if v == "not measured"} == {
        "6.3 metrics in W&B",
        "6.3 valid_big evaluated at step 2000",
    }


def edit(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def chosen(outputs: Path) -> Path:
    """The evaluation of the best checkpoint."""
    return outputs / f"eval_step_{json.loads((outputs / 'best_checkpoint.json').read_text())['best_step']}"


def answer(dataset: str, metric: str, word: str):
    return lambda d: [r.update(answer=word) for r in d["rows"] if (r["dataset"], r["metric"]) == (dataset, metric)]


def unmixed(outputs: Path) -> None:
    import pandas as pd

    rows = pd.read_parquet(outputs / "data/sft_train.parquet")["messages"].map(
        lambda turns: [
            {"role": t["role"], "content": t["content"] + ("\n### Response\n" if t["role"] == "user" else "")}
            for t in turns
        ]
    )
    rows.to_frame().to_parquet(outputs / "data/sft_train.parquet")


DAMAGE = {
    "6.1 ten random rows: prompt and response apart": unmixed,
    "6.1 sft_train.parquet loads": lambda o: (o / "data/sft_train.parquet").write_bytes(b"torn"),
    "6.2 loss, lr, grad_norm and val/loss logged": lambda o: next((o / "logs").glob("sft_*.log")).write_text(
        "step:1 - train/loss:1.0"
    ),
    "6.2 training reached its last step": lambda o: edit(
        next((o / "checkpoints").glob("*/*/train_run.json")), lambda d: d.update(status="running")
    ),
    "6.3 metrics complete": lambda o: edit(
        chosen(o) / "metrics.json", lambda d: d["mbpp_reg"].update(pass_ratio_mean=None)
    ),
    "6.3 QA logs saved": lambda o: shutil.rmtree(chosen(o) / "qa_logs"),
    "6.4 final evaluation complete (test, HumanEval)": lambda o: edit(
        o / "eval_final/run.json", lambda d: d.update(status="running")
    ),
    "6.4 comparison report, every metric with a value": lambda o: edit(
        o / "report/comparison_data.json", lambda d: d["rows"][0].update(phase1=None)
    ),
    "6.4 HumanEval pass@1 not significantly worse": lambda o: edit(
        o / "report/comparison_data.json", answer("humaneval", "accepted_at_1", "worse")
    ),
    "6.4 exec_success_rate (valid) rose": lambda o: edit(
        o / "report/comparison_data.json", answer("codecontests_valid", "exec_success_rate", "no clear difference")
    ),
}


@pytest.mark.parametrize("item", DAMAGE)
def test_an_item_fails_when_what_it_reads_is_damaged(left, item):
    if item.startswith("6.2 loss"):  # the demo's `latest` may be a link to the place it was made in
        (left.evaluation.parent / "logs/latest").unlink(missing_ok=True)
        (left.evaluation.parent / "logs/latest").symlink_to(
            next((left.evaluation.parent / "logs").glob("sft_*.log")).name
        )
    DAMAGE[item](left.evaluation.parent)
    assert items(left)[item] == "fail"


def test_what_was_not_run_does_not_apply(left):
    found = items(
        left,
        vllm="warn",
        vllm_evidence="not run: --skip_vllm",
        generated_code="warn",
        generated_code_evidence="not run: no answers",
    )
    assert found["6.5 vLLM serves the model"] == found["6.5 the model answers with Python"] == "not applicable"
    assert items(left, vllm="fail")["6.5 vLLM serves the model"] == "fail"


def test_the_model_card_names_data_hyperparameters_metrics_with_intervals_and_the_licence(left, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    left.base = base
    folders = run_folders(left, ROOT)
    left.report = folders.comparison
    checks = [*(check for check in results() if check.name != "report"), check_report(left)]
    card = model_card("Qwen/Qwen2.5-Coder-7B-Instruct", left, checks, folders)
    assert (
        "1,772 training and 36 validation rows" in card
        and "| optim.lr | 0.004 |" in card
        and "license: apache-2.0" in card
    )
    assert "IMPROVED" in card and comparison_at(folders.comparison).word == "improved"


def test_data_that_were_prepared_again_are_not_named_as_those_of_the_run(left):
    """In the card and in the list: the report beside the rows is of others than train_run.json names."""
    folders = run_folders(left, ROOT)
    assert "1,772 training" in training_data(folders)
    edit(folders.data / "sft_report.json", lambda d: d.update(outputs_sha256={"sft_train.parquet": "e" * 64}))
    assert training_data(folders).startswith("not known: ") and "is of other rows than" in training_data(folders)
    assert items(left)["6.1 evaluation problems kept out of training"] == "fail"


def test_the_demo_is_handed_over_for_its_report_and_with_its_phases_swapped_it_is_not(tmp_path):
    best = BestCheckpoint.read(DEMO / "best_checkpoint.json")
    trained, base = best.model_dir(DEMO / "best_checkpoint.json"), DEMO / "base_model"
    assert check_report(Handoff(trained, base, report=DEMO / "report/comparison_data.json")).status == "pass"
    command = [sys.executable, ROOT / "generate_report.py", "--output_dir", tmp_path / "r", "--resamples", "200"]
    command += ["--phase0_metrics", DEMO / "eval_final/metrics.json", "--phase1_metrics", DEMO / "phase0/metrics.json"]
    subprocess.run(command, check=True, capture_output=True)
    swapped = check_report(Handoff(base, trained, report=tmp_path / "r/comparison_data.json"))
    assert swapped.status == "fail" and "WORSE" in swapped.evidence
