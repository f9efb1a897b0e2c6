"""A place for the evaluator to work in."""

import pytest

from tests.checkpoints.made import Place


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)
