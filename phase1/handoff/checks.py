"""The checks of the hand-off: each reads the model directory itself and returns a verdict with its evidence.

A check `fail`s where Phase 3 would train or serve something other than what Phase 1 measured, `warn`s where it would
merely cost something or where the check could not be run; the evidence says which. None runs the model's output.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from phase1.contract.prompts import PROMPTS_SHA256, chat, extract_code, user_message
from phase1.contract.records import read_records
from phase1.files import BadInput, fingerprint, read_json, sha256_file
from phase1.model.tensors import (
    Source,
    first_difference,
    read_safetensors,
    side_by_side,
)
from phase1.model.tokenizer import TOKENIZER_FILES, load_tokenizer
from phase1.model.weight_files import read_header, weight_files

MAX_MODEL_LEN = 6144  # what evaluation and the seed's vLLM command ask for
# Asked of the model where no evaluation is at hand; one problem a test type.
PROMPTS = (
    user_message("codecontests", "Read two integers a and b from one line and print their sum."),
    user_message("humaneval", 'def add(a: int, b: int) -> int:\n    """Return the sum of a and b."""\n'),
    user_message("mbpp", "Write a function to return the larger of two numbers.", "larger", "larger(1, 2)"),
)
ROUND_TRIP = (
    "class Node:\n    N = 10**9 + 7\n",
    "def f(x):\n    return x + 1\n",
    "print('héllo, 世界 🙂')\n\tif a<=b: pass",
    "<code>\nn = int(input())\n</code>",
    "  a  b\r\n\n\nc ",
)


@dataclass
class Check:
    """One line of the verdict. `status` is pass, warn or fail; `data` goes into handoff.json."""

    name: str
    status: str
    evidence: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass
class Handoff:
    """What is verified: the model directory, and what it is compared with, where given."""

    model: Path
    base: Path | None = None
    evaluation: Path | None = None  # outputs/eval_step_N
    best: dict | None = None  # best_checkpoint.json
    weights: dict[str, Source] = field(default_factory=dict)
    answers: list[tuple[str, str]] = field(
        default_factory=list
    )  # (question, transformers' greedy answer), for vLLM's to be compared with

    @property
    def config(self) -> dict:
        return read_json(self.model / "config.json")


def verdict(name: str, failures: list[str], warnings: list[str], evidence: str, **data: Any) -> Check:
    """The worst of what was found; the evidence of a sound check is what was read."""
    status = "fail" if failures else "warn" if warnings else "pass"
    return Check(name, status, "; ".join([*failures, *warnings]) or evidence, data)


# ------------------------------------------------------------------------------------------------------------ files
def check_files(h: Handoff) -> Check:
    """Everything a reader needs is there, and is JSON where it must be."""
    present = sorted(p.name for p in h.model.iterdir() if p.is_file())
    failures = [f"no {n}" for n in ("config.json", "tokenizer_config.json") if n not in present]
    if not any(n in present for n in TOKENIZER_FILES):
        failures.append("no tokenizer.json")
    for name in (n for n in present if n.endswith(".json")):
        try:
            read_json(h.model / name)
        except BadInput as e:
            failures.append(str(e))
    if not any(n.endswith(".safetensors") for n in present):
        failures.append("no safetensors weights")
    warnings = (
        []
        if "generation_config.json" in present
        else ["no generation_config.json: the end-of-text ids of the base model are lost"]
    )
    warnings += [
        f"{n} beside the safetensors: readers may take either"
        for n in present
        if re.fullmatch(r"pytorch_model.*\.bin", n)
    ]
    return verdict("files", failures, warnings, f"{len(present)} files", files=present)


def check_index(h: Handoff) -> Check:
    """Headers and sizes of the weight files, the index against them, and their hashes."""
    files = weight_files(h.model)
    held = {name: p.name for p in files for name in read_header(p)}
    h.weights = read_safetensors(h.model)
    failures = []
    index = h.model / "model.safetensors.index.json"
    if index.exists():
        mapped = read_json(index)["weight_map"]
        odd = sorted(n for n in set(mapped) | set(held) if mapped.get(n) != held.get(n))
        failures += (
            [f"{index.name} and the files disagree on {odd[0]}" + f" and {len(odd) - 1} more" * (len(odd) > 1)]
            if odd
            else []
        )
    stray = sorted(p.name for p in h.model.glob("*.safetensors") if p not in files)
    warnings = [f"{stray[0]} is named by no index"] if stray else []
    hashes = {p.name: sha256_file(p) for p in sorted(h.model.iterdir()) if p.is_file()}
    size = sum(p.stat().st_size for p in files)
    return verdict(
        "weights_index",
        failures,
        warnings,
        f"{len(held)} tensors, {len(files)} files, {size / 1e9:.3f} GB",
        sha256=hashes,
    )


def check_dtype(h: Handoff) -> Check:
    """The dtype on disk against the one config.json tells readers."""
    stated = {h.config[k] for k in ("dtype", "torch_dtype") if h.config.get(k)}
    on_disk = sorted({str(s.dtype).removeprefix("torch.") for s in h.weights.values() if s.dtype.is_floating_point})
    size = sum(s.numel * s.dtype.itemsize for s in h.weights.values())
    failures, warnings = [], []
    if len(stated) > 1:
        failures.append(f"config.json says both {' and '.join(sorted(stated))}")
    if len(on_disk) > 1:
        failures.append(f"weights of several dtypes: {', '.join(on_disk)}")
    if not stated:
        warnings.append("config.json names no dtype: readers take float32")
    elif on_disk and on_disk[0] not in stated:
        text = f"{on_disk[0]} on disk ({size / 1e9:.2f} GB), {min(stated)} in config.json"
        # fp32 masters under a bf16 label are read as bf16, which is what evaluation did: right, but twice the size
        fits = on_disk == ["float32"] and stated == {"bfloat16"}
        (warnings if fits else failures).append(text + ("; convert_fsdp_to_hf.py --slim halves it" if fits else ""))
    return verdict(
        "dtype",
        failures,
        warnings,
        f"{', '.join(on_disk)} on disk and in config.json",
        on_disk=on_disk,
        stated=sorted(stated),
    )


def check_parameters(h: Handoff) -> Check:
    """Names and shapes are those of the architecture that config.json describes; the parameter count."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(h.model))
    except Exception as e:  # whatever transformers makes of a broken config
        return Check(
            "parameters",
            "fail",
            f"transformers cannot build the model: {(str(e).splitlines() or [type(e).__name__])[0]}",
        )
    want = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    tied = bool(h.config.get("tie_word_embeddings"))
    have = {n: s.shape for n, s in h.weights.items()}
    needed = set(want) - ({"lm_head.weight"} if tied else set())
    failures = [f"{n} is missing" for n in sorted(needed - set(have))[:2]]
    failures += [f"{n} is not of this architecture" for n in sorted(set(have) - set(want))[:2]]
    failures += [
        f"{n} is {have[n]}, the config says {want[n]}" for n in sorted(set(have) & set(want)) if have[n] != want[n]
    ][:2]
    warnings = []
    if tied and "lm_head.weight" in have and "model.embed_tokens.weight" in have:
        pair = h.weights["lm_head.weight"], h.weights["model.embed_tokens.weight"]
        if first_difference(*pair, pair[0].dtype):
            failures.append("lm_head.weight differs from the embedding it is tied to: readers drop what was trained")
        else:
            warnings.append(
                "a second copy of the tied embedding as lm_head.weight; convert_fsdp_to_hf.py --slim drops it"
            )
    count = sum(p.numel() for p in model.parameters())
    return verdict(
        "parameters",
        failures,
        warnings,
        f"{count:,} parameters, {len(have)} tensors as the config says",
        parameters=count,
    )


