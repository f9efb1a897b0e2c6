"""phase1/model/hub.py: a model's directory by its name, as huggingface_hub itself finds it."""

import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub import constants, snapshot_download

from phase1.files import BadInput
from phase1.model.hub import cached_model, local_model
from tests.conftest import ROOT

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


ASK = """
import sys
from huggingface_hub import constants
from phase1.files import BadInput
from phase1.model.hub import refuse_no_download
for constants.ENDPOINT in sys.argv[1:]:
    try:
        refuse_no_download("owner/model")
        print("given")
    except BadInput as e:
        print(e)
"""


@pytest.fixture
def hubs():
    """A server for each of these answers to every request; where it is None nobody listens."""
    servers = []

    def addresses(*answers):
        for status in answers:
            methods = {"do_GET": lambda self, status=status: self.send_error(status), "log_message": lambda *_: None}
            servers.append(HTTPServer(("127.0.0.1", 0), type("Hub", (BaseHTTPRequestHandler,), methods)))
            if status is None:
                servers[-1].server_close()
            else:
                threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return [f"http://127.0.0.1:{server.server_port}" for server in servers]

    yield addresses
    for server in servers:
        server.server_close()


def test_a_download_that_cannot_be_is_told_before_anything_waits_for_it(hubs):
    """Asked in a process of its own: this one is offline, which huggingface_hub reads when it is imported."""
    online = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"} | {"NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", ASK, *hubs(None, 404, 401, 500)]
    began = time.monotonic()
    done = subprocess.run(command, env=online, cwd=ROOT, capture_output=True, text=True, check=True)
    dead, unknown, private, busy = done.stdout.splitlines()
    assert "does not answer" in dead and "check the network" in dead and time.monotonic() - began < 60
    assert "(404); check its name" in unknown and "(401)" in private and busy == "given"
    assert all("owner/model is not on this machine, and the " in line for line in (dead, unknown, private))
