"""A judge for tests that want one verdict at a time, and the tests of a problem in the shapes of a raw file."""

import asyncio
import contextlib

from phase1.judge.judge import open_judge


class RunningJudge:
    """A judge in an event loop of its own: call it with a program and its tests for a verdict."""

    def __init__(self, config):
        self.runner, self.stack = asyncio.Runner(), contextlib.AsyncExitStack()
        self.judge = self.runner.run(self.stack.enter_async_context(open_judge(config)))

    def __call__(self, program, cases):
        return self.runner.run(self.judge.judge(program, cases))

    def close(self):
        self.runner.run(self.stack.aclose())
        self.runner.close()


def stdin(*pairs, **limits):
    return {"type": "codecontests", "tests": [{"input": i, "output": o} for i, o in pairs], **limits}


def asserts(*tests, setup="", entry="f"):
    return {"type": "mbpp", "test_list": list(tests), "test_setup_code": setup, "entry_point": entry}
