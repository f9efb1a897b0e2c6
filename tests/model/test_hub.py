"""phase1/model/hub.py: a model's directory by its name, as huggingface_hub itself finds it."""

import pytest
from huggingface_hub import constants, snapshot_download

from phase1.files import BadInput
from phase1.model.hub import cached_model, local_model

NAME = "owner/model"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The Hugging Face cache with one model, in the layout that huggingface_hub writes."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    home = tmp_path / "models--owner--model"
    for folder in ("refs", "snapshots/abc", "blobs"):
        (home / folder).mkdir(parents=True)
    (home / "refs/main").write_text("abc")
    (home / "snapshots/abc/config.json").write_text("{}")
    return tmp_path


def test_a_model_of_the_hub_is_where_huggingface_hub_finds_it(cache):
    expected = snapshot_download(NAME, local_files_only=True, cache_dir=cache)
    assert str(cached_model(NAME)) == str(local_model(NAME)) == expected


def test_a_directory_is_itself(tmp_path):
    assert cached_model(str(tmp_path)) == local_model(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["owner/other", "model", "/no/such/folder", "./owner/model", "a/b/c"])
def test_what_is_neither_is_told_in_one_line(cache, name):
    assert cached_model(name) is None
    with pytest.raises(BadInput, match="neither a directory nor a Hub model that is here; .*hf download"):
        local_model(name)


def test_where_small_files_cannot_be_had_the_line_says_to_check_name_and_network(cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match="check name and network"):
        local_model("owner/other", download_small_files=True)
