"""phase1.checkpoints.choose: the best is the contract's best, among evaluations that were measured alike."""

import random

import pytest

from phase1.checkpoints.choose import against_runner_up, choose_best, rank
from phase1.contract.state.evaluation_run import Behaviour
from phase1.evaluate.finished import finished_evaluations
from phase1.files import read_json, write_json
from tests.checkpoints.made import write_eval
from tests.report.fake_evaluations import IMPROVED, PHASE0, Fake, write_evaluation


def ranked(output_dir):
    return rank(finished_evaluations(output_dir).by_step.values())


@pytest.mark.parametrize("seed", range(2))
def test_best_checkpoint_equals_a_brute_force_choice_over_fifty_evaluations(tmp_path, seed):
    """With ties, nulls, a missing metric, a missing data set, and evaluations that are not complete."""
    rng, candidates = random.Random(seed), []
    for step in rng.sample(range(500, 100_000, 500), 50):
        rate, accepted = rng.choice([None, 0.5, 0.6, 0.6]), rng.choice([None, 0.1, 0.2, 0.2])
        status = rng.choice(["complete", "complete", "running", "incomplete"])
        write_eval(tmp_path, step, rate, accepted, status=status)
        lost = rng.choice(["", "", "exec_success_rate", "accepted_at_1", "the data set"])
        path = tmp_path / f"eval_step_{step}" / "summary.json"
        summary = read_json(path)
        summary["datasets"]["codecontests_valid"].pop(lost, None)
        if lost == "the data set":
            summary["datasets"].clear()
        write_json(path, summary)
        has_rate = rate is not None and lost not in ("exec_success_rate", "the data set")
        if status == "complete" and has_rate:
            candidates.append((rate, 0 if lost == "accepted_at_1" else accepted or 0, -step))
    rate, accepted, minus_step = max(candidates)
    best = choose_best(ranked(tmp_path))
    assert (best.best_exec_success_rate, best.best_accepted_at_1 or 0, best.best_step) == (rate, accepted, -minus_step)
    assert best.model_path == f"ckpt/global_step_{best.best_step}/huggingface"
    assert best.selection_metric == "summary.datasets.codecontests_valid.exec_success_rate"


def test_no_evaluation_gives_no_best(tmp_path):
    assert choose_best(ranked(tmp_path)) is None


@pytest.mark.parametrize(("rates", "beyond_noise"), [(IMPROVED, True), (PHASE0, False)], ids=["beyond", "within"])
def test_the_runner_up_is_tested_against_the_best_on_the_same_problems(tmp_path, rates, beyond_noise):
    for seed, (step, fake) in enumerate([(500, PHASE0), (1000, rates)]):
        write_evaluation(tmp_path / f"eval_step_{step}", Fake(fake, {"codecontests_valid": 117}, seed=seed, step=step))
    ranking = ranked(tmp_path)
    best, second = (summary_rate(tmp_path, c.step) for c in ranking.best_first)
    found = against_runner_up(tmp_path, ranking)
    assert found.problems == 117 and found.beyond_noise is beyond_noise is (found.p < 0.05)
    assert found.change == pytest.approx(best - second)
    assert found.gained - found.lost == round(117 * (best - second))
    low, high = choose_best(ranking).interval
    assert low < best < high


def summary_rate(output_dir, step):
    summary = read_json(output_dir / f"eval_step_{step}" / "summary.json")
    return summary["datasets"]["codecontests_valid"]["exec_success_rate"]


OTHERWISE = [
    {"problems": 2},
    {"sampling": {"max_new_tokens": 16}},
    {"judge": {"run_timeout": 1}},
    {"prompts_sha256": "x"},
    {"behaviour": dict.fromkeys(Behaviour.model_fields, "x")},
]


@pytest.mark.parametrize("other", OTHERWISE, ids=lambda other: next(iter(other)))
def test_an_evaluation_that_was_measured_otherwise_is_not_ranked_and_named(tmp_path, other):
    write_eval(tmp_path, 500, 0.5, 0.1)
    write_eval(tmp_path, 1000, 0.6, 0.1)
    write_eval(tmp_path, 1500, 1.0, 1.0, **other)
    best = choose_best(ranked(tmp_path))
    assert (best.best_step, best.not_comparable) == (1000, [1500])
    assert list(best.all_checkpoints) == ["500", "1000"]


def test_of_evaluations_over_fewer_and_over_all_problems_those_over_all_are_ranked(tmp_path):
    for step in (500, 1000):
        write_eval(tmp_path, step, 1.0, 1.0, problems=2)
    write_eval(tmp_path, 1500, 0.5, 0.1)
    ranking = ranked(tmp_path)
    assert (ranking.top(5), ranking.not_comparable) == ([1500], [500, 1000])
