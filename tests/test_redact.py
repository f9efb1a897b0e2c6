"""Secrets in arguments and URLs do not reach a result file; everything else does."""

import json
import sys

import pytest

from phase1.files import BadInput, run_stamp
from phase1.generate.settings import BackendSettings
from phase1.generate.vllm_backend import from_settings
from phase1.redact import redacted


@pytest.mark.parametrize(
    "value",
    [
        "http://user:S3CRET@host:8000/v1",
        "http://S3CRET@host/run_code",
        "http://host/v1?api_key=S3CRET&x=1",
        "--enforce-eager --api-key S3CRET",
        "--api-key=S3CRET",
        ["--api-key", "S3CRET"],
        ["--hf_token", "S3CRET", "--x"],
        ["a", ("--password", "S3CRET")],
        "--token S3CRET",
        "--api-keys S3CRET",
        "http://host/v1?token=S3CRET",
        "http://host/v1?x=1&key=S3CRET",
        "http://host/#access_token=S3CRET",
        "HF_TOKEN=S3CRET",
        "WANDB_API_KEY=S3CRET",
        "+trainer.api_key=S3CRET",
        "api_key=['S3CRET', 'S3CRET']",
        '{"api_key": "S3CRET", "x": 1}',
        "Authorization: Bearer S3CRETS3CRET",
        "hf_S3CRETabcdefghijklmnop",
        {"api_key": "S3CRET"},
        {"wandb_api_key": "S3CRET", "nested": [{"HF-TOKEN": "S3CRET"}]},
        {"trainer.password": "S3CRET"},
        {"url": ["https://a:S3CRET@b", "https://c"]},
    ],
    ids=str,
)
def test_a_secret_is_hidden(value):
    assert "S3CRET" not in json.dumps(redacted(value)) and "***" in json.dumps(redacted(value))


@pytest.mark.parametrize(
    "value",
    [
        "http://host:8000/v1",
        "user@example.org",
        ["--max_new_tokens", "5", "--tokenizer", "x", "--key", "y"],
        "--max_new_tokens 5 --tokenizer x",
        "http://host/v1?max_tokens=5&keys=2",
        "data.prompt_key=messages tokens=5 eos_token: <|im_end|>",
        "a bearer of news, a basic idea",
        "sk-learn and hf_xet",
        {"eos_token": "<|im_end|>", "prompt_key": "messages", "max_token_len": 5, "api_key": None, "secrets": 3},
        5,
        None,
        1.5,
        [True],
    ],
    ids=str,
)
def test_what_is_no_secret_stays(value):
    assert redacted(value) == value


def test_a_stamp_holds_no_secret(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x.py", "--sandbox_url", "http://u:S3CRET@h", "--api-key", "S3CRET"])
    assert "S3CRET" not in json.dumps(
        run_stamp({"sandbox_url": ["http://u:S3CRET@h"], "vllm_args": "--api-key S3CRET"})
    )


@pytest.mark.parametrize(
    "given",
    [{"vllm_args": "--api-key S3CRET"}, {"vllm_args": "--api-key=S3CRET"}, {"vllm_url": ("http://u:S3CRET@h:1",)}],
    ids=str,
)
def test_a_secret_for_vllm_is_refused_and_not_repeated(given, tmp_path):
    with pytest.raises(BadInput, match="VLLM_API_KEY") as e:
        from_settings(BackendSettings(model_path=tmp_path, log_dir=tmp_path, **given))
    assert "S3CRET" not in str(e.value)
