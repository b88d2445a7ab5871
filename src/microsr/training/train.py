"""Training of a method (`training.methods`): patches in, a generator G1 out.

The state after any step is the method's own (networks, optimisers), the step number and the history so far; schedules,
data order and noise are functions of the seed and the step. So a training that was cut off goes on as if it had not
been, on as many processes as there are then.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import microsr
from microsr import config
from microsr.core.code_version import code_version
from microsr.core.errors import UserError
from microsr.core.files import write_csv
from microsr.core.progress import Progress, logger
from microsr.core.provenance import run_file, write_run
from microsr.core.registry import load_thing
from microsr.core.registry.methods import METHODS
from microsr.networks.devices import choose_algorithms, choose_device, choose_precision
from microsr.networks.families import build_g1
from microsr.networks.model_file import read_archive, save_generator, write_archive
from microsr.training.attempts import sole_attempt
from microsr.training.checkpoint import explain_fresh, identify, load_state, save_state, state_folder
from microsr.training.distributed import Agreement, join
from microsr.training.methods.method import Data, Setup, TrainableMethod, scale_of
from microsr.training.monitor import Board, History, divergence_error

HISTORY_ROWS = 500
PANELS = 20
"""Sample panels over a training."""
STOPPED = 143
"""Exit status after a signal to stop: the state is saved, and the same command goes on."""
GO_ON, SAVE, STOP = range(3)
PATCHES = {
    "clinical": "clinical patches (.npy)",
    "micro": "uCT patches (.npy)",
    "scans": "scans of the uCT patches (.npy)",
    "scan_table": "scanners of these scans (.csv)",
    "scanner_table": "scanner that was measured on clinical CTs (.csv)",
}
"""What files of patches may hold, by the flag that gives them."""


def learning_rate_at(step: int, steps: int, settings: config.Train) -> float:
    """Constant for the first constant_fraction of the steps, then linear to 0 (Zhu et al. 2017)."""
    constant = settings.constant_fraction * steps
    return settings.learning_rate * min(1.0, (steps - step) / max(steps - constant, 1.0))


def normalisation_fixed_at(step: int, steps: int, settings: config.Train) -> float:
    """Share of G1's normalisation that is fixed, as it is at inference: 0 while the learning rate is constant, then
    rising evenly, and 1 from the middle of its fall on.
    """
    constant = settings.constant_fraction * steps
    return min(1.0, max(0.0, step + 1 - constant) / max((steps - constant) / 2, 1.0))


def candidate_steps(steps: int, settings: config.Train) -> list[int]:
    """After which of `steps` steps a model is kept, evenly spaced behind the start; the last one is the end."""
    first = settings.start_steps
    return [first + round((steps - first) * k / settings.candidates) for k in range(1, settings.candidates + 1)]


def trainable(kind: str) -> type[TrainableMethod]:
    """The method of this kind, one of `core.registry.methods`."""
    return load_thing(METHODS[kind].place)


def train(
    files: Mapping[str, Sequence[Path]],
    output: Path,
    state: Path,
    *,
    settings: config.Train,
    method: config.TrainedMethod,
    window_hu: tuple[float, float],
    seed: int,
    compute: config.Compute,
    scanner: config.Scanner | None = None,
    attempt: int = 1,
) -> None:
    """Train one model, or go on with it, and write generator.pt, history.csv and run.json into `output`; in place of
    generator.pt, of a training that keeps several candidates, generator.1.pt, generator.2.pt, ...

    files: patch files (int16 [patches, rows, columns], HU), one a case, by what they hold: those that the method's data
    asks for (`config.TrainedMethod.files`). state: folder for unfinished trainings.
    scanner: needed by a method that learns from its noise. attempt: see `sole_attempt`. Started by torchrun, each
    process takes its share of the work and the first one writes.

    Raises
    ------
    UserError
        The losses or weights are no longer finite or have exploded, the batch cannot be shared evenly, there is no such
        device, another process does the same training, or the outputs cannot be written.
    """
    started = time.time()
    torch.set_num_threads(compute.threads)
    choose_algorithms(compute.deterministic)
    with join(choose_device(compute.device)) as processes:
        portions = processes.count * compute.accumulate
        if settings.batch_size % portions:
            raise UserError(
                f"train.batch_size is {settings.batch_size}, must be divisible by processes x accumulate = {portions}"
            )
        precision = choose_precision(settings.precision, processes.device)
        setup = Setup(
            settings, method, seed, window_hu=window_hu, scanner=scanner, precision=precision, processes=processes,
            accumulate=compute.accumulate, compiled=compute.compile,
        )  # fmt: skip
        kind = trainable(method.kind)
        data = kind.open_data(files, setup)
        model = kind(setup, data.sizes)
        described = {
            "method": method.model_dump(exclude={"train"}),
            "train": settings.model_dump(exclude={"repeats"}),
            "window_hu": window_hu,
            "seed": seed,
            "precision": precision,  # "auto" may mean another one on another machine
        }
        if method.needs_scanner(settings):
            described["scanner"] = scanner.model_dump()
        patches = [file for name in method.files for file in files[name]]
        identity = identify(described, patches, code_version("train"))
        folder = processes.tell(state_folder(state, identity) if processes.first else None)
        with sole_attempt(folder, attempt) if processes.first else contextlib.nullcontext():
            history, attempts = _run(model, data, folder, identity, setup, compute)
            if not processes.first:
                return
            steps = settings.start_steps + settings.epochs * data.steps_per_epoch
            scale = scale_of(data.sizes)
            g1 = build_g1(settings.network, scale, model.SAMPLER, setup.slices)
            micro_mm = spacing_of(files["micro"])
            clinical_mm = spacing_of(files["clinical"]) if files.get("clinical") else micro_mm and scale * micro_mm
            facts = {
                "kind": method.kind,
                "network": settings.network,
                "sampler": model.SAMPLER,
                "window_hu": list(window_hu),
                "seed": seed,
                "clinical_spacing_mm": clinical_mm,
                "micro_spacing_mm": micro_mm,
                "provenance": identity | {"microsr": microsr.__version__},
            }
            if data.slice_mm is not None:
                facts |= {"slices": setup.slices, "slice_mm": list(data.slice_mm)}
            pairs, seconds = steps * settings.batch_size, sum(attempt["seconds"] for attempt in attempts)
            try:
                output.mkdir(parents=True, exist_ok=True)
                for number, step in enumerate(candidate_steps(steps, settings), start=1):
                    last = number == settings.candidates
                    g1.load_state_dict(model.generator() if last else read_archive(_candidate(folder, step), "cpu"))
                    name = "generator.pt" if settings.candidates == 1 else f"generator.{number}.pt"
                    save_generator(output / name, g1, facts | {"steps": step})
                write_csv(output / "history.csv", pd.DataFrame(history.rows))
                write_run(
                    output / "run.json", "train", described, patches, started, attempts=attempts,
                    arithmetic={"gflop_per_pair": kind.gigaflops_per_pair(setup, data.sizes)},
                    speed={"pairs_per_second": pairs / seconds, "device": processes.device, "threads": compute.threads},
                )  # fmt: skip
            except OSError as error:
                raise UserError(
                    f"the training has come to its end, but the model could not be written into {output} ({error}); "
                    "free some space and run again: it goes on from the last state that was saved"
                ) from None


def _candidate(folder: Path, step: int) -> Path:
    """Where the weights after a step wait for the end, when they will be saved as a model."""
    return folder / f"candidate-{step:09d}.pt"


def _run(
    model: TrainableMethod,
    data: Data,
    folder: Path,
    identity: dict[str, Any],
    setup: Setup,
    compute: config.Compute,
) -> tuple[History, list[dict[str, Any]]]:
    """All steps that are left to do; the history, and when and how each attempt did its part."""
    settings, processes = setup.train, setup.processes
    done = load_state(folder, processes.device)
    step, history, attempts = 0, History(), []
    if processes.tell(done and done["step"]) != (done and done["step"]):
        raise UserError(
            f"the processes of the training read different states in {folder}; it must be one folder for all"
        )
    if done is not None:
        model.load(done)
        step, attempts = done["step"], done["attempts"]
        history = History(done["history"], done["sums"])
        logger.info("going on at step %d from %s", step, folder)
    elif (reason := explain_fresh(folder, identity)) is not None:
        logger.info("starting fresh, not from an unfinished training: %s", reason)
    began = time.monotonic()
    attempts.append(
        {"start_step": step, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "device": processes.device}
        | {"threads": compute.threads, "processes": processes.count}
    )

    def save() -> None:
        _check_weights(model, step)
        attempts[-1] |= {"steps": step - attempts[-1]["start_step"], "seconds": time.monotonic() - began}
        record = {"step": step, "history": history.rows, "sums": history.sums(step), "attempts": attempts}
        if board is not None:
            board.flush()
            save_state(folder, step, model.state() | record)

    steps, first = settings.start_steps + settings.epochs * data.steps_per_epoch, settings.start_steps
    kept = candidate_steps(steps, settings)[:-1]
    every, panel_every = max(1, steps // HISTORY_ROWS), max(1, steps // PANELS)
    share = processes.share(settings.batch_size)
    examples = data.examples()
    progress = Progress(steps, "step", start=step)
    agree = Agreement(processes)
    saved_at = time.monotonic()
    with (
        contextlib.closing(progress),
        contextlib.closing(Board(folder, step, settings.batch_size, processes.device))
        if processes.first
        else contextlib.nullcontext() as board,
        _stop_requested() as stop,
    ):
        while step < steps:
            if step < first:
                rate = settings.learning_rate
                history.add(model.start(step, data.pairs(step, share), rate))
            else:
                if share_fixed := normalisation_fixed_at(step - first, steps - first, settings):
                    model.fix_normalisation(share_fixed)
                rate = learning_rate_at(step - first, steps - first, settings)
                history.add(model.step(step - first, data.batch(step - first, share), rate))
            step += 1
            if board is not None and step in kept:
                # Before the state of this step is saved: who goes on from an earlier one comes by here again.
                write_archive(_candidate(folder, step), model.generator())
            if step % every == 0 or step in (first, steps):
                row = history.close_row(step, max(step - first, 0) / data.steps_per_epoch, rate)
                if board is not None:
                    board.show_row(row)
            if board is not None and step % panel_every == 0:
                board.show_panel(examples, model.superresolve(examples), step)
            progress.advance(note=history.last())
            due = time.monotonic() - saved_at > 60 * compute.checkpoint_minutes
            saved_at = time.monotonic() if due else saved_at
            wanted = agree(STOP if stop else SAVE if due else GO_ON)
            if wanted == STOP:
                _stop(save, step, stop)
            elif wanted == SAVE:
                _save_or_warn(save)
    _check_weights(model, step)
    attempts[-1] |= {"steps": step - attempts[-1]["start_step"], "seconds": time.monotonic() - began}
    return history, attempts


def _check_weights(model: TrainableMethod, step: int) -> None:
    """A step may break the weights although its own losses are still right: only those of the next one would tell."""
    for name, network in model.networks.items():
        if not all(values.isfinite().all() for values in network.state_dict().values()):
            raise divergence_error(f"weights of {name} are not finite after step {step}")


def _save_or_warn(save: Callable[[], None]) -> None:
    try:
        save()
    except OSError as error:
        logger.warning(
            "the state could not be saved (%s); the training goes on, and the last one that could be still counts",
            error,
        )


def _stop(save: Callable[[], None], step: int, signals: list[int]) -> None:
    """Save and end the process, after a signal to this process or to another one of the training."""
    try:
        save()
    except OSError as error:
        raise UserError(
            f"stopped after step {step}, and the state could not be saved ({error}); free some space and run again: it "
            "goes on from the last state that was saved"
        ) from None
    by = f" by signal {signals[0]}" if signals else ""
    logger.warning("stopped%s after step %d; the state is saved, run again to go on", by, step)
    sys.exit(STOPPED)


def spacing_of(patches: Sequence[Path]) -> float | None:
    """Pixel size that patches were cut at, mm, from the run.json beside each file: the mean; None if one does not
    say.
    """
    found = []
    for path in patches:
        try:
            x, y = map(float, json.loads(run_file(path).read_text(encoding="utf-8"))["spacing_mm"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not (0 < x < math.inf and 0 < y < math.inf):
            return None
        found += [x, y]
    return sum(found) / len(found)


@contextlib.contextmanager
def _stop_requested() -> Iterator[list[int]]:
    """A list that receives the number of a signal to stop: Ctrl-C, a scheduler's SIGTERM, or SIGUSR1 before a time
    limit.
    """
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.signal(s, lambda number, frame: received.append(number)) for s in signals]
    try:
        yield received
    finally:
        for s, handler in zip(signals, before, strict=True):
            signal.signal(s, handler)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr train`."""
    for name, what in PATCHES.items():
        parser.add_argument(f"--{name}", type=Path, nargs="+", help=f"{what}, one file a case")
    parser.add_argument("--output", type=Path, required=True, help="folder for generator.pt, history.csv, run.json")
    parser.add_argument("--state", type=Path, required=True, help="folder for the state of unfinished trainings")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--window_hu", type=float, nargs=2, required=True, help="HU that become -1 and 1")
    parser.add_argument(
        "--attempt", type=int, default=1, help="how often the workflow has started this training, with this time"
    )
    config.add_method_flags(parser)
    for section in (config.Train, config.Compute, config.Scanner):
        config.add_flags(parser, section)


def main(namespace: argparse.Namespace) -> None:
    """Run `microsr train`."""
    method = config.method_from_flags(namespace)
    files = {name: getattr(namespace, name) for name in PATCHES}
    for name in method.files:
        if not files[name]:
            raise UserError(f"--{name} must be given: kind {method.kind} learns from {PATCHES[name]}")
    train(
        files,
        namespace.output,
        namespace.state,
        settings=config.from_flags(namespace, config.Train),
        method=method,
        window_hu=tuple(namespace.window_hu),
        seed=namespace.seed,
        compute=config.from_flags(namespace, config.Compute),
        scanner=config.from_flags(namespace, config.Scanner),
        attempt=namespace.attempt,
    )
