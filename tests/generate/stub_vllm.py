"""An OpenAI-compatible server of settable speed that speaks as vLLM does, for tests and benchmarks of its client.

    python -m tests.generate.stub_vllm --model PATH --port 8000 --seconds 0.5 --places 8 --log requests.jsonl

Each answer takes `--seconds` in one of `--places`; its text is that of `--answers` for the prompt's ids, of several the
one that the request's seed picks, or a program that prints the prompt's length. Told `--mark`, it adds which weights
answered: a hash of the model's file, read at the start and by `/collective_rpc`, as by a server that is kept from one
checkpoint to the next. Every request is a line of `--log` with its parameters when it arrives, and another line when
its answer has been sent. Flags that only vLLM's own server has are ignored.
"""

import argparse
import asyncio
import hashlib
import json
import time
from pathlib import Path

from aiohttp import web


def key(ids: list[int]) -> str:
    """The key of a prompt in the --answers file."""
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def weights_of(model: str) -> str:
    """A hash of the weights in a model's folder; empty where there are none."""
    path = Path(model) / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""


class Stub:
    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.places = asyncio.Semaphore(args.places)
        self.answers = json.loads(Path(args.answers).read_text()) if args.answers else {}
        self.tokens = self.counted = 0
        self.weights = weights_of(args.model)

    def note(self, event: str, ids: list[int], parameters: dict | None = None) -> None:
        if self.args.log:
            with open(self.args.log, "a") as f:
                line = {"event": event, "key": key(ids), "time": time.time(), "parameters": parameters}
                line |= {"weights": self.weights} if self.args.mark else {}
                f.write(json.dumps(line) + "\n")

    async def complete(self, request: web.Request) -> web.Response:
        body, args = await request.json(), self.args
        ids = body["prompt"]
        penalty = body.get("repetition_penalty", args.own_penalty)
        if body.get("ignore_eos"):  # the client's probe: no request that counts
            if args.hang_after == 0:
                await asyncio.sleep(3600)
            text = f"probe {len(ids)} penalty {1.0 if args.ignore_penalty else penalty}"
            return self.answer(text, ids, "length")
        self.counted += 1
        self.note("asked", ids, {name: value for name, value in body.items() if name != "prompt"})
        if self.counted <= args.fail_first:
            return web.Response(status=500, text="no luck")
        if args.hang_after is not None and self.counted > args.hang_after:
            await asyncio.sleep(3600)
        async with self.places:
            await asyncio.sleep(args.seconds)
        text = self.answers.get(key(ids), f"<code>\nprint({len(ids)})\n</code>")
        if isinstance(text, list):
            text = text[body.get("seed", 0) % len(text)]
        text += f"\nby {self.weights}" if args.mark else ""
        return self.answer(text, ids, "length" if body["max_tokens"] < 8 else "stop")

    def answer(self, text: str, ids: list[int], reason: str) -> web.Response:
        tokens = max(1, len(text) // 4)
        self.tokens += tokens
        self.note("answered", ids)
        choice: dict = {"index": 0, "text": text, "finish_reason": reason}
        choice["logprobs"] = {"token_logprobs": [-int(self.weights[:6] or "0", 16) / 1e6]}
        return web.json_response(
            {"choices": [choice], "usage": {"prompt_tokens": len(ids), "completion_tokens": tokens}}
        )

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"data": [{"id": self.args.model, "root": self.args.model, "max_model_len": self.args.max_model_len}]}
        )

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=f'vllm:generation_tokens_total{{engine="0"}} {float(self.tokens)}\n')

    async def rpc(self, request: web.Request) -> web.Response:
        """What phase1/generate/inside/phase1_weights.py answers in vLLM's workers."""
        body = await request.json()
        if body["method"] == "take_weights":
            self.weights = weights_of(self.args.model)
            return web.json_response({"results": [None]})
        differ = [] if weights_of(body["args"][0]) == self.weights else ["model"]
        return web.json_response({"results": [{"compared": 1, "differ": differ, "unknown": []}]})

    async def ok(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "stub"} if request.path == "/version" else {})


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    p.add_argument("--model", required=True)
    p.add_argument("--port", type=int, required=True)
    p.add_argument("--max_model_len", type=int, default=32768)
    p.add_argument("--seconds", type=float, default=0.0)
    p.add_argument("--places", type=int, default=256)
    p.add_argument("--answers")
    p.add_argument("--log")
    p.add_argument("--mark", action="store_true", help="say in each answer which weights gave it")
    p.add_argument("--own_penalty", type=float, default=1.0, help="what a request without repetition_penalty gets")
    p.add_argument("--ignore_penalty", action="store_true", help="drop the parameter, as a proxy might")
    p.add_argument("--fail_first", type=int, default=0, help="answer 500 to the first N requests")
    p.add_argument(
        "--hang_after", type=int, help="answer /health, but nothing after N requests; 0: not even the client's probe"
    )
    args, _ = p.parse_known_args()
    stub = Stub(args)
    app = web.Application(client_max_size=1 << 26)
    app.add_routes(
        [
            web.post("/v1/completions", stub.complete),
            web.get("/v1/models", stub.models),
            web.get("/metrics", stub.metrics),
            web.get("/health", stub.ok),
            web.get("/version", stub.ok),
            web.post("/collective_rpc", stub.rpc),
            web.post("/reset_prefix_cache", stub.ok),
        ]
    )
    web.run_app(
        app, host="127.0.0.1", port=args.port, print=None, access_log=None, handler_cancellation=True
    )  # as vLLM, which aborts when its client is gone


if __name__ == "__main__":
    main()
