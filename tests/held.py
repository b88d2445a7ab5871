"""A training that waits in a step for a signal, so that one comes there on any machine, however fast or busy.

    python held.py STEP NOTE train ...        microsr train ..., which waits in step number STEP

It makes the file NOTE.<rank> when it waits. As soon as the signal has come, and the training has heard of it, the step
goes on.
"""

import os
import signal
import sys
import time
from pathlib import Path

from microsr import cli
from microsr.training.methods.cyclegan import CycleGAN

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def hold(step: int, note: Path) -> None:
    """Let the training of this process wait in a step, counted from 0."""
    plain = CycleGAN.step

    def held(self, at, *arguments):
        if at == step:
            heard = []
            for number in SIGNALS:
                signal.signal(number, _then(signal.getsignal(number), heard))
            note.with_name(f"{note.name}.{os.environ.get('RANK', 0)}").touch()
            while not heard:
                time.sleep(0.01)
        return plain(self, at, *arguments)

    CycleGAN.step = held


def _then(handler, heard: list):
    """The training's own handler, after which it is known that the signal has come."""

    def handle(number, frame):
        handler(number, frame)
        heard.append(number)

    return handle


if __name__ == "__main__":
    hold(int(sys.argv[1]), Path(sys.argv[2]))
    cli.main(sys.argv[3:])