def check_values(h: Handoff) -> Check:
    """No NaN, no infinity, no tensor of zeros alone (biases may be zero: fresh models start so)."""
    bad, zero = [], []
    for name, source in h.weights.items():
        any_nonzero = False
        for chunk in source.chunks():
            if not torch.isfinite(chunk).all():
                bad.append(name)
                break
            any_nonzero = any_nonzero or bool((chunk != 0).any())
        else:
            if not any_nonzero and not name.endswith(".bias"):
                zero.append(name)
    failures = [f"NaN or infinity in {len(bad)} tensors, first {bad[0]}"] if bad else []
    failures += [f"{len(zero)} tensors hold only zeros, first {zero[0]}"] if zero else []
    return verdict("values", failures, [], f"all {len(h.weights)} tensors finite, none all zero")


def check_base_difference(h: Handoff) -> Check:
    """What training moved: the relative change |w - base| / |base| a layer. Identical weights were never trained."""
    if h.base is None:
        return Check("base_difference", "warn", "not run: no --base_model given")
    base = read_safetensors(h.base)
    if not base:
        return Check("base_difference", "warn", f"not run: {h.base} holds no safetensors")
    names = [n for n in h.weights if n in base and not (n == "lm_head.weight" and h.config.get("tie_word_embeddings"))]
    odd = [n for n in names if base[n].shape != h.weights[n].shape]
    if odd or not names:
        return Check(
            "base_difference",
            "fail",
            f"{odd[0]} has another shape than the base model's" if odd else "no tensor in common with the base model",
        )
    groups: dict[str, list[float]] = {}
    moved = 0
    for name in names:
        changed, norm = difference(h.weights[name], base[name])
        moved += changed > 0
        layer = re.search(r"layers\.\d+", name)
        total = groups.setdefault(layer[0] if layer else name, [0.0, 0.0])
        total[0] += changed
        total[1] += norm
    change = {g: math.sqrt(a / b) if b else math.inf for g, (a, b) in groups.items()}
    failures = ["identical to the base model: nothing was trained"] if not moved else []
    warnings = []
    if any(v > 1.0 for v in change.values()):  # training from random weights may, a fine-tune does not
        worst = max(change, key=lambda g: change[g])
        warnings.append(f"{worst} moved by {change[worst]:.1f}x its own norm: hardly a fine-tune of this base model")
    # a norm alone may stand still: its weights lie near 1, where a small step vanishes in bf16
    still = [g for g, v in change.items() if v == 0 and any(g in n and len(h.weights[n].shape) > 1 for n in names)]
    warnings += [f"{len(still)} parts did not move, first {still[0]}"] if still and moved else []
    top = max(change, key=lambda g: change[g])
    return verdict(
        "base_difference",
        failures,
        warnings,
        f"{moved} of {len(names)} tensors moved, most in {top} ({change[top]:.2%} of its norm)",
        relative_change=change,
    )


