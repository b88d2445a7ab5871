"""How long a test waits before it says that something hangs. No test is about how fast a machine is: see `limit`."""

import functools
import subprocess
import sys
import time

REFERENCE = 0.25
"""Seconds of `WORK` on the machine that the limits were thought for, with nothing beside it."""
WORK = """
import numpy
for k in range(8):
    sum(i * i for i in range(100_000))
    numpy.sort(numpy.sin(numpy.arange(100_000.0)))
"""
"""A start of Python, arithmetic and memory."""


@functools.cache
def slowness() -> float:
    """How many times as long as there a small fixed piece of work takes here and now; at least 1. Measured once in a
    process.
    """
    taken = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", WORK], check=True)
        taken.append(time.monotonic() - began)
    return max(1.0, max(taken) / REFERENCE)


def limit(seconds: float) -> float:
    """Seconds after which something hangs here that would be long done after `seconds` there."""
    return seconds * slowness()


def wait_for(condition, running=lambda: True, seconds: float = 600, every: float = 0.02):
    """What `condition` gives once it is true; fails if what it waits for is not `running` any more, or hangs."""
    end = time.monotonic() + limit(seconds)
    while not (found := condition()):
        assert running(), "it ended before"
        assert time.monotonic() < end, f"nothing came of it within {limit(seconds):.0f} s"
        time.sleep(every)
    return found
