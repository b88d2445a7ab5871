"""How long a whole run will still take: every step that is planned, not only the one that runs.

For the Snakefile. Known are the plan, how long the steps of this run took so far, how long a step took the last time
(its benchmark), and what a running step says of itself in its log. Where nothing is known of a step, what it takes in
the default experiment counts (`TYPICAL`), as much faster or slower as the steps so far were. All of it is a guess, and
is told as one.
"""

from __future__ import annotations

import csv
import heapq
import logging
import re
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from microsr import config
from microsr.core.progress import GROWTH, LONGEST, duration

TYPICAL = {
    "simulate_training_case": 14.0,
    "simulate_test_case": 20.0,
    "superresolve": 9.0,
    "superresolve_part": 9.0,
    "evaluate_known": 14.0,
    "evaluate_images": 8.0,
    "evaluate_distribution": 8.0,
    "learn_features": 48.0,
    "validate_simulation": 13.0,
    "validate_metrics": 120.0,
    "write_report": 10.0,
    "draw_comparison": 5.0,
    "draw_hallucination": 5.0,
    "draw_tiling": 8.0,
    "all": 0.0,
    "figures": 0.0,
}
"""Seconds that a job of a rule takes in the default experiment on a core without bfloat16 units."""
OTHERWISE = 3.0
"""Seconds of a rule that is not in TYPICAL: most of it is the start of the process."""
PAIR = {"resnet": 5.9, "efficient": 0.18, "compact": 0.1}
"""Seconds of training with a pair of patches of 16x16 and 128x128 pixels, on the same core, by family of networks."""
PAIR_SIZE = 128
START = 0.25
"""What a step of a start takes beside one of the others."""
FIRST = 30.0
"""Seconds until the first line after the one at the beginning, and between two lines at first."""
UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
LEFT = re.compile(r", ((?:\d+ (?:s|min|h|d) ?)+) left")
"""What a line of `core.progress.Progress` says of the time left."""
TAIL = 4096
"""Bytes at the end of a log in which its last line of progress is looked for."""


class Step(NamedTuple):
    """A planned job."""

    rule: str
    needs: Collection[Any] = ()
    """Planned jobs that must be finished before it can begin."""
    threads: int = 1
    expected: float | None = None
    """Seconds that it took the last time, if it is known."""
    typical: float = OTHERWISE
    """Seconds that it takes on a machine like that of TYPICAL."""
    log: Path | None = None


class Forecast:
    """What is known of a run, and the seconds that it will still take.

    plan: every job, by a name of its own. cores: how many threads run side by side.
    """

    def __init__(self, plan: Mapping[Any, Step], cores: int) -> None:
        self._plan, self._cores = dict(plan), max(1, cores)
        self._began: dict[Any, float] = {}
        self._took: dict[Any, float] = {}

    @property
    def total(self) -> int:
        """Jobs of the plan."""
        return len(self._plan)

    @property
    def done(self) -> int:
        """Jobs that are finished."""
        return len(self._took)

    def start(self, job: Any, now: float) -> None:
        """A job begins; once more, where it is tried again."""
        if job in self._plan:
            self._began[job] = now

    def finish(self, job: Any, now: float) -> None:
        """A job is finished."""
        if job in self._plan:
            self._took[job] = now - self._began.get(job, now)

    def seconds_left(self, now: float) -> float:
        """Seconds until the last job ends, if each takes as long as is expected and none waits while a core is free."""
        by_rule, pace = self._experience()
        ends, waiting, dependants = [], {}, defaultdict(list)
        free = self._cores
        for job, step in self._plan.items():
            if job in self._took:
                continue
            if job in self._began:
                ends.append((self._rest(job, step, by_rule, pace, now), self._share(step), job))
                free -= self._share(step)
                continue
            waiting[job] = {other for other in step.needs if other in self._plan and other not in self._took}
            for other in waiting[job]:
                dependants[other].append(job)
        ready = [(-self._expect(self._plan[j], by_rule, pace), n, j) for n, j in enumerate(waiting) if not waiting[j]]
        number, passed = len(waiting), 0.0
        heapq.heapify(ready)
        ends = [(end, n, share, job) for n, (end, share, job) in enumerate(ends)]
        heapq.heapify(ends)
        while ready or ends:
            while ready and self._share(self._plan[ready[0][2]]) <= free:
                seconds, _, job = heapq.heappop(ready)
                share = self._share(self._plan[job])
                number += 1
                heapq.heappush(ends, (passed - seconds, number, share, job))
                free -= share
            if not ends:  # more ran at once than there are cores for, by an earlier run's settings
                free = self._cores
                continue
            passed, _, share, job = heapq.heappop(ends)
            free += share
            for other in dependants[job]:
                waiting[other].discard(job)
                if not waiting[other]:
                    number += 1
                    heapq.heappush(ready, (-self._expect(self._plan[other], by_rule, pace), number, other))
        return passed

    def _share(self, step: Step) -> int:
        return min(step.threads, self._cores)

    def _experience(self) -> tuple[dict[str, float], float]:
        """How much slower than typical the jobs so far were: by rule, and altogether."""
        by_rule = defaultdict(list)
        typical = measured = 0.0
        for job, seconds in self._took.items():
            if job in self._began:
                step = self._plan[job]
                by_rule[step.rule].append((seconds, step.typical))
                typical, measured = typical + step.typical, measured + seconds
        means = {rule: sum(s for s, _ in pairs) / sum(t for _, t in pairs) for rule, pairs in by_rule.items()}
        return means, measured / typical if typical else 1.0

    @staticmethod
    def _expect(step: Step, by_rule: Mapping[str, float], pace: float) -> float:
        if step.rule in by_rule:
            return by_rule[step.rule] * step.typical
        return step.expected if step.expected is not None else pace * step.typical

    def _rest(self, job: Any, step: Step, by_rule: Mapping[str, float], pace: float, now: float) -> float:
        """Seconds of a running job: what its log says, else what is expected of it."""
        if (
            step.log is not None
            and (told := read_time_left(step.log, time.time() - (now - self._began[job]))) is not None
        ):
            return told
        return max(self._expect(step, by_rule, pace) - (now - self._began[job]), 1.0)