def difference(a: Source, b: Source) -> tuple[float, float]:
    """(sum of (a - b)^2 at the coarser of the two dtypes, sum of b^2)."""
    coarse = min(a.dtype, b.dtype, key=lambda d: d.itemsize)  # an fp32 base and its bf16 copy are the same model
    changed = norm = 0.0
    for x, y in side_by_side(a, b, coarse):
        x, y = x.float(), y.float()
        changed += float(((x - y).double() ** 2).sum())
        norm += float((y.double() ** 2).sum())
    return changed, norm


# ----------------------------------------------------------------------------------------------- config, tokenizer
def check_config(h: Handoff) -> Check:
    """The fields that GRPO and vLLM read: rope in both forms, end of text, padding, vocabulary, length."""
    config, base = h.config, read_json(h.base / "config.json") if h.base else {}
    tokenizer = load_tokenizer(h.model)
    generation_file = h.model / "generation_config.json"
    generation = read_json(generation_file) if generation_file.exists() else {}
    failures, warnings = [], []
    theta, inner = config.get("rope_theta"), (config.get("rope_parameters") or {}).get("rope_theta")
    if theta is None and config.get("model_type") != "gpt2":
        instead = "" if inner is None else f" instead of {inner:g}; convert_fsdp_to_hf.py --slim writes both forms"
        failures.append(f"no rope_theta: transformers 4 and vLLM read 10000{instead}")
    elif inner is not None and inner != theta:
        failures.append(f"rope_theta {theta:g} but rope_parameters.rope_theta {inner:g}")
    base_theta = base.get("rope_theta") or (base.get("rope_parameters") or {}).get("rope_theta")
    if base_theta is not None and theta is not None and theta != base_theta:
        failures.append(f"rope_theta {theta:g}, the base model's is {base_theta:g}")
    failures += [
        f"{k} {config.get(k)}, the base model's is {base[k]}"
        for k in ("model_type", "rms_norm_eps", "hidden_act", "num_attention_heads")
        if k in base and config.get(k) != base[k]
    ]
    as_list = lambda ids: ids if isinstance(ids, list) else [ids] if ids is not None else []  # noqa: E731
    stops = as_list(generation.get("eos_token_id")) or as_list(config.get("eos_token_id"))
    if tokenizer.eos_token_id is None or tokenizer.eos_token_id not in stops:
        failures.append(
            f"the tokenizer ends answers with id {tokenizer.eos_token_id} ({tokenizer.eos_token}), readers "
            f"stop at {stops}"
        )
    if tokenizer.pad_token_id is None:
        warnings.append("the tokenizer has no pad token: GRPO needs one")
    elif tokenizer.pad_token_id == tokenizer.eos_token_id:
        warnings.append("pad and eos are one token: a loss mask by pad id hides the end of answers")
    embedding = h.weights.get("model.embed_tokens.weight")
    rows = embedding.shape[0] if embedding else config.get("vocab_size")
    if len(tokenizer) > (rows or 0):
        failures.append(f"{len(tokenizer)} tokens, but the embedding has {rows} rows")
    if rows != config.get("vocab_size"):
        failures.append(f"vocab_size {config.get('vocab_size')}, but the embedding has {rows} rows")
    if not config.get("tie_word_embeddings") and h.weights and "lm_head.weight" not in h.weights:
        failures.append("not tied, but there is no lm_head.weight: readers start it at random")
    if (length := config.get("max_position_embeddings") or 0) < MAX_MODEL_LEN:
        warnings.append(
            f"max_position_embeddings {length} is below {MAX_MODEL_LEN}: vLLM refuses the seed's --max-model-len"
        )
    return verdict(
        "config",
        failures,
        warnings,
        f"rope_theta {theta:g}, stops at {stops}, {len(tokenizer)} tokens in {rows} rows" if theta else "",
        rope_theta=theta,
        eos=stops,
        vocabulary=len(tokenizer),
        rows=rows,
    )


