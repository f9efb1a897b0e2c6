"""Judge every hostile program, each followed by an honest one, and print what came of it as JSON. Run by
test_judge_hostile.py."""

import asyncio
import contextlib
import json
import os
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

from hostile_programs import PROGRAMS  # noqa: E402

from phase1.judge.config import JudgeConfig  # noqa: E402
from phase1.judge.judge import open_judge  # noqa: E402
from phase1.judge.launcher import NOBODY  # noqa: E402

USER = 12345  # as whom test_judge_hostile.py runs this file when it is root itself
CONTROL = """
import os, socket
word = input()
left = [p for p in os.listdir("/proc") if p.isdigit()]
socket.socket(socket.AF_UNIX).bind("\\0phase1")
socket.socket().bind(("0.0.0.0", 47111))
print(word, len(left), os.listdir("/tmp"), os.listdir("/dev/shm"))
"""


def descendants(root: int) -> list[int]:
    """Processes below `root`, from /proc."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_bytes().rsplit(b")", 1)[1].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(name))
    found, todo = [], [root]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def mounts() -> int:
    return len(Path("/proc/self/mountinfo").read_text().splitlines())


def files() -> set[str]:
    """Files and folders of the uid that programs run as, wherever on this machine anybody may write."""
    uid = os.getuid() or NOBODY
    found = set()
    tops = [os.environ["TMPDIR"], str(Path(__file__).parents[1])]
    if uid in (NOBODY, USER):  # who runs nothing else here; a developer's other files come and go
        tops += "/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run/lock"
    for top in tops:
        for folder, folders, names in os.walk(top):
            for path in (os.path.join(folder, name) for name in folders + names):
                with contextlib.suppress(OSError):
                    if os.lstat(path).st_uid == uid:
                        found.add(path)
    return found


async def main() -> None:
    results: dict = {"programs": {}}
    before, files_before = mounts(), files()
    tests = [{"input": "", "output": "contained\n"}] * 2
    control = {"type": "codecontests", "tests": [{"input": f"{w}\n", "output": f"{w} 2 [] []\n"} for w in ("a", "b")]}
    names = sys.argv[1:] or list(PROGRAMS)
    async with open_judge(JudgeConfig(workers=2, run_timeout=10, memory_limit_mb=256)) as judge:
        results["info"] = judge.info
        launcher = judge.backend.process.pid

        async def one(name: str) -> None:
            started = time.monotonic()
            program, expected = PROGRAMS[name]
            # What is to be stopped by the time limit is stopped soon; nothing else meets it, however busy the machine.
            cases = {"type": "codecontests", "tests": tests, "time_limit": 0.3 if "timeout" in expected else 10}
            verdict = await judge.judge(program, cases)
            number = list(PROGRAMS).index(
                name
            )  # not its name, which may hold a word for which the judge writes /tmp/main.py
            after = await judge.judge(CONTROL + f"# after {number}\n", control)
            results["programs"][name] = {
                "error_type": verdict.error_type,
                "tests": verdict.test_verdicts,
                "detail": verdict.detail,
                "seconds": time.monotonic() - started,
                "case": verdict.first_failed_case,
                "control": [after.error_type, after.detail, after.first_failed_case],
            }

        todo = iter(names)

        async def worker() -> None:
            for name in todo:
                await one(name)

        await asyncio.gather(worker(), worker())
        family = descendants(launcher)
        results["programs_left"] = [
            p for p in family if len(descendants(p)) > 1
        ]  # a spare sandbox is bubblewrap and PID 1
    results["left"] = [p for p in family if os.path.exists(f"/proc/{p}")]
    results["cgroups"] = [str(p) for p in Path("/sys/fs/cgroup").glob(f"**/phase1-judge-{launcher}-*")]
    results["launcher_gone"] = not os.path.exists(f"/proc/{launcher}")
    results["mounts"] = mounts() - before
    results["files"] = sorted(files() - files_before) + os.listdir(os.environ["TMPDIR"])
    print(json.dumps(results))


if __name__ == "__main__":
    asyncio.run(main())
