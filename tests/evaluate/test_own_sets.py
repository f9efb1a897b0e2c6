"""Sets of one's own: named in sets.toml, made from a file, evaluated, reported, guarded and kept out of training."""

import io
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

import prepare_eval_data
from phase1.checkpoints.settings import Settings
from phase1.contract.own_sets import known_sets, own_sets
from phase1.contract.problems import load_problems
from phase1.data.decontaminate import read_kept_out
from phase1.evaluate.looks_at_test_sets import looks, note_looks
from phase1.evaluate.target import Target, guard_test_sets
from phase1.files import BadInput, read_json, read_jsonl, run_script
from phase1.judge.config import JudgeConfig
from phase1.judge.judge import judge_all
from tests.conftest import ROOT, SAMPLES
from tests.evaluate.running import Done, run_eval
from tests.report.running import generate

OWN = ROOT / "data" / "example_set"


def prepare(output_dir: Path, *args: object) -> Done:
    """Run prepare_eval_data.py in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["prepare_eval_data.py", "--output_dir", str(output_dir), *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            run_script(prepare_eval_data.main)
    return Done(int(stop.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The ten problems of data/example_set, made ready."""
    data = tmp_path_factory.mktemp("own") / "data"
    shutil.copytree(OWN, data)
    done = prepare(data, "--datasets", "my_set")
    assert done.returncode == 0 and "my_set" in done.stdout, done.said
    return data


def toml(tmp_path: Path, text: str) -> Path:
    (tmp_path / "sets.toml").write_text(text)
    return tmp_path


@pytest.mark.slow
def test_ten_hand_written_problems_come_to_the_report(data, base_model, tmp_path):
    manifests, base, tuned = data / "manifests", tmp_path / "phase0", tmp_path / "phase1"
    same = ["--datasets", "my_set", "--manifest_dir", manifests, "--backend", "transformers", "--max_new_tokens", 48]
    done = run_eval("--model_path", base_model, "--output_dir", base, *same)
    assert done.returncode == 0 and "warning" not in done.stderr, done.said
    assert read_json(base / "metrics.json")["my_set"]["total_problems"] == 10
    assert read_json(base / "qa_logs" / "qa_summary.json")["datasets"]["my_set"]["strata"]["success"]["wanted"] == 2
    shutil.copytree(base, tuned)
    phases = ["--phase0_metrics", base / "metrics.json", "--phase1_metrics", tuned / "metrics.json"]
    done = generate(*phases, "--output_dir", tmp_path / "report", "--resamples", 200)
    assert done.returncode == 0, done.stderr
    overview = (tmp_path / "report" / "comparison_table.md").read_text().split("## All data sets")[1]
    assert "| my_set | accepted@1 |" in overview
    rows = {row["label"]: row for row in read_json(tmp_path / "report" / "comparison_data.json")["rows"]}
    assert rows["accepted_at_1 (my_set)"]["headline"] and rows["exec_success_rate (my_set)"]["comparison"]
    assert "NOTHING TO COMPARE" not in done.stdout
    assert "my_set" in (tmp_path / "report" / "report.html").read_text()


def test_every_reference_program_of_the_example_passes_its_tests(data):
    problems = load_problems(data / "manifests", "my_set")
    items = [(p.problem_id, p.program(p.canonical_solution), p.judged) for p in problems]
    verdicts = {problem_id: verdict.error_type for problem_id, verdict in judge_all(items, JudgeConfig(workers=1))}
    assert verdicts == {problem.problem_id: "success" for problem in problems} and len(verdicts) == 10


def test_an_own_set_is_kept_out_of_training(data):
    kept_out = read_kept_out(data / "manifests", True, 0.6)
    assert kept_out.sets["my_set"] == 10
    hit = kept_out.index.find(
        "", None, "An unrelated riddle.", "def clip(x, low, high):\n    return max(low, min(x, high))"
    )
    assert hit is not None and (hit.dataset, hit.problem_id, hit.rule) == ("my_set", "my/clip", "solution")


def test_a_named_set_without_files_stops_the_preparation_of_training_data(tmp_path):
    with pytest.raises(BadInput, match="my_set could leak into training|codecontests_valid could leak"):
        read_kept_out(toml(tmp_path, '[my_set]\nrole = "dev"\n'), False, 0.6)


def test_a_test_only_set_is_guarded_and_its_looks_are_counted(tmp_path):
    sets = known_sets(toml(tmp_path, '[secret]\nrole = "test-only"\n'))
    with pytest.raises(BadInput, match="--datasets secret is test-only"):
        guard_test_sets(Target(Path("m"), 7, False, Path("o")), ["secret"], False, tmp_path / "best.json", sets)
    guard_test_sets(Target(Path("m"), 7, False, Path("o")), ["secret"], True, tmp_path / "best.json", sets)
    for step in (500, 1000):
        note_looks(tmp_path / f"eval_step_{step}", ["secret"], step, Path(f"/c/{step}"), None, sets)
    assert "secret is test-only, but 2 checkpoints" in looks([tmp_path / "eval_step_500"], ["secret"]).warnings[0]


