"""What a log file of an evaluation shows."""

import re
import time

import pytest

from phase1.contract.records import Completion, Record
from phase1.evaluate.display import Display
from phase1.evaluate.timing import timing_lines
from phase1.judge.outcomes import Running

COMPLETION = Completion("mbpp_reg", "MBPP/11", "p", "", "text", "stop", 10, 50, 1.0, 0.0, 0)


def record(error_type: str) -> Record:
    return Record(**vars(COMPLETION), error_type=error_type, tests_run=3)


@pytest.mark.parametrize("color", [None, "1"])
def test_without_a_terminal_there_are_plain_lines_with_both_stages(capsys, monkeypatch, color):
    """FORCE_COLOR, which some CI systems set, makes no terminal of a log file."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if color:
        monkeypatch.setenv("FORCE_COLOR", color)
    with Display(4, generated=1, judged=0, every=0.0) as display:
        display.start("generated", 2)
        display.generated(COMPLETION)
        display.start("judged", 2)
        display.judged(record("success"))
        display.judged(record("timeout"))
        time.sleep(0.01)
        display.tick()
        display.say("warning: [bold]as it is[/bold]")
    *lines, warning, last = capsys.readouterr().out.splitlines()
    assert warning == "warning: [bold]as it is[/bold]" and len(lines) == 1
    for line in (*lines, last):
        assert re.fullmatch(
            (
                r"generated 2/4 \(1 running, [\d,]+ tokens/s\)  judged 2/4 \(0 running, [\d,]+ tests/s\)  success "
                r"1  timeout 1  0 min 0 s left"
            ),
            line,
        ), line


def test_the_time_left_is_that_of_the_slower_stage_at_its_rate_so_far(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    display = Display(10, generated=2, judged=0)
    display.start("generated", 4)
    display.start("judged", 2)
    assert display.seconds_left() is None
    now[0] += 10
    for _ in range(4):
        display.generated(COMPLETION)
    assert display.seconds_left() is None
    for _ in range(2):
        display.judged(record("success"))
    assert display.seconds_left() == pytest.approx(40)  # 8 verdicts at 0.2/s; 4 answers at 0.4/s would be 10 s


def test_the_tail_says_what_still_runs_and_generation_keeps_its_rate(monkeypatch):
    """Once all is generated, no rate says how long the last programs take."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    display = Display(2, generated=0, judged=0)
    display.programs = lambda: [Running(2, 40, 12.4, 30.0), Running(1, 3, 2.0, 90.0)]
    for stage in ("generated", "judged"):
        display.start(stage, 2)
    now[0] += 10
    display.generated(COMPLETION)
    display.judged(record("success"))
    assert "still run" not in display.line() and "s left" in display.line()
    display.generated(COMPLETION)
    now[0] += 90
    said = "2 still run, the longest at test 2 of 40 for 12 s, which may take 30 s of CPU time"
    assert display.line().endswith(said) and "10 tokens/s" in display.line()
    display.judged(record("timeout"))
    display.programs = list
    assert "still run" not in display.line() and display.line().endswith("0 min 0 s left") is False


def test_where_the_time_went(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    display = Display(2, generated=0, judged=0)
    assert display.seconds(since=40.0) == {}
    display.start("generated", 2)
    for later in (5.0, 10.0):
        now[0] += later
        display.generated(COMPLETION)
        display.start("judged")
    for later in (1.0, 20.0):
        now[0] += later
        display.judged(record("success"))
    took = display.seconds(since=40.0)
    assert took == {"first_answer": 65.0, "generation": 15.0, "judging": 31.0, "tail": 21.0}
    assert [line.split()[:2] for line in timing_lines({**took, "swap": 0.4})] == [
        ["first_answer", "65.0"],
        ["swap", "0.4"],
        ["generation", "15.0"],
        ["judging", "31.0"],
        ["tail", "21.0"],
    ]
