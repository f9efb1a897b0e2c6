"""The estimates of memory, time and disk beside what was measured on GPUs (docs/02 says how)."""

import json

import pytest

from phase1.train.estimate import PEAK_TFLOPS, ModelShape, checkpoint_bytes, expected_mfu, hours, memory

SMALL = ModelShape(896, 24, 14, 2, 4864, 151936, True)
MIDDLE = ModelShape(1536, 28, 12, 2, 8960, 151936, True)
LARGE = ModelShape(3584, 28, 28, 4, 18944, 152064, False)

# peak GiB allocated on a GPU, tests/bench/bench_train.py and the tables it continues
MEASURED_GIB = [
    (SMALL, 1, "fsdp", 2 * 4096, {"master_bytes": 2}, 20.4),
    (SMALL, 1, "fsdp", 2 * 3072, {"master_bytes": 2}, 16.2),
    (SMALL, 1, "fsdp", 2 * 4096, {}, 24.1),
    (SMALL, 1, "engine", 30_499, {"checkpointing": False, "reshard": False}, 48.0),
    (SMALL, 1, "engine", 30_499, {"checkpointing": False, "reshard": False, "compiled": True}, 36.7),
    (SMALL, 1, "engine", 15_254, {"checkpointing": False, "reshard": False}, 28.8),
    (SMALL, 1, "engine", 15_254, {}, 11.0),
    (MIDDLE, 1, "engine", 30_499, {"checkpointing": False, "reshard": False}, 100.1),
    (MIDDLE, 1, "engine", 30_499, {"checkpointing": False, "reshard": False, "compiled": True}, 77.9),
    (LARGE, 2, "engine", 16384, {"compiled": True}, 66.5),
    (LARGE, 2, "engine", 24576, {"compiled": True}, 68.4),
    (LARGE, 2, "engine", 16384, {"compiled": True, "kept": 0.08}, 73.2),
    (LARGE, 4, "engine", 16384, {"compiled": True, "kept": 0.5}, 66.3),
]


@pytest.mark.parametrize(("shape", "parameters"), [(SMALL, 494.0e6), (MIDDLE, 1543.7e6), (LARGE, 7616e6)])
def test_parameters_are_those_of_the_model(shape, parameters):
    assert shape.parameters == pytest.approx(parameters, rel=1e-3)


@pytest.mark.parametrize(
    ("shape", "gpus", "trainer", "tokens", "options", "measured"),
    MEASURED_GIB,
    ids=[f"{trainer} {measured} GiB" for _, _, trainer, _, _, measured in MEASURED_GIB],
)
def test_estimated_memory_is_near_the_measured_peak(shape, gpus, trainer, tokens, options, measured):
    assert sum(memory(shape, gpus, trainer, tokens, **options).values()) == pytest.approx(measured, rel=0.12)


@pytest.mark.parametrize(("gpus", "kept", "measured"), [(2, 0.08, 73.2), (4, 0.5, 66.3)])
def test_what_the_compiler_keeps_is_near_the_measured_peak_at_both_budgets(gpus, kept, measured):
    got = sum(memory(LARGE, gpus, "engine", 16384, compiled=True, kept=kept).values())
    assert got == pytest.approx(measured, rel=0.01)


def test_the_expected_share_of_the_peak_is_that_of_the_measured_step_on_four_gpus():
    """7B at a budget of .5: 44,439 tokens/s."""
    measured = LARGE.flops(44_439, 1100) / (4 * PEAK_TFLOPS["H100"] * 1e12)
    assert expected_mfu("engine", True, 0.5) == pytest.approx(measured, abs=0.01)
    assert expected_mfu("engine", True, 0.08) == pytest.approx(0.445, abs=0.01)


@pytest.mark.parametrize(("tokens_per_second", "mfu"), [(17_001, 0.37), (18_934, 0.412), (20_416, 0.445)])
def test_the_estimated_time_is_the_measured_one_at_the_measured_share_of_the_peak(tokens_per_second, mfu):
    """7B on two GPUs: two epochs of 95,629 rows of 760 tokens in 2.0 to 2.4 hours."""
    tokens = 2 * 95_629 * 760
    assert hours(LARGE, 2, tokens, row_tokens=1100, mfu=mfu, tflops=PEAK_TFLOPS["H100"]) == pytest.approx(
        tokens / tokens_per_second / 3600, rel=0.05
    )


def test_a_checkpoint_of_7b_with_fp32_masters_is_122_gb():
    whole = checkpoint_bytes(LARGE.parameters, 4)
    assert whole == pytest.approx(122e9, rel=0.005)
    assert (
        checkpoint_bytes(LARGE.parameters, 4, contents=["model", "extra", "hf_model"]) == whole / 2
    )  # without Adam's moments


def test_each_choice_moves_the_memory_the_way_it_must():
    def gib(**options: object) -> float:
        return sum(memory(MIDDLE, 8, "engine", 16384, **options).values())

    assert gib(checkpointing=False) > gib(kept=0.5) > gib() and gib(reshard=False) > gib() > gib(master_bytes=2)


def test_a_config_of_another_kind_gives_no_estimate(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 512}))
    assert ModelShape.of(tmp_path) is None
