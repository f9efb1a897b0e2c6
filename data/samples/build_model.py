"""Build the demo's base model: a small Qwen2 with random weights and a ChatML tokenizer trained on the embedded data.

    python data/samples/build_model.py --output_dir outputs/demo/base_model

Equal arguments and library versions give equal bytes; nothing is downloaded. The model knows nothing: what it can do
after training, it learned from data/samples/bee.jsonl.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2TokenizerFast

from phase1.contract.prompts import answer, chat, user_message
from phase1.data.bee import BadRecord, parse_record
from phase1.files import BadInput, replacing, run_script

VOCABULARY = 1024  # tokens, the special ones included
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Qwen2's own split; digits stand alone, so a number is copied digit by digit.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Qwen2.5's template without its tool calls.
CHAT_TEMPLATE = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or message.role == 'assistant' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def main() -> None:
    args = parse_args()
    with replacing(args.output_dir) as directory:
        directory.mkdir()
        tokenizer = build_tokenizer(args.input_jsonl, directory)
        model = build_model(tokenizer, args.seed)
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        # Qwen2.5-Coder-Instruct's own values: an evaluation that does not pin its sampling is caught by them.
        GenerationConfig(
            do_sample=True,
            repetition_penalty=1.1,
            temperature=0.7,
            top_p=0.8,
            top_k=20,
            bos_token_id=tokenizer.pad_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        ).save_pretrained(directory)
    print(f"{args.output_dir}: {model.num_parameters():,} parameters, {len(tokenizer)} tokens")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="Hugging Face directory to write")
    parser.add_argument(
        "--input_jsonl",
        type=Path,
        default=Path(__file__).resolve().parent / "bee.jsonl",
        help="BEE records that the tokenizer learns from (default: the embedded ones)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights (default: 0)")
    return parser.parse_args()


def training_texts(path: Path) -> list[str]:
    """Every message of the records as training has it, after its role; broken records are left out.

    Raises:
        BadInput: the file is missing or holds no record.
    """
    texts: list[str] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; write it with build_samples.py") from None
    for line in lines:
        with contextlib.suppress(ValueError, AttributeError, BadRecord):
            record = parse_record(json.loads(line))
            turns = chat(user_message("codecontests", record.statement), answer(record.solution))
            texts.extend(f"{turn['role']}\n{turn['content']}\n" for turn in turns)
    if not texts:
        raise BadInput(f"{path}: holds no BEE record; write it with build_samples.py")
    return texts


def build_tokenizer(path: Path, directory: Path) -> Qwen2TokenizerFast:
    """A byte-level BPE in Qwen2's manner, saved into `directory` and loaded again from there."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), "isolated"), byte_level])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    bpe.train_from_iterator(training_texts(path), trainer)
    # model_input_names without token_type_ids: verl 0.7.0 takes those for multi_modal_inputs, and its collate then
    # fails at random (KeyError).
    return Qwen2TokenizerFast(
        tokenizer_object=bpe,
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=32768,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: Qwen2TokenizerFast, seed: int) -> Qwen2ForCausalLM:
    """A Qwen2 of two narrow layers with random weights, `seed` theirs."""
    config = Qwen2Config(
        vocab_size=-(-len(tokenizer) // 8) * 8,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=2,
        num_attention_heads=4,  # of size 32: vLLM's CPU build serves heads of 32, 64, 80, 96, …
        num_key_value_heads=2,
        max_position_embeddings=32768,
        rope_theta=1e6,
        initializer_range=0.08,  # 0.02 suits models ten times as wide: this one would learn more slowly
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.pad_token_id,
        torch_dtype="float32",
    )
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(config)


if __name__ == "__main__":
    run_script(main)