def check_tokenizer(h: Handoff) -> Check:
    """Text survives encoding and decoding; special tokens are one id each; ids equal the base model's."""
    tokenizer = load_tokenizer(h.model)
    failures = [
        f"{text!r} comes back as {back!r}"
        for text in ROUND_TRIP
        if (
            back := tokenizer.decode(
                tokenizer(text, add_special_tokens=False).input_ids, clean_up_tokenization_spaces=False
            )
        )
        != text
    ]
    for token in tokenizer.all_special_tokens:
        if len(tokenizer(token, add_special_tokens=False).input_ids) != 1:
            failures.append(f"{token} is several tokens")
    compared = ""
    if h.base:
        base = load_tokenizer(h.base)
        if tokenizer.get_vocab() != base.get_vocab() or any(
            tokenizer(t).input_ids != base(t).input_ids for t in ROUND_TRIP
        ):
            failures.append("encodes text in other ids than the base model's tokenizer")
        compared = ", ids as the base model's"
    return verdict("tokenizer", failures, [], f"{len(ROUND_TRIP)} texts come back unchanged{compared}")


def check_chat_template(h: Handoff) -> Check:
    """The model is asked in the words it was trained on: this template over phase1.contract.prompts, against the base
    model's."""
    tokenizer = load_tokenizer(h.model)
    if not tokenizer.chat_template:
        return Check(
            "chat_template", "fail", "the tokenizer has no chat template: chat requests fail or take another form"
        )
    try:
        asked = [tokenizer.apply_chat_template(chat(p), add_generation_prompt=True, tokenize=False) for p in PROMPTS]
        trained = [tokenizer.apply_chat_template(chat(p, "<code>\npass\n</code>"), tokenize=False) for p in PROMPTS]
    except Exception as e:  # jinja2's own classes, and TypeErrors of what the template does
        return Check("chat_template", "fail", f"the template does not render: {e}")
    failures = (
        []
        if all(t.startswith(a) for a, t in zip(asked, trained, strict=True))
        else ["the prompt that evaluation sends is not how a training row begins"]
    )
    if tokenizer.eos_token and not all(t.rstrip().endswith(tokenizer.eos_token) for t in trained):
        failures.append(f"an answer does not end in {tokenizer.eos_token}")
    warnings = []
    if h.base:
        base = load_tokenizer(h.base)
        if base.chat_template and any(
            base.apply_chat_template(chat(p), add_generation_prompt=True, tokenize=False) != a
            for p, a in zip(PROMPTS, asked, strict=True)
        ):
            failures.append("renders other prompts than the base model's template, which training used")
    else:
        warnings.append("not compared with the base model's: no --base_model given")
    return verdict(
        "chat_template",
        failures,
        warnings,
        "renders training and evaluation prompts alike, as the base model's does",
        prompts_sha256=PROMPTS_SHA256,
    )


