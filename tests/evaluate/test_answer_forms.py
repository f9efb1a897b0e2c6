"""Form and programs, end to end: what each record says of its answer, what summary, QA log and report make of it."""

import asyncio
import dataclasses
import json
import subprocess
import sys

import pytest

from phase1.contract.extraction import RULES
from phase1.contract.identity import Identity
from phase1.contract.problems import Problem
from phase1.contract.prompts import END_TAG, answer
from phase1.contract.records import Completion, RecordLog, is_final, read_records
from phase1.contract.state.evaluation_run import EvaluatedModel
from phase1.evaluate.answer_forms import extraction_summary
from phase1.evaluate.folder import open_run
from phase1.evaluate.loop import judge_completion
from phase1.evaluate.metrics import write_metrics
from phase1.evaluate.qa import write_qa_logs
from phase1.files import BadInput, read_json, sha256_text, write_json
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import open_judge
from phase1.reward import compute_score
from tests.conftest import ROOT
from tests.judge.running_judge import stdin
from tests.report.fake_evaluations import PHASE0, Fake, write_evaluation
from tests.report.running import generate

SQUARE = "print(int(input()) ** 2)"
# (answer, right under the contract's extraction, right under the reader's)
ANSWERS = [
    (answer(SQUARE), True, True),
    (f"In <code> and </code> you find\n```python\n{SQUARE}\n```", False, True),
    (f"```python\n{SQUARE}\n```\nprints\n```\n{'1 2 3 ' * 9}\n```", False, True),
    (f"```python\n{SQUARE}\n```", True, True),
    (answer("print(7)"), False, False),
    (f"~~~python\n{SQUARE}\n~~~", False, True),
]


def judged(extraction, answers):
    """The records that the real judge makes of the answers."""

    async def run():
        async with open_judge(JudgeConfig(workers=2, extraction=extraction)) as judge:
            problem = Problem("codecontests_valid", "p", "Square.", stdin(("5\n", "25"), ("6\n", "36")))
            asked = [
                Completion(
                    "codecontests_valid", f"p{i}", "Square.", sha256_text("Square."), text, "stop", 9, 9, 0.1, 1.0, 0
                )
                for i, text in enumerate(answers)
            ]
            return [await judge_completion(judge, problem, c) for c in asked]

    return asyncio.run(run())


@pytest.fixture(scope="module")
def records():
    return {e: judged(e, [text for text, _, _ in ANSWERS]) for e in ("contract", "reader")}


@pytest.mark.slow
@pytest.mark.parametrize("extraction", ["contract", "reader"])
def test_both_programs_are_judged_and_one_is_measured(records, extraction):
    for record, (_, contract, reader) in zip(records[extraction], ANSWERS, strict=True):
        measured, beside = (contract, reader) if extraction == "contract" else (reader, contract)
        assert record.accepted is measured
        assert (record.other["accepted"] if record.other else record.accepted) is beside
        if record.other:
            assert record.other["extraction"] != extraction and record.other["code"] != record.code
            assert record.other["pass_ratio"] == (1.0 if beside else 0.0)
    assert [r.rule for r in records[extraction]] == [
        "code_tag",
        "tag_in_prose+fence",
        "program_fence",
        "fence",
        "code_tag",
        "tilde_fence",
    ]
    assert [r.form for r in records[extraction]] == ["code_tag", "code_tag", "fence", "fence", "code_tag", "whole"]


@pytest.mark.slow
def test_the_rates_do_not_depend_on_which_was_measured(records):
    summaries = [extraction_summary(records[e]) for e in ("contract", "reader")]
    assert summaries[0] == summaries[1]
    assert summaries[0]["contract"]["accepted_at_1"] == 2 / 6 and summaries[0]["reader"]["accepted_at_1"] == 5 / 6
    assert summaries[0]["forms"] == {"code_tag": 3, "fence": 2, "whole": 1}
    assert summaries[0]["differ"] == 3


def test_a_further_rule_is_one_line_and_measured_alone(monkeypatch):
    monkeypatch.setitem(RULES, "last_line", lambda text: text.splitlines()[-1])
    wrong, right = records = judged("last_line", [answer(SQUARE), f"{answer('print(7)')}\n{SQUARE}"])
    assert (wrong.code, right.code) == (END_TAG, SQUARE) and right.accepted and not wrong.accepted
    assert [(r.form, r.rule, r.other) for r in records] == [("code_tag", "", None)] * 2
    assert extraction_summary(records) is None, "what contract and reader take was not judged"


def test_records_of_older_files_are_read_and_say_nothing(records, tmp_path):
    rows = [
        {k: v for k, v in dataclasses.asdict(r).items() if k not in ("form", "rule", "other")}
        for r in records["contract"]
    ]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    old = list(read_records(tmp_path / "old.jsonl"))
    assert len(old) == len(ANSWERS) and extraction_summary(old) is None


def test_a_judge_that_failed_on_the_other_program_is_asked_again(records):
    record = next(r for r in records["contract"] if r.other)
    assert is_final(record)
    assert not is_final(dataclasses.replace(record, other=record.other | {"error_type": "sandbox_error"}))


def test_summary_and_qa_log_count_the_rules(records, tmp_path):
    kept = {"codecontests_valid": records["contract"]}
    write_metrics(tmp_path, kept)
    write_qa_logs(tmp_path, kept)
    summary = read_json(tmp_path / "summary.json")["datasets"]["codecontests_valid"]
    assert summary["extraction"] == extraction_summary(records["contract"])
    assert (
        "extraction" not in read_json(tmp_path / "metrics.json")["codecontests_valid"]
    )  # the contract's file stays as it is
    assert (
        read_json(tmp_path / "qa_logs" / "qa_summary.json")["datasets"]["codecontests_valid"]["rules"]["tilde_fence"]
        == 1
    )
    lines = [
        json.loads(line)["extra"]
        for line in (tmp_path / "qa_logs" / "codecontests_valid_qa.jsonl").read_text().splitlines()
    ]
    assert sorted(e["rule"] for e in lines) == sorted(r.rule for r in records["contract"])
    assert sum(e["other"] is not None for e in lines) == 3