def read_time_left(log: Path, began: float) -> float | None:
    """Seconds left by the last line of progress in a log, less the log's age; None if there is none since `began` (UNIX
    time).
    """
    try:
        changed = log.stat().st_mtime
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - TAIL))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    if changed < began - 1:
        return None
    for line in reversed(lines):
        if found := LEFT.search(line):
            pairs = re.findall(r"(\d+) (s|min|h|d)", found[1])
            return max(sum(int(number) * UNITS[unit] for number, unit in pairs) - (time.time() - changed), 1.0)
    return None


def training_seconds(settings: config.Train, cases: int, micro_size: int) -> float:
    """Typical seconds of a training on so many cases, with uCT patches of so many pixels along a side."""
    pairs = settings.epochs * settings.patches_per_case * cases + START * settings.start_steps * settings.batch_size
    return pairs * PAIR.get(settings.network, PAIR["efficient"]) * (micro_size / PAIR_SIZE) ** 2


def plan_of(
    jobs: Iterable[Any], dependencies: Mapping[Any, Iterable[Any]], trainings: Mapping[str, float]
) -> dict[int, Step]:
    """The plan as Snakemake has it: its jobs that are to run, what they depend on, and typical seconds of each method's
    training.
    """
    jobs = list(jobs)
    numbers = {job: job.jobid for job in jobs}
    plan = {}
    for job in jobs:
        rule = job.rule.name
        method = job.wildcards_dict.get("method")
        typical = trainings.get(method, OTHERWISE) if rule == "train" else TYPICAL.get(rule, OTHERWISE)
        needs = [numbers[other] for other in dependencies.get(job, ()) if other in numbers]
        log = Path(str(job.log[0])) if job.log else None
        plan[numbers[job]] = Step(rule, needs, job.threads, _last_time(job.benchmark), typical, log)
    return plan


def _last_time(benchmark: Any) -> float | None:
    """Seconds of a job as its benchmark file has them from an earlier run."""
    try:
        with Path(str(benchmark)).open(encoding="utf-8") as stream:
            return float(next(csv.DictReader(stream, delimiter="\t"))["s"])
    except (OSError, ValueError, KeyError, StopIteration, TypeError):
        return None


class Watch(logging.Handler):
    """Hears from Snakemake which jobs begin and end, and says now and then how long the whole run will still take.

    say: takes each line. clock: seconds that pass.
    """

    def __init__(
        self,
        forecast: Forecast,
        say: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(logging.INFO)
        self._forecast, self._say, self._clock = forecast, say or _to_terminal, clock
        self._ended = threading.Event()
        self._guard = threading.Lock()

    def begin(self) -> None:
        """Say the first guess, and go on saying until `end`."""
        if self._forecast.total < 2:
            return
        self.tell()
        threading.Thread(target=self._keep_telling, daemon=True).start()

    def end(self) -> None:
        """Say no more."""
        self._ended.set()

    def tell(self) -> None:
        """Say how far the run is, if it is not at its end."""
        with self._guard:
            total, done, left = self._forecast.total, self._forecast.done, self._forecast.seconds_left(self._clock())
        if done < total:
            self._say(f"whole run: {done} of {total} steps done, about {duration(left)} left")

    def emit(self, record: logging.LogRecord) -> None:
        """Hear of a job."""
        event = getattr(record, "event", None)
        name, now = str(getattr(event, "value", event)), self._clock()
        with self._guard:
            if name == "job_started":
                for job in getattr(record, "jobs", None) or ():
                    if isinstance(job, int):  # a group says only which of its jobs are finished
                        self._forecast.start(job, now)
            elif name == "job_finished":
                self._forecast.finish(getattr(record, "job_id", None), now)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A guess that cannot be made must not disturb the run."""

    def _keep_telling(self) -> None:
        waited = 0.0
        while not self._ended.wait(pause := FIRST * min(max(1.0, waited / GROWTH), LONGEST)):
            waited += pause
            self.tell()


def _to_terminal(line: str) -> None:
    """In one piece, so that what Snakemake and the steps say does not get into it."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
