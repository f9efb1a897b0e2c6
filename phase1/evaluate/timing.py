"""Where an evaluation's time went: a line each at its end, and `seconds` in run.json."""

from __future__ import annotations

from collections.abc import Mapping

MEANING = {
    "first_answer": "from the start of this session to its first answer",
    "wait": "of that: waited for servers that still answered the checkpoint before",
    "start": "of that: servers started until they answered",
    "swap": "of that: running servers took this checkpoint's weights, and were seen to answer with them",
    "generation": "first request to last answer",
    "judging": "first program to last verdict",
    "tail": "last answer to last verdict",
    "gpu_idle": "of the session: the GPUs ran nothing, by NVML, the mean of those that are visible",
}


def timing_lines(seconds: Mapping[str, float]) -> list[str]:
    """A line for each time that was taken, in the order of a session."""
    return [f"{name:12} {seconds[name]:8.1f} s  {what}" for name, what in MEANING.items() if name in seconds]
