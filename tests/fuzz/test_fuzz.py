"""Spoilt inputs of every kind: each is refused in one line, or read as an independent program reads it, and none ends
the process.

A run has a quarter of them (--quarter), pytest --nightly all.

MICROSR_FUZZ=10 pytest tests/fuzz        ten times as many
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import fuzz_mutations
import fuzz_oracles
import fuzz_seeds
import fuzz_worker
import pytest
from choosing import QUARTERS

from microsr.core.errors import UserError

COUNTS = {
    "nifti": 350, "nifti.gz": 150, "nrrd": 300, "metaimage": 250, "tiff": 300, "png": 120, 
    "scanco": 150, "hdf5": 100, "txm": 100, "raw": 150, "bmp": 100, "jpeg2000": 100,
    "dicom": 350, "series": 250, "enhanced": 200,
    "zarr": 200, "n5": 150, "volume": 200, "config": 200, "sheet": 250, "model": 120, "patches": 160,
}  # fmt: skip
"""Spoilt inputs of each kind."""
TIMES = float(os.environ.get("MICROSR_FUZZ", "1"))
WRONG = {"wrong", "error", "crash", "hang"}


@pytest.fixture(scope="session")
def worker():
    """A process that tries inputs; it imports what it needs once."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "NUMEXPR_MAX_THREADS"), "1")
    process = subprocess.Popen(
        [sys.executable, fuzz_worker.__file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        encoding="utf-8", env=os.environ | one_thread,
    )  # fmt: skip
    with process:
        yield process
        process.stdin.close()


@pytest.mark.parametrize("kind", fuzz_mutations.KINDS)
def test_a_spoilt_input_is_refused_or_read_rightly(worker, kind, pytestconfig):
    number, first = round(COUNTS[kind] * TIMES), 0
    if not pytestconfig.option.nightly:
        number = -(-number // QUARTERS)
        first = number * pytestconfig.option.quarter
    worker.stdin.write(f"{kind} {first} {first + number}\n")
    worker.stdin.flush()
    found = json.loads(worker.stdout.readline())
    outcomes = found["outcomes"]
    print(kind, outcomes)
    assert not found["wrong"], "\n".join(map(json.dumps, found["wrong"]))
    assert sum(outcomes.values()) == number
    assert outcomes[fuzz_oracles.REFUSED] > 0.1 * number, "spoilt enough"
    read = outcomes.get(fuzz_oracles.AGREED, 0) + outcomes.get(fuzz_oracles.SOUND, 0)
    assert read > 0.02 * number, "and not too much"


def test_at_least_two_thousand_are_tried():
    assert sum(COUNTS.values()) >= 2000 and set(COUNTS) == set(fuzz_mutations.KINDS)


def test_the_same_number_is_the_same_input(tmp_path):
    for kind in ("nifti", "series", "config", "sheet"):
        one, again, other = (fuzz_mutations.mutated(kind, number, tmp_path) for number in (5, 5, 5 + 60))
        assert one == again and one[1] != other[1]


VOLUMES = [kind for kind in fuzz_mutations.KINDS if kind not in ("volume", "config", "sheet", "model", "patches")]


@pytest.fixture
def sound(tmp_path):
    """Writes the sound inputs of a kind: the files to read."""

    def make(kind):
        for number, (target, files) in enumerate(fuzz_seeds.seeds(kind, tmp_path)):
            fuzz_worker.write(files, tmp_path / str(number))
            yield tmp_path / str(number) / target

    return make


@pytest.mark.parametrize("kind", fuzz_mutations.KINDS)
def test_what_is_sound_is_read_rightly(sound, kind):
    assert {fuzz_oracles.judge(kind, path, path) for path in sound(kind)} == {fuzz_oracles.AGREED}


@pytest.mark.parametrize("kind", VOLUMES)
@pytest.mark.parametrize("change", ["values", "shape", "spacing", "place"])
def test_a_volume_that_is_read_wrongly_is_noticed(sound, monkeypatch, kind, change):
    by_microsr = fuzz_oracles.by_microsr

    def wrongly(path, spacing):
        image = by_microsr(path, spacing)
        array, place = image.array.copy(), image.affine.copy()
        array[-1, -1, -1] += change == "values"
        place[:3, 3] += 0.1 * (change == "place")
        array = array[:, :-1] if change == "shape" else array
        return fuzz_oracles.Image(array, tuple(s * (1.01 if change == "spacing" else 1) for s in image.spacing), place)

    monkeypatch.setattr(fuzz_oracles, "by_microsr", wrongly)
    path = next(sound(kind))
    if change == "place" and kind in ("tiff", "png", "bmp", "jpeg2000", "raw", "hdf5", "txm"):
        pytest.skip("has no place")
    with pytest.raises(fuzz_oracles.WrongError):
        fuzz_oracles.judge(kind, path, path)


@pytest.mark.parametrize("message", ["two\nlines of {}", "nothing named", "{} says SENTINEL"])
def test_a_refusal_that_is_no_good_line_is_noticed(sound, monkeypatch, message):
    path = next(sound("nifti"))

    def refuse(*_):
        raise UserError(message.format(path))

    monkeypatch.setattr(fuzz_oracles, "by_microsr", refuse)
    with pytest.raises(fuzz_oracles.WrongError):
        fuzz_oracles.judge("nifti", path, path)


SPOILT = """
import os, signal, sys, time, pathlib
import fuzz_worker, fuzz_mutations, fuzz_oracles, patience
fuzz_worker.PATIENCE = patience.limit(8)
fuzz_mutations.mutated = lambda kind, number, seeds: (str(number), {str(number): b"x"}, {str(number): b""})
FAULTS = {2: os.abort, 3: lambda: 1 / 0, 5: lambda: time.sleep(1e6), 6: lambda: bytearray(2 * fuzz_worker.ROOM)}
def judge(kind, target, sound):
    FAULTS.get(int(target.name), int)()
    return fuzz_oracles.SOUND
fuzz_oracles.judge = judge
outcomes, wrong = fuzz_worker.run("x", 0, 9, pathlib.Path("."))
print(dict(sorted(outcomes.items())), sorted((w["number"], w["outcome"], w["why"].split()[0]) for w in wrong))
"""


def test_a_crash_a_hang_an_exception_and_a_hunger_for_memory_belong_to_one_input():
    done = subprocess.run(
        [sys.executable, "-c", SPOILT], cwd=Path(__file__).parent, capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.splitlines()[-1] == (
        "{'as it was': 5, 'crash': 1, 'error': 2, 'hang': 1} [(2, 'crash', 'status'), (3, 'error', "
        "'ZeroDivisionError:'), (5, 'hang', 'status'), (6, 'error', 'MemoryError:')]"
    ), done.stdout + done.stderr
