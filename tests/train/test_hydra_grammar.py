"""Hydra's grammar: any text survives it."""

import pytest

from phase1.files import BadInput
from phase1.train.hydra_grammar import hydra_text, parse_override

HOSTILE = [
    "/a/phase_1_ SFT/x",
    "a=b",
    "a,b",
    "a, b",
    "it's",
    'a"b',
    "'quoted'",
    "back\\slash",
    "trail\\",
    "a\\'b",
    "${oc.env:HOME}",
    "\\${x}",
    "1e3",
    "12",
    "true",
    "null",
    " lead",
    "trail ",
    "~/x",
    "a#b",
    "{a:1}",
    "[a]",
    "(x)",
    "a:b",
    "é 漢",
    "a\tb",
    "%s $HOME",
    "nan",
    "@x",
    "a;b&c|d",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_of_any_shape_survives_hydras_grammar(text):
    from omegaconf import OmegaConf

    value = parse_override(f"key={hydra_text(text)}")["key"]
    assert OmegaConf.create({"key": value}).key == text


@pytest.mark.parametrize(
    "text", ["/a/phase_1_ SFT/x", "Qwen/Qwen2.5-Coder-7B-Instruct", "/data/sft_train.parquet", "a b"]
)
def test_a_text_that_hydra_reads_as_it_stands_is_not_quoted(text):
    assert hydra_text(text) == text


def test_parse_override_reads_deletions_and_refuses_sweeps():
    assert parse_override("~trainer.logger") == {}
    with pytest.raises(BadInput, match="sweep"):
        parse_override("optim.lr=1,2")
