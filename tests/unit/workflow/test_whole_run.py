"""How long a whole run will still take, from its plan and what became of its steps so far."""

import logging
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from microsr.config import Train
from microsr.core.progress import Progress, logger
from microsr.workflow.whole_run import (
    OTHERWISE,
    TYPICAL,
    Forecast,
    Step,
    Watch,
    plan_of,
    read_time_left,
    training_seconds,
)


def step(rule, seconds, *needs, threads=1, **more) -> Step:
    return Step(rule, needs, threads, more.pop("expected", None), seconds, **more)


def test_steps_that_wait_for_each_other_add_up_and_others_run_side_by_side():
    chain = {"a": step("x", 10), "b": step("y", 20, "a"), "c": step("z", 30, "b")}
    assert Forecast(chain, cores=4).seconds_left(0) == 60
    apart = {n: step("x", 10) for n in range(6)}
    assert [Forecast(apart, cores).seconds_left(0) for cores in (1, 2, 4, 6)] == [60, 30, 20, 10]


def test_the_longest_begins_first_and_what_needs_it_follows():
    plan = {n: step("short", 1) for n in range(4)} | {"long": step("long", 4), "after": step("after", 2, "long")}
    assert Forecast(plan, cores=2).seconds_left(0) == 6


def test_a_step_of_several_threads_takes_as_many_cores_but_not_more_than_there_are():
    plan = {n: step("x", 10, threads=2) for n in range(3)}
    assert [Forecast(plan, cores).seconds_left(0) for cores in (1, 2, 4, 6)] == [30, 30, 20, 10]


def test_what_runs_has_its_own_time_behind_it():
    forecast = Forecast({"a": step("x", 100), "b": step("y", 50, "a")}, cores=1)
    forecast.start("a", 0)
    assert forecast.seconds_left(40) == 110
    assert forecast.seconds_left(500) == 51, "it takes longer than expected: it is about to end"
    forecast.finish("a", 500)
    assert forecast.done == 1


def test_a_slow_machine_makes_everything_slower_that_is_still_to_come():
    plan = {"a": step("x", 10), "b": step("x", 10), "c": step("y", 100), "d": step("z", 30, expected=7.0)}
    forecast = Forecast(plan, cores=1)
    assert forecast.seconds_left(0) == 127, "the last time counts for a step that has one"
    forecast.start("a", 0)
    forecast.finish("a", 40)
    assert forecast.seconds_left(40) == 40 + 400 + 7
    forecast.start("b", 40)
    forecast.finish("b", 60)
    assert forecast.seconds_left(60) == pytest.approx(300 + 7), "20 seconds and 40 for twice 10"


def test_a_job_that_is_tried_again_begins_anew_and_unknown_ones_are_nothing():
    forecast = Forecast({"a": step("x", 10)}, cores=1)
    forecast.start("a", 0)
    forecast.start("a", 8)
    assert forecast.seconds_left(9) == 9
    forecast.start("other", 0)
    forecast.finish("other", 3)
    assert (forecast.done, forecast.total, forecast.seconds_left(9)) == (0, 1, 9)


def test_what_a_step_says_of_itself_counts(tmp_path):
    log = tmp_path / "train.log"
    forecast = Forecast({"a": step("train", 100, log=log), "b": step("y", 50, "a")}, cores=1)
    forecast.start("a", 0)
    log.write_text("microsr train ...\n2026 INFO step 5/100, 1.0 s/step, 1 h 20 min left, D1 0.1\nother\n")
    assert forecast.seconds_left(1) == pytest.approx(4800 + 50, abs=3)
    os.utime(log, (time.time() - 60, time.time() - 60))
    assert forecast.seconds_left(100) == pytest.approx(4740 + 50, abs=3), "a minute ago"
    assert read_time_left(log, time.time() - 30) is None, "an earlier run's"
    assert read_time_left(tmp_path / "none.log", 0) is None
    log.write_bytes(b"\xff microsr train ...\n")
    assert read_time_left(log, 0) is None


def test_the_lines_of_progress_are_understood(tmp_path, monkeypatch):
    """Whatever `Progress` writes into a log, from seconds to days."""
    now = [0.0]
    monkeypatch.setattr("microsr.core.progress.time.monotonic", lambda: now[0])
    for total, seconds in ((4, 30.0), (40, 60.0), (400, 3600.0)):
        log = tmp_path / f"{total}.log"
        handler = logging.FileHandler(log)
        monkeypatch.setattr(logger, "handlers", [handler])
        monkeypatch.setattr(logger, "level", logging.INFO)
        logger.manager._clear_cache()
        progress = Progress(total, "step")
        now[0] += seconds
        progress.advance(note="cycle_loss 0.1")
        handler.close()
        assert read_time_left(log, 0) == pytest.approx((total - 1) * seconds, rel=0.03, abs=2)


