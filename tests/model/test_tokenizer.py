"""Loading a model directory's tokenizer, and what its chat template makes of a problem."""

import json
import shutil
import subprocess
import sys

import pytest

from phase1.contract.prompts import answer, chat
from phase1.files import BadInput
from phase1.model.tokenizer import (
    chat_ids,
    chat_text,
    check_template,
    compare_with_base,
    load_chat_tokenizer,
    load_fast_tokenizer,
    load_tokenizer,
    lost_in_round_trip,
    refuse_newer_tokenizer,
    template_sha256,
)
from tests.conftest import ROOT

CODE = "n = int(input())\nprint(n)"


@pytest.fixture
def copy(base_model, tmp_path):
    return shutil.copytree(base_model, tmp_path / "copy")


@pytest.fixture(scope="module")
def tokenizer(base_model):
    return load_chat_tokenizer(base_model)


def test_text_and_ids_are_what_transformers_renders(base_model, tokenizer):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(base_model)
    assert chat_text(tokenizer, "Count.") == theirs.apply_chat_template(
        chat("Count."), tokenize=False, add_generation_prompt=True
    )
    row = theirs.apply_chat_template(chat("Count.", answer(CODE)), return_dict=True)
    assert chat_ids(tokenizer, "Count.", answer(CODE)) == row["input_ids"]


def test_the_fast_tokenizer_gives_the_same_ids(base_model, tokenizer):
    fast = load_fast_tokenizer(base_model).encode_batch_fast([CODE], add_special_tokens=False)[0]
    assert fast.ids == tokenizer(CODE, add_special_tokens=False).input_ids


@pytest.mark.slow
def test_without_torch_the_ids_are_the_same_and_torch_is_not_imported(base_model, tokenizer):
    program = (
        "import json, sys; from pathlib import Path; from phase1.model import tokenizer as t\n"
        "with t.without_torch(): tokenizer = t.load_chat_tokenizer(Path(sys.argv[1]))\n"
        "ids = t.chat_ids(tokenizer, sys.argv[2], sys.argv[3])\n"
        "print(json.dumps([ids, tokenizer.decode(ids), t.lost_in_round_trip(tokenizer), 'torch' in sys.modules]))"
    )
    command = [sys.executable, "-c", program, str(base_model), "Zähle 数\n", CODE]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0 and not run.stderr, run.stderr
    ids = chat_ids(tokenizer, "Zähle 数\n", CODE)
    assert json.loads(run.stdout) == [ids, tokenizer.decode(ids), lost_in_round_trip(tokenizer), False]


@pytest.mark.parametrize("load", [load_tokenizer, load_chat_tokenizer, load_fast_tokenizer])
def test_a_torn_tokenizer_is_one_line_that_names_its_folder(load, copy):
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(BadInput, match=f"^{copy}.*cannot be loaded.*base model") as e:
        load(copy)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("load", [load_tokenizer, load_fast_tokenizer])
def test_an_empty_folder_has_no_tokenizer(load, tmp_path):
    with pytest.raises(BadInput, match="cannot be loaded"):
        load(tmp_path)


def test_a_tokenizer_without_a_template_is_no_chat_tokenizer(copy):
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    (copy / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    load_tokenizer(copy)
    with pytest.raises(BadInput, match="no chat template"):
        load_chat_tokenizer(copy)


def test_a_template_that_opens_an_answer_in_evaluation_alone_is_refused(copy):
    changed = load_chat_tokenizer(copy)
    check_template(changed, copy)
    changed.chat_template += "{% if add_generation_prompt %}<think>{% endif %}"
    with pytest.raises(BadInput, match="opens an answer otherwise"):
        check_template(changed, copy)


def test_templates_are_compared_by_what_they_render(base_model, copy):
    changed = load_chat_tokenizer(copy)
    changed.chat_template = "{# a comment #}" + changed.chat_template
    compare_with_base(changed, copy, base_model)
    changed.chat_template += " "
    assert template_sha256(changed) != template_sha256(load_chat_tokenizer(base_model))
    with pytest.raises(BadInput, match="renders other text"):
        compare_with_base(changed, copy, base_model)


TRANSFORMERS_5 = {
    "its class": {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers"},
    "its list": {"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]},
}


@pytest.mark.parametrize("written", TRANSFORMERS_5.values(), ids=TRANSFORMERS_5)
def test_a_tokenizer_that_only_transformers_5_reads_is_refused_where_transformers_itself_fails(copy, written):
    from transformers import AutoTokenizer

    path = copy / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.pop("additional_special_tokens", None)
    path.write_text(json.dumps(settings | written))
    try:
        AutoTokenizer.from_pretrained(str(copy))
    except Exception:
        with pytest.raises(BadInput, match=r"tokenizer_config\.json: has .* the form of transformers 5"):
            refuse_newer_tokenizer(copy)
        with pytest.raises(BadInput, match="the form of transformers 5"):
            load_tokenizer(copy)
    else:
        refuse_newer_tokenizer(copy)
        load_tokenizer(copy)
