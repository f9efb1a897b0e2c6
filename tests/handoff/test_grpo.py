"""grpo_model.yaml, read back."""

from phase1.handoff.grpo import grpo_yaml
from tests.conftest import ROOT


def test_the_configuration_survives_a_path_with_quotes_and_spaces(tmp_path):
    import yaml

    odd = tmp_path / 'phase 1 "é"'
    assert yaml.safe_load(grpo_yaml(odd, ROOT))["actor_rollout_ref"]["model"]["path"] == str(odd)