# ------------------------------------------------------------------------------------------------------ the real run
GENERATE = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
job = json.load(sys.stdin)
dtype = getattr(torch, job["dtype"])
model, info = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype, output_loading_info=True)
if sum(p.numel() for p in model.parameters()) < 1e8:
    torch.set_num_threads(1)  # for a small model threads cost more than they give, on a busy machine 20 times more
device = "cuda" if torch.cuda.is_available() else "cpu"
model.to(device)
tokenizer = AutoTokenizer.from_pretrained(job["model"])
stops = model.generation_config.eos_token_id
config = GenerationConfig(do_sample=False, max_new_tokens=job["max_new_tokens"], eos_token_id=stops,
                          pad_token_id=tokenizer.pad_token_id)
model.generation_config = config
texts, ended = [], []
for messages in job["chats"]:
    made = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = made["input_ids"].to(device)
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)[0, ids.shape[1]:]
    texts.append(tokenizer.decode(out, skip_special_tokens=True))
    ended.append(len(out) < job["max_new_tokens"])
print(json.dumps({"missing": sorted(info["missing_keys"]), "unexpected": sorted(info["unexpected_keys"]),
                  "mismatched": [str(k) for k in info["mismatched_keys"]],
                  "parameters": sum(p.numel() for p in model.parameters()), "texts": texts, "ended": ended}))
"""


def check_generation(h: Handoff, max_new_tokens: int, timeout: float, dtype: str = "bfloat16") -> tuple[Check, Check]:
    """transformers loads the model in a process of its own and answers greedily; what it answers is Python.

    The questions are those of the checkpoint's evaluation, where one is at hand. Answers are compiled, never run.
    """
    asked = [(r.prompt, r.completion) for r, _ in zip(evaluation_records(h), range(4), strict=False)]
    prompts = [p for p, _ in asked] or list(PROMPTS)
    job = {"model": str(h.model), "chats": [chat(p) for p in prompts], "max_new_tokens": max_new_tokens, "dtype": dtype}
    try:
        done = subprocess.run(
            [sys.executable, "-c", GENERATE], input=json.dumps(job), capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return (
            Check("generation", "fail", f"no answer within {timeout:.0f} s"),
            Check("generated_code", "warn", "not run: no answers"),
        )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["?"])[-1][:300]
        return (
            Check("generation", "fail", f"transformers cannot load or run it: {reason}"),
            Check("generated_code", "warn", "not run: no answers"),
        )
    out = json.loads(done.stdout.splitlines()[-1])
    failures = [
        f"weights {kind}: {out[kind][0]}"
        for kind in ("missing", "unexpected", "mismatched")
        if out[kind]
        and not (kind == "missing" and out[kind] == ["lm_head.weight"] and h.config.get("tie_word_embeddings"))
    ]
    if failures:  # what stands in for them is random, and so is what it answers
        return verdict("generation", failures, [], ""), Check(
            "generated_code", "warn", "not run: transformers filled weights in at random"
        )
    h.answers = list(zip(prompts, out["texts"], strict=True))
    failures += [] if any(t.strip() for t in out["texts"]) else ["every answer is empty"]
    warnings = [] if any(out["ended"]) else [f"no answer ends within {max_new_tokens} tokens"]
    same = sum(a[:200] == b[:200] for a, (_, b) in zip(out["texts"], asked, strict=False))
    agreement = f", {same} begin as in the evaluation" if asked else ""
    codes = [extract_code(t) for t in out["texts"]]
    errors = [compile_error(c) for c in codes]
    good = sum(e is None for e in errors)
    first = next((e for e in errors if e), "")
    text = f"{good} of {len(codes)} answers compile" + f" ({first})" * bool(first)
    return (
        verdict(
            "generation",
            failures,
            warnings,
            f"loads, {out['parameters']:,} parameters, {sum(out['ended'])} of {len(prompts)} answers end{agreement}",
            questions=prompts,
            answers=out["texts"],
            agreement=same if asked else None,
        ),
        verdict(
            "generated_code", [text] if good == 0 else [], [text] if 0 < good < len(codes) else [], text, errors=errors
        ),
    )


def evaluation_records(h: Handoff):
    """The evaluation's records, sets in name order; nothing without an evaluation."""
    for path in sorted((h.evaluation / "results").glob("*.jsonl")) if h.evaluation else ():
        yield from read_records(path)


