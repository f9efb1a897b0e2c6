"""What is warned about while a model trains."""

import pytest

from phase1.train.health import Health
from phase1.train.step_log import Step


def warned(steps: list[dict[str, float]]) -> list[str]:
    health = Health()
    for number, values in enumerate(steps, 1):
        health.update(Step(number, values))
    return [w.kind for w in health.warnings]


WELL = {"train/loss": 1.0, "train/grad_norm": 1.0, "tokens_per_s": 1000.0}


@pytest.mark.parametrize(
    ("steps", "kinds"),
    [
        ([WELL] * 40, []),
        ([{"train/loss": 10 * 0.97**i, "train/grad_norm": 1.0} for i in range(40)], []),
        ([WELL, WELL | {"train/loss": float("nan")}], ["nan"]),
        ([WELL] * 12 + [WELL | {"train/loss": 1.6}] + [WELL] * 3, ["spike"]),
        ([WELL] * 3 + [WELL | {"train/loss": 1.6}], []),  # too early to say
        ([WELL | {"train/loss": 0.004}] * 12 + [WELL | {"train/loss": 0.009}], []),  # nothing is left to learn
        (
            [WELL | {"train/loss": 0.4 + 0.1 * (i % 3 - 1)} for i in range(24)] + [WELL | {"train/loss": 0.7}],
            [],
        ),  # small batches scatter
        ([WELL | {"train/loss": 0.4 + 0.1 * (i % 3 - 1)} for i in range(24)] + [WELL | {"train/loss": 1.3}], ["spike"]),
        ([WELL | {"train/grad_norm": 101.0}], ["grad_norm"]),
        ([WELL | {"train/grad_norm": 0.0}], ["grad_norm"]),
        ([WELL | {"train/grad_norm": float("nan")}] * 5, ["grad_norm"]),  # once, while it lasts
        ([WELL] * 10 + [WELL | {"tokens_per_s": 300.0}] * 2 + [WELL], []),  # a save, a validation
        ([WELL] * 10 + [WELL | {"tokens_per_s": 300.0}] * 4, ["slow"]),
        ([{"val/loss": x} for x in (1.0, 1.1, 1.05, 1.2)], []),
        ([{"val/loss": x} for x in (1.0, 1.1, 1.2)], ["val_rising"]),
        ([{"val/loss": float("nan")}], ["val_nan"]),
    ],
)
def test_warnings_name_what_goes_wrong_and_nothing_else(steps, kinds):
    assert warned(steps) == kinds


def test_lines_of_training_and_of_validation_do_not_end_each_others_warnings():
    low, high = {"val/loss": float("nan")}, WELL | {"train/grad_norm": 500.0}
    assert warned([high, low, high, low, high, low]) == ["grad_norm", "val_nan"]


def test_a_warning_that_went_away_is_given_again():
    assert warned([WELL | {"train/grad_norm": 500.0}, WELL, WELL | {"train/grad_norm": 500.0}]) == ["grad_norm"] * 2