# ------------------------------------------------------------------------------------------------------------- identity
IDENTITY = Identity(EvaluatedModel(), None, {}, {"judge": "local", "extraction": "contract"}, {})


@pytest.mark.parametrize(
    ("was", "refused"),
    [
        ({"judge": "local"}, False),
        ({"judge": "local", "extraction": "contract"}, False),
        ({"judge": "local", "extraction": "reader"}, True),
    ],
)
def test_an_evaluation_is_not_resumed_under_the_other_extraction(tmp_path, was, refused):
    """One that does not say was made before there was a choice."""
    write_json(tmp_path / "run.json", {"status": "incomplete", "judge": was, "datasets": {}, "sessions": []})
    (tmp_path / "completions").mkdir()
    (tmp_path / "completions/mbpp_reg.jsonl").write_text("{}\n")
    if refused:
        with pytest.raises(BadInput, match="judge.extraction = 'reader'"):
            open_run(tmp_path, IDENTITY)
    else:
        assert open_run(tmp_path, IDENTITY).judge["extraction"] == "contract"


# --------------------------------------------------------------------------------------------------------------- report
def evaluation(folder, rows, extraction="contract"):
    """An evaluation of codecontests_valid with these records, through the real files."""
    write_evaluation(
        folder, Fake({"codecontests_valid": PHASE0["codecontests_valid"]}, sizes={"codecontests_valid": len(rows)})
    )
    run = read_json(folder / "run.json")
    write_json(folder / "run.json", run | {"sessions": [], "judge": run["judge"] | {"extraction": extraction}})
    (folder / "results" / "codecontests_valid.jsonl").unlink()
    log = RecordLog(folder / "results" / "codecontests_valid.jsonl")
    for r in rows:
        log.append(r)
    log.close()
    write_metrics(folder, {"codecontests_valid": rows})
    return folder / "metrics.json"


@pytest.fixture(scope="module")
def phases(records, tmp_path_factory):
    """Phase 1 answers in tags what Phase 0 answered in every form, and no problem more."""
    root = tmp_path_factory.mktemp("phases")
    in_form = judged("contract", [(answer(SQUARE) if reader else answer("print(7)")) for _, _, reader in ANSWERS])
    return evaluation(root / "p0", records["contract"]), evaluation(root / "p1", in_form)


@pytest.mark.slow
def test_the_report_says_what_is_form_and_what_is_programs(phases, tmp_path):
    done = generate("--phase0_metrics", phases[0], "--phase1_metrics", phases[1], "--output_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {r["metric"]: r for r in read_json(tmp_path / "comparison_data.json")["form"]["rows"]}
    accepted = rows["accepted@1"]
    assert (accepted["contract0"], accepted["contract1"], accepted["reader0"], accepted["reader1"]) == (
        2 / 6,
        5 / 6,
        5 / 6,
        5 / 6,
    )
    assert accepted["sentence"] == "+50.0 pp: +0.0 pp by the programs, +50.0 pp by their form"
    assert (
        "form: codecontests_valid, accepted@1: +50.0 pp: +0.0 pp by the programs"
        in (tmp_path / "summary.txt").read_text()
    )
    for page in ("comparison_table.md", "report.html"):
        text = (tmp_path / page).read_text()
        assert "Form and programs" in text and "tag_in_prose+fence" in text and "+50.0 pp by their form" in text


def test_a_phase_that_did_not_record_it_says_so(phases, records, tmp_path):
    old = [dataclasses.replace(r, form="", rule="", other=None) for r in records["contract"]]
    done = generate(
        "--phase0_metrics",
        evaluation(tmp_path / "old", old),
        "--phase1_metrics",
        phases[1],
        "--output_dir",
        tmp_path / "out",
    )
    assert done.returncode == 0, done.stderr
    assert "not recorded in both phases" in (tmp_path / "out" / "comparison_table.md").read_text()


def test_two_extractions_are_not_comparable(phases, records, tmp_path):
    done = generate(
        "--phase0_metrics",
        phases[0],
        "--phase1_metrics",
        evaluation(tmp_path / "r", records["reader"], "reader"),
        "--output_dir",
        tmp_path / "out",
    )
    assert done.returncode == 1
    assert "judge.extraction differs" in (tmp_path / "out" / "comparison_table.md").read_text()


@pytest.mark.slow
def test_the_command_and_the_reward_take_the_program_that_they_are_told_to(tmp_path):
    text, cases = ANSWERS[1][0], stdin(("5\n", "25"))
    (tmp_path / "raw.jsonl").write_text(
        json.dumps({"problem_id": "p", "prompt": "Square.", "test_cases": cases}) + "\n"
    )
    (tmp_path / "answers.jsonl").write_text(json.dumps({"problem_id": "p", "completion": text}) + "\n")
    for extraction, accepted in (("contract", False), ("reader", True)):
        command = [
            sys.executable,
            "-m",
            "phase1.judge",
            "--raw",
            tmp_path / "raw.jsonl",
            "--solutions",
            tmp_path / "answers.jsonl",
            "--out",
            tmp_path / "out.jsonl",
        ]
        subprocess.run([*command, "--extraction", extraction], check=True, cwd=ROOT)
        assert json.loads((tmp_path / "out.jsonl").read_text())["accepted"] is accepted
        assert compute_score("codecontests_valid", text, cases, extraction=extraction)["score"] == float(accepted)
