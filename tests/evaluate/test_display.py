"""What a log file of an evaluation shows."""

import re
import time

import pytest

from phase1.contract.records import Completion, Record
from phase1.evaluate.display import Display

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
