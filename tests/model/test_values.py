"""phase1/model/values.py: NaN, infinity and zeros are found in every dtype, wherever they lie."""

import math

import pytest
import torch
from safetensors.torch import save_file

from phase1.model.values import CHUNK, find_bad_values
from phase1.model.weight_files import stored_tensors

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, CHUNK // 8, -1], ids=["first", "middle", "last"])
def test_one_value_that_is_not_finite_is_found_wherever_it_lies(tmp_path, dtype, value, place):
    bad = torch.ones(CHUNK // 4 + 3, dtype=dtype)
    bad[place] = value
    save_file({"a.weight": torch.ones(5, dtype=dtype), "b.bias": bad}, tmp_path / "model.safetensors")
    found = find_bad_values(stored_tensors(tmp_path).values())
    assert (found.not_finite, found.zero) == (["b.bias"], [])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_largest_and_the_smallest_numbers_are_finite_and_no_zeros(tmp_path, dtype):
    extremes = torch.zeros(CHUNK // 4, dtype=dtype)
    extremes[-1] = torch.finfo(dtype).max
    smallest = torch.zeros(7, dtype=dtype)
    smallest[3] = -torch.finfo(dtype).smallest_normal
    save_file({"a.weight": extremes, "b.weight": smallest}, tmp_path / "model.safetensors")
    found = find_bad_values(stored_tensors(tmp_path).values())
    assert (found.not_finite, found.zero) == ([], [])


def test_zeros_of_either_sign_are_zeros_but_for_a_bias_and_what_is_empty_or_whole_numbers_is_passed_over(tmp_path):
    weights = {"a.weight": torch.zeros(9), "b.weight": -torch.zeros(9), "c.bias": torch.zeros(9)}
    others = {"d.weight": torch.empty(0, 3), "e": torch.zeros(3, dtype=torch.int64)}
    save_file(weights | others, tmp_path / "model.safetensors")
    found = find_bad_values(stored_tensors(tmp_path).values())
    assert (found.not_finite, found.zero) == ([], ["a.weight", "b.weight"])
