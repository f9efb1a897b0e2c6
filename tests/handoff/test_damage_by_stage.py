"""Which stage sees which kind of damage, before it loads a weight: the table of docs/05, kind by kind."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from phase1.checkpoints.find import look_at
from phase1.files import BadInput
from phase1.train.preflight.model import model as preflight_of_the_model
from tests.conftest import ROOT
from tests.evaluate.running import run_eval, write_train_run
from tests.handoff.handoff_damage import DAMAGE
from tests.train.sft_runs import job_of

NO_SERVER = "http://127.0.0.1:9"  # nothing listens there: an evaluation that gets so far has found nothing
Seen = Literal["refused", "warned", "-"]


@dataclass(frozen=True)
class Stages:
    """What each stage says of a kind of damage.

    Attributes:
        train: run_sft.sh, of a base model.
        night: run_eval_checkpoints.sh at its first look, from headers; else its phase1_eval.py says what `evaluate` is.
        evaluate: phase1_eval.py, of a checkpoint whose train_run.json names the base model.
    """

    train: Seen
    night: Seen
    evaluate: Seen


EVERYWHERE = Stages("refused", "refused", "refused")
ON_READING = Stages("refused", "-", "refused")  # the first look of the night reads headers alone
DOUBTED = Stages("warned", "-", "warned")
AGAINST_BASE = Stages("-", "-", "refused")  # a base model has none to be compared with
RENDERED = Stages("-", "-", "refused")  # templates are rendered by transformers, which the preflight does without
# Every other kind of DAMAGE is refused everywhere.
LESS: dict[str, Stages] = {
    "fp16 under a bf16 label": DOUBTED,
    "mixed dtypes": DOUBTED,
    "contradicting dtypes": DOUBTED,
    "all zeros": DOUBTED,
    "an untied second head": ON_READING,
    "NaN": ON_READING,
    "infinity": ON_READING,
    "rope forms disagree": ON_READING,
    "no template": ON_READING,
    "tokenizer torn": ON_READING,
    "rope_theta lost": Stages("refused", "-", "warned"),  # refused with the transformers backend, if that is version 4
    "rope_theta changed": AGAINST_BASE,
    "other norm epsilon": AGAINST_BASE,
    "tokens swapped": AGAINST_BASE,
    "characters lost": AGAINST_BASE,
    "template differs": AGAINST_BASE,
    "evaluation asks otherwise than training": ON_READING,
    "answers never end": ON_READING,
    "template does not parse": RENDERED,
    "eos is another token": Stages("-", "-", "warned"),
    "never trained": Stages("-", "-", "-"),  # a sound model, whose numbers are its own: the hand-off asks for training
}


def stages(kind: str) -> Stages:
    return LESS.get(kind, EVERYWHERE)


@dataclass(frozen=True)
class Place:
    """A checkpoint as training leaves it, and what the stages need to look at it."""

    checkpoints: Path
    model: Path
    base: Path


@pytest.fixture
def place(run, base, tmp_path) -> Place:
    step = tmp_path / "ck" / "global_step_5"
    step.mkdir(parents=True)
    model = shutil.copytree(run.parent / "checkpoints/global_step_5/huggingface", step / "huggingface")
    write_train_run(step.parent, base)
    return Place(step.parent, Path(model), base)


def evaluated(place: Place, tmp_path: Path, *flags: object) -> Seen:
    """What phase1_eval.py says before it asks a server."""
    where = ["--checkpoint_dir", place.checkpoints, "--step", 5, "--output_dir", tmp_path / "eval"]
    done = run_eval(*where, *(flags or ("--vllm_url", NO_SERVER)))
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: "), done.said
    if NO_SERVER not in done.stderr.splitlines()[-1]:
        assert str(place.model) in done.stderr.splitlines()[-1]
        return "refused"
    # The embedded sets warn of their own size; a warning about the model names its folder.
    doubts = [line for line in done.stderr.splitlines() if line.startswith("warning: ") and str(place.model) in line]
    return "warned" if doubts else "-"


def preflight(env: dict[str, str], model: Path) -> Seen:
    try:
        outcome = preflight_of_the_model(job_of(env | {"MODEL_PATH": str(model)}))
    except BadInput as e:
        assert str(model) in str(e)
        return "refused"
    return "warned" if outcome.status == "warn" else "-"


@pytest.mark.parametrize("kind", DAMAGE)
def test_each_stage_says_what_the_table_says(place, env, tmp_path, kind):
    DAMAGE[kind][0](place.model, place.base)
    night: Seen = "refused" if look_at(5, place.model.parent).problem else "-"
    flags = ["--backend", "transformers"] if kind == "no weights" else []  # running servers may hold them elsewhere
    found = Stages(preflight(env, place.model), night, evaluated(place, tmp_path, *flags))
    assert found == stages(kind)


def test_a_sound_model_is_let_through_by_every_stage(place, env, tmp_path):
    night: Seen = "refused" if look_at(5, place.model.parent).problem else "-"
    assert Stages(preflight(env, place.model), night, evaluated(place, tmp_path)) == Stages("-", "-", "-")


def test_a_rope_theta_that_this_pythons_transformers_would_not_read_is_refused(place, tmp_path):
    DAMAGE["rope_theta lost"][0](place.model, place.base)
    assert evaluated(place, tmp_path, "--backend", "transformers") == "refused"


def test_no_kind_of_damage_is_silent_until_the_hand_off_but_a_model_that_was_never_trained():
    silent = [kind for kind in DAMAGE if stages(kind) == Stages("-", "-", "-")]
    assert silent == ["never trained"] and LESS.keys() <= DAMAGE.keys()


def table() -> str:
    """The table of docs/05."""
    lines = [
        "| damage | `run_sft.sh` | `run_eval_checkpoints.sh`, first look | `phase1_eval.py` | `verify_handoff.py` |",
        "|---|---|---|---|---|",
    ]
    for kind, (_, check, _) in DAMAGE.items():
        s = stages(kind)
        lines.append(f"| {kind} | {s.train} | {s.night} | {s.evaluate} | `{check.__name__.removeprefix('check_')}` |")
    return "\n".join(lines)


def test_the_table_of_the_hand_offs_page_is_this_one():
    assert table() in (ROOT / "docs/05_end_of_phase_and_grpo_handoff.md").read_text()
