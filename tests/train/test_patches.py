"""patches/apply_verl_patch.py on a copy of the installed verl's trainer; the installed one is never touched."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phase1.files import sha256_file

ROOT = Path(__file__).resolve().parents[2]
APPLIER = ROOT / "patches" / "apply_verl_patch.py"
PATCH = ROOT / "patches" / "verl-0.7.0-grad_norm.patch"
ORIGINAL_SHA256 = "d63f57ae240464b309413b2fd0caa3f6d06ce9536ac4889e8e06a4bf245f1fcf"  # as released


def apply(*args: object, **environ: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, APPLIER, *map(str, args)], capture_output=True, text=True, env={**os.environ, **environ}
    )


@pytest.fixture
def verl_dir(tmp_path) -> Path:
    """A folder with verl 0.7.0's version file and its unpatched trainer."""
    spec = importlib.util.find_spec("verl")
    if spec is None:
        pytest.skip("verl is not installed")
    installed = Path(next(iter(spec.submodule_search_locations)))
    folder = tmp_path / "verl"
    for name in ("version/version", "trainer/fsdp_sft_trainer.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(installed / name, folder / name)
    assert apply("--revert", "--verl_dir", folder).returncode == 0  # the set-up may have patched the installed one
    return folder


def trainer(verl_dir: Path) -> Path:
    return verl_dir / "trainer" / "fsdp_sft_trainer.py"


def logged_keys(file: Path) -> set[str]:
    step = next(
        n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.FunctionDef) and n.name == "training_step"
    )
    returned = next(n.value for n in ast.walk(step) if isinstance(n, ast.Return))
    return {k.value for k in returned.keys}


def test_patch_adds_the_norm_to_the_dict_of_training_step_and_nothing_else(verl_dir):
    before = logged_keys(trainer(verl_dir))
    assert apply("--verl_dir", verl_dir).returncode == 0
    assert logged_keys(trainer(verl_dir)) - before == {"train/grad_norm"}


def test_check_changes_nothing_and_tells_patched_from_unpatched(verl_dir):
    done = apply("--check", "--verl_dir", verl_dir)
    assert done.returncode == 1 and "NOT patched" in done.stdout and "apply_verl_patch.py" in done.stdout
    assert sha256_file(trainer(verl_dir)) == ORIGINAL_SHA256
    apply("--verl_dir", verl_dir)
    assert apply("--check", "--verl_dir", verl_dir).returncode == 0


def test_applying_twice_is_applying_once(verl_dir):
    apply("--verl_dir", verl_dir)
    once = trainer(verl_dir).read_bytes()
    again = apply("--verl_dir", verl_dir)
    assert again.returncode == 0 and "already" in again.stdout
    assert trainer(verl_dir).read_bytes() == once


def test_revert_restores_bytes_and_mode_and_may_be_repeated(verl_dir):
    trainer(verl_dir).chmod(0o640)
    apply("--verl_dir", verl_dir)
    for _ in range(2):
        assert apply("--revert", "--verl_dir", verl_dir).returncode == 0
        assert sha256_file(trainer(verl_dir)) == ORIGINAL_SHA256
    assert trainer(verl_dir).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("action", [(), ("--check",), ("--revert",)])
def test_a_file_of_unknown_content_is_named_and_left_alone(verl_dir, action):
    file = trainer(verl_dir)
    file.write_bytes(file.read_bytes() + b"# a local change\n")
    before = file.read_bytes()
    done = apply(*action, "--verl_dir", verl_dir)
    assert done.returncode == 2 and str(file) in done.stderr and len(done.stderr.splitlines()) == 1
    assert file.read_bytes() == before


@pytest.mark.parametrize("version", ["0.7.1", "0.9.1", "0.8.0.dev0"])
@pytest.mark.parametrize("action", [(), ("--check",), ("--revert",)])
def test_later_versions_need_nothing(verl_dir, version, action):
    (verl_dir / "version" / "version").write_text(version)
    trainer(verl_dir).unlink()  # they have no such file
    done = apply(*action, "--verl_dir", verl_dir)
    assert done.returncode == 0 and "nothing is needed" in done.stdout


@pytest.mark.parametrize("version", ["0.6.1", "0.5.0", "not a version"])
def test_other_versions_are_refused(verl_dir, version):
    (verl_dir / "version" / "version").write_text(version)
    assert apply("--verl_dir", verl_dir).returncode == 2
    assert sha256_file(trainer(verl_dir)) == ORIGINAL_SHA256


def test_a_hard_linked_original_in_an_installers_cache_stays_as_it_is(verl_dir, tmp_path):
    cached = tmp_path / "cached.py"
    cached.hardlink_to(trainer(verl_dir))
    apply("--verl_dir", verl_dir)
    assert sha256_file(cached) == ORIGINAL_SHA256 != sha256_file(trainer(verl_dir))


def test_without_verl_dir_the_importable_verl_is_patched_without_importing_it(verl_dir):
    (verl_dir / "__init__.py").write_text("raise SystemExit('imported')")
    done = apply(PYTHONPATH=str(verl_dir.parent))
    assert done.returncode == 0 and str(trainer(verl_dir)) in done.stdout
    assert "train/grad_norm" in trainer(verl_dir).read_text()


def test_the_patch_is_a_unified_diff_that_other_tools_apply_to_the_same_bytes(verl_dir, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(verl_dir, other / "verl")
    subprocess.run(
        ["git", "apply", PATCH], cwd=other, check=True, env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path)}
    )
    apply("--verl_dir", verl_dir)
    assert trainer(other / "verl").read_bytes() == trainer(verl_dir).read_bytes()