def test_a_training_takes_longer_with_more_of_anything():
    train = Train(network="compact", epochs=2, patches_per_case=100)
    seconds = training_seconds(train, 3, 128)
    assert training_seconds(train, 6, 128) == training_seconds(train, 3, 128) * 2
    assert training_seconds(train, 3, 256) == 4 * seconds
    assert training_seconds(train.model_copy(update={"network": "resnet"}), 3, 128) > 20 * seconds
    assert training_seconds(train.model_copy(update={"network": "tiny"}), 3, 128) > 0, "a family of one's own"


def job(number, rule, method=None, benchmark=None, log=()):
    rule, wildcards = SimpleNamespace(name=rule), {"method": method} if method else {}
    return SimpleNamespace(jobid=number, rule=rule, wildcards_dict=wildcards, benchmark=benchmark, log=log, threads=2)


def job_(values):
    return type("Job", (SimpleNamespace,), {"__hash__": lambda self: self.jobid})(**vars(values))


def test_the_plan_is_snakemake_s(tmp_path):
    benchmark = tmp_path / "b.tsv"
    benchmark.write_text("s\th:m:s\tmax_rss\n12.5\t0:00:12\t100\n")
    done = job_(job(1, "simulate_training_case"))
    train = job_(job(2, "train", "proposed", log=["logs/train/x.log"]))
    other = job_(job(3, "superresolve", "proposed", benchmark=str(benchmark)))
    every = job_(job(0, "all", benchmark=str(tmp_path / "none.tsv")))
    needs = {train: {done: {"a"}}, other: {train: {"b"}}, every: {other: {"c"}, train: {"d"}}}
    plan = plan_of([train, other, every], needs, {"proposed": 400.0})
    assert plan == {
        2: Step("train", [], 2, None, 400.0, Path("logs/train/x.log")),
        3: Step("superresolve", [2], 2, 12.5, TYPICAL["superresolve"], None),
        0: Step("all", [3, 2], 2, None, TYPICAL["all"], None),
    }
    assert plan_of([job_(job(1, "something"))], {}, {})[1].typical == OTHERWISE


@pytest.mark.parametrize("text", ["", "s\n", "h:m:s\n1\n", "s\nNA\n"])
def test_a_benchmark_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / "b.tsv").write_text(text)
    assert plan_of([job_(job(1, "x", benchmark=tmp_path / "b.tsv"))], {}, {})[1].expected is None


def record(event, **facts):
    made = logging.LogRecord("snakemake", logging.INFO, "", 0, "", (), None)
    made.event = SimpleNamespace(value=event) if event else None
    vars(made).update(facts)
    return made


def test_what_snakemake_says_is_heard_and_told_in_one_line():
    now, said = [0.0], []
    plan = {1: step("x", 60), 2: step("x", 120, 1), 3: step("all", 0, 2)}
    watch = Watch(Forecast(plan, cores=2), said.append, lambda: now[0])
    watch.tell()
    watch.handle(record("job_started", jobs=[1]))
    now[0] = 30
    watch.handle(record("job_finished", job_id=1))
    watch.handle(record(None))
    watch.handle(record("job_started", jobs=[{5, 6}]))
    watch.tell()
    for n in (2, 3):
        watch.handle(record("job_finished", job_id=n))
    watch.tell()
    assert said == [
        "whole run: 0 of 3 steps done, about 3 min left",
        "whole run: 1 of 3 steps done, about 60 s left",
    ], "and nothing at the end"


def test_the_lines_come_by_themselves_until_the_end(monkeypatch):
    monkeypatch.setattr("microsr.workflow.whole_run.FIRST", 0.01)
    said = []
    watch = Watch(Forecast({n: step("x", 60) for n in range(2)}, cores=1), said.append)
    watch.begin()
    began = time.monotonic()
    while len(said) < 4 and time.monotonic() - began < 60:
        time.sleep(0.01)
    watch.end()
    assert len(said) >= 4 and all(
        re.fullmatch(r"whole run: 0 of 2 steps done, about \d+ \S+ left", line) for line in said
    )
    time.sleep(0.1)
    count = len(said)
    time.sleep(0.3)
    assert len(said) == count
    single = []
    Watch(Forecast({1: step("x", 60)}, cores=1), single.append).begin()
    assert not single, "one step tells of itself"


def test_a_line_is_written_in_one_piece(capsys):
    Watch(Forecast({n: step("x", 60) for n in range(2)}, cores=1)).tell()
    assert capsys.readouterr().err == "whole run: 0 of 2 steps done, about 2 min left\n"