def test_a_dev_set_is_evaluated_at_the_checkpoints_of_its_tier(tmp_path):
    manifests = toml(tmp_path, '[a]\nrole = "dev"\ntier = 1\n[b]\nrole = "dev"\ntier = 2\n[c]\nrole = "dev"\n')
    settings = Settings(tmp_path, tmp_path, manifests)
    own = [{"a", "b", "c"} & set(settings.sets_of(step)) for step in (500, 2000)]
    assert own == [{"a"}, {"a", "b"}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[my set]\n", "not readable as TOML"),
        ('my_set = "dev"\n', "my_set is no table"),
        ("[my_set]\n", "role is None, expected dev or test-only"),
        ('[my_set]\nrole = "test"\n', "role is 'test'"),
        ('[humaneval]\nrole = "dev"\n', "a set of the contract"),
        ('["../x"]\nrole = "dev"\n', "names files"),
        ('[my_set]\nrole = "dev"\nteir = 1\n', "teir is not known"),
        ('[my_set]\nrole = "dev"\ntier = 4\n', "tier is 4"),
        ('[my_set]\nrole = "dev"\nsize = -1\n', "size is -1"),
        ('[my_set]\nrole = "test-only"\ntier = 1\n', "no checkpoint may be evaluated on it"),
        ('[my_set]\nrole = "dev"\nsource = 3\n', "source is 3"),
    ],
    ids=range(11),
)
def test_a_damaged_sets_toml_is_one_line(tmp_path, text, said):
    with pytest.raises(BadInput, match=said) as error:
        own_sets(toml(tmp_path, text))
    assert "\n" not in str(error.value) and "sets.toml" in str(error.value)


def test_an_unknown_set_is_one_line_that_says_how_to_add_it(data, base_model, tmp_path):
    manifests = data / "manifests"
    said = [
        run_eval(
            "--model_path", base_model, "--output_dir", tmp_path, "--datasets", "your_set", "--manifest_dir", manifests
        ),
        prepare(tmp_path / "data", "--datasets", "your_set"),
    ]
    for done in said:
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.said
        assert "your_set: no such set" in done.stderr and 'write [your_set] and role = "dev" into' in done.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{}", "needs problem_id, prompt and test_cases"),
        ('{"problem_id": "a", "prompt": "", "test_cases": {"type": "mbpp"}}', "texts that are not empty"),
        ('{"problem_id": "a", "prompt": "p", "test_cases": {"type": "sql"}}', "test_cases.type is 'sql'"),
        ('{"problem_id": "a", "prompt": "p", "test_cases": {"type": "codecontests"}}', "test_cases lacks tests"),
        ('{"problem_id": "a", "prompt": "p", "test_cases": []}', "test_cases is a list"),
    ],
    ids=range(5),
)
def test_a_line_that_is_no_problem_is_named(tmp_path, line, said):
    (tmp_path / "manifests").mkdir()
    toml(tmp_path / "manifests", '[my_set]\nrole = "dev"\nsource = "../mine.jsonl"\n')
    good = (OWN / "my_set.jsonl").read_text().splitlines()[0]
    (tmp_path / "mine.jsonl").write_text(f"{good}\n{line}\n")
    done = prepare(tmp_path, "--datasets", "my_set")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "mine.jsonl:2" in done.stderr, done.said
    assert said in done.stderr and not list(tmp_path.rglob("*_manifest.jsonl"))


@pytest.mark.slow
def test_ten_problems_under_a_name_of_the_contract_warn_at_the_evaluation_and_in_the_report(tmp_path, base_model):
    for path in (
        SAMPLES / "manifests" / "codecontests_valid_manifest.jsonl",
        SAMPLES / "raw" / "codecontests_valid_raw.jsonl",
    ):
        (tmp_path / path.parent.name).mkdir()
        lines = path.read_text().splitlines(keepends=True)[:2]
        (tmp_path / path.parent.name / path.name).write_text("".join(lines))
    same = ["--manifest_dir", tmp_path / "manifests", "--backend", "transformers", "--max_new_tokens", 4]
    out = tmp_path / "e"
    done = run_eval("--model_path", base_model, "--output_dir", out, "--datasets", "codecontests_valid", *same)
    warning = "codecontests_valid has 2 problems instead of 117"
    assert done.returncode == 0 and done.stderr.count(warning) == 1, done.said
    other = shutil.copytree(out, tmp_path / "other")
    phases = ["--phase0_metrics", other / "metrics.json", "--phase1_metrics", out / "metrics.json"]
    done = generate(*phases, "--output_dir", tmp_path / "report", "--resamples", 200)
    assert f"warning: {warning}" in done.stdout
    assert len(list(read_jsonl(out / "qa_logs" / "codecontests_valid_qa.jsonl"))) == 2
