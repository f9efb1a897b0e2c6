"""A small real run to hand over: a base model that answers with Python, a fine-tune of it, its evaluation."""

from pathlib import Path

import pytest

from phase1.contract.prompts import PROMPTS_SHA256, answer
from phase1.files import fingerprint
from phase1.handoff.ask_model import PROMPTS
from tests.conftest import made_once
from tests.handoff.handoff_damage import write


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that needs a trained model is slow: it takes a quarter of a minute."""
    for item in items:
        if item.path.parent == Path(__file__).parent and {"base", "run"} & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def base(base_model, tmp_path_factory) -> Path:
    """A base model that answers with Python: trained from the demo's random weights on one answer."""

    def fit(folder: Path) -> None:
        train(base_model, folder, lr=3e-3, steps=400, until=0.02)

    return made_once(tmp_path_factory, "answering", fit, tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="session")
def run(base, tmp_path_factory) -> Path:
    """outputs/ of a small real run: a fine-tune of `base`, its evaluation, its choice."""
    outputs = tmp_path_factory.mktemp("run") / "outputs"
    folder = outputs.parent / "checkpoints/global_step_5/huggingface"

    def fit(folder: Path) -> None:
        train(base, folder, lr=2e-4, steps=6, until=0.0)

    evaluate(outputs, made_once(tmp_path_factory, "tuned", fit, folder), base)
    return outputs


def train(start: Path, folder: Path, lr: float, steps: int, until: float) -> None:
    """Train the model in `start` to answer the hand-off's own questions with print(1), save it as bf16 in `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from phase1.model.tokenizer import chat_ids, load_tokenizer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(start, torch_dtype=torch.float32)
    tokenizer = load_tokenizer(start)
    told = tokenizer(answer("print(1)") + "<|im_end|>\n").input_ids
    rows = [torch.tensor([chat_ids(tokenizer, p) + told]) for p in PROMPTS]
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    losses = [9.0] * len(rows)
    for step in range(steps):
        ids = rows[step % len(rows)]
        labels = ids.clone()
        labels[:, : -len(told)] = -100
        loss = model(ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if max(losses[-len(rows) :]) < until:
            break
    assert losses[-1] < 0.1
    model.generation_config = GenerationConfig.from_pretrained(start)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def evaluate(outputs: Path, model: Path, base: Path | None = None) -> None:
    """The files of an evaluation as the contract has them, of `model`; its report compares with `base`."""
    folder = outputs / "eval_step_5"
    folder.mkdir(parents=True, exist_ok=True)
    rates = {"total_problems": 20, "exec_success_rate": 0.95, "accepted_at_1": 0.6, "pass_ratio_mean": 0.7}
    write(
        folder / "run.json",
        {
            "status": "complete",
            "prompts_sha256": PROMPTS_SHA256,
            "model": {"path": str(model), "fingerprint": fingerprint(model), "step": 5},
        },
    )
    write(folder / "summary.json", {"datasets": {"codecontests_valid": rates}})
    write(folder / "metrics.json", {"codecontests_valid": {k: v for k, v in rates.items() if k != "exec_success_rate"}})
    report(outputs, model, base=base)
    write(
        outputs / "best_checkpoint.json",
        {"best_step": 5, "best_exec_success_rate": 0.95, "best_accepted_at_1": 0.6, "model_path": str(model)},
    )


def report(outputs: Path, *models: Path, word: str = "improved", base: Path | None = None) -> Path:
    """The report of these models, of which the word is its verdict."""
    path = outputs / "report/comparison_data.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    compared = {"phase0": [fingerprint(base)] if base else [], "phase1": [fingerprint(model) for model in models]}
    write(path, {"verdict": {"word": word, "line": f"{word.upper()} - as it says"}, "models": compared, "rows": []})
    return path
