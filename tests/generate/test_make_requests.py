"""Prompts and the order of requests, batches of transformers, and what becomes of an answer's ids."""

import json

import pytest

from phase1.contract.problems import Problem, load_problems
from phase1.contract.prompts import chat
from phase1.generate.decoding import decode
from phase1.generate.make_requests import Request, Wanted, make_requests
from phase1.generate.model_config import context_limit, stop_ids
from phase1.generate.sampling import Sampling
from phase1.generate.transformers_backend import make_batches
from phase1.model.tokenizer import load_chat_tokenizer
from tests.evaluate.running import MANIFESTS


@pytest.fixture(scope="module")
def tokenizer(base_model):
    return load_chat_tokenizer(base_model)


@pytest.mark.slow
def test_a_prompt_is_what_transformers_makes_of_the_conversation(tokenizer):
    [problem] = load_problems(MANIFESTS, "humaneval", 1)
    [request] = make_requests([Wanted(problem, 0)], tokenizer, 6144, Sampling())
    turns = chat(problem.user)
    assert request.prompt == tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert request.max_tokens == 2048


def test_what_is_expected_to_take_longest_comes_first(tokenizer):
    todo = [
        Wanted(p, 0) for d in ("mbpp_reg", "humaneval", "codecontests_valid") for p in load_problems(MANIFESTS, d, 3)
    ]
    requests = make_requests(todo, tokenizer, 6144, Sampling())
    kinds = [r.problem.test_type for r in requests]
    assert kinds == ["codecontests"] * 3 + ["humaneval"] * 3 + ["mbpp"] * 3
    for first in (0, 3, 6):
        lengths = [len(r.prompt) for r in requests[first : first + 3]]
        assert lengths == sorted(lengths, reverse=True)


def test_the_context_bounds_an_answer(tokenizer):
    [problem] = load_problems(MANIFESTS, "mbpp_reg", 1)
    length = len(make_requests([Wanted(problem, 0)], tokenizer, 6144, Sampling())[0].prompt)
    for limit, room in ((length + 5, 5), (length, 0), (length - 1, -1)):
        assert make_requests([Wanted(problem, 0)], tokenizer, limit, Sampling())[0].max_tokens == room


def test_a_batch_holds_one_data_set_and_a_request_with_little_room_is_alone():
    def request(dataset: str, length: int, room: int) -> Request:
        return Request(Problem(dataset, f"{dataset}/{length}", "", {"type": "mbpp"}), 0, [1] * length, room)

    requests = [request("a", n, 16) for n in (3, 5, 4)] + [request("a", 9, 2)] + [request("b", n, 16) for n in (7, 8)]
    batches = [[(r.problem.dataset, len(r.prompt)) for r in batch] for batch in make_batches(requests, 2, 16)]
    assert batches == [[("a", 9)], [("a", 5), ("a", 4)], [("a", 3)], [("b", 8), ("b", 7)]]


def test_an_answer_ends_at_its_first_stop_id_which_counts(tokenizer):
    text = "x  =  1 , 2 . 'é' 模 😀"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    end = tokenizer.eos_token_id
    assert decode(tokenizer, [*ids, end, *ids], {end}) == (text, "stop", len(ids) + 1)
    assert decode(tokenizer, ids, {end}) == (text, "length", len(ids))


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": [7, 9]}, {"eos_token_id": 5}, [7, 9]),
        ({"eos_token_id": 7}, {}, [7]),
        ({}, {"eos_token_id": 5}, [5]),
        (None, {"eos_token_id": [5, 6]}, [5, 6]),
        (None, {}, []),
    ],
    ids=["list", "number", "config", "no_file", "none"],
)
def test_an_answer_ends_where_model_or_tokenizer_say(tokenizer, tmp_path, generation, config, expected):
    (tmp_path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert stop_ids(tmp_path, tokenizer) == sorted({*expected, tokenizer.eos_token_id})


@pytest.mark.parametrize(("config", "limit"), [({"max_position_embeddings": 100}, 100), ({}, 6144)])
def test_the_context_is_what_the_model_can_take(tmp_path, config, limit):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert context_limit(tmp_path, 6144) == limit


def test_greedy_decoding_has_neither_seed_nor_samples_in_the_record():
    assert "seed" not in Sampling().identity() and Sampling(temperature=1, seed=3).identity()["seed"] == 3


def test_the_seed_of_an_answer_depends_on_problem_sample_and_flag():
    sampling = Sampling(temperature=1)
    seeds = {sampling.seed_of("a", 0), sampling.seed_of("a", 1), sampling.seed_of("b", 0)}
    seeds.add(Sampling(temperature=1, seed=1).seed_of("a", 0))
    assert len(seeds) == 4 and all(0 <= seed < 2**32 for seed in seeds)
    assert sampling.seed_of("a", 0) == Sampling(temperature=1).seed_of("a", 0)