def compile_error(code: str) -> str | None:
    """Why `code` does not compile, None if it does. In a process of its own: a deep enough program can end the
    parser."""
    if not code.strip():
        return "empty"
    script = "import sys; compile(sys.stdin.buffer.read(), 'answer', 'exec', dont_inherit=True)"
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", script],
        input=code.encode("utf-8", "replace"),
        capture_output=True,
        timeout=60,
    )
    return (
        None
        if done.returncode == 0
        else (done.stderr.decode(errors="replace").strip().splitlines() or ["the parser died"])[-1]
    )


# -------------------------------------------------------------------------------------------------------- evaluation
def check_metrics(h: Handoff, min_exec_success_rate: float | None) -> Check:
    """The evaluation of this very checkpoint is complete, agrees with best_checkpoint.json, and beats the gate."""
    if h.evaluation is None:
        return Check("metrics", "warn", "not run: no --best_checkpoint given")
    if not (h.evaluation / "run.json").exists():
        return Check("metrics", "fail", f"{h.evaluation}: no evaluation of this checkpoint; run phase1_eval.py")
    run = read_json(h.evaluation / "run.json")
    if run.get("status") != "complete":
        return Check(
            "metrics", "fail", f"{h.evaluation}: the evaluation is {run.get('status')!r}, not complete; run it again"
        )
    summary = read_json(h.evaluation / "summary.json").get("datasets", {})
    metrics = read_json(h.evaluation / "metrics.json")
    failures, warnings = [], []
    seen = (run.get("model") or {}).get("fingerprint")
    if seen is None:
        warnings.append("the evaluation names no fingerprint")
    elif seen != fingerprint(h.model):
        failures.append("the evaluation was of other files than this directory's (fingerprint differs)")
    if run.get("prompts_sha256") not in (None, PROMPTS_SHA256):
        failures.append("the evaluation used other prompts than this toolkit's")
    rate = (summary.get("codecontests_valid") or {}).get("exec_success_rate")
    if h.best and rate != h.best.get("best_exec_success_rate"):
        failures.append(f"exec_success_rate {rate}, best_checkpoint.json says {h.best.get('best_exec_success_rate')}")
    if min_exec_success_rate is not None and (rate is None or rate < min_exec_success_rate):
        failures.append(f"exec_success_rate {rate} on codecontests_valid is below the gate {min_exec_success_rate}")
    kept = {
        d: {
            k: summary.get(d, {}).get(k, m.get(k))
            for k in ("total_problems", "exec_success_rate", "accepted_at_1", "pass_ratio_mean")
        }
        for d, m in metrics.items()
    }
    text = ", ".join(
        f"{d} exec {v['exec_success_rate']:.1%}, accepted {v['accepted_at_1']:.1%}"
        for d, v in kept.items()
        if None not in (v["exec_success_rate"], v["accepted_at_1"])
    )
    return verdict("metrics", failures, warnings, text, metrics=kept, evaluation=str(h.evaluation))
