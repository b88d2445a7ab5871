"""Volumes slice by slice: only what is indexed is read, and threads keep order and bounds."""

import threading
import time

import numpy as np
import pytest

from microsr.core.errors import UserError
from microsr.volume.slices import Slices, in_order, refuse_constant

ARRAY = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


@pytest.fixture
def asked():
    return []


@pytest.fixture
def slices(asked):
    return Slices(lambda z: asked.append(z) or ARRAY[z], ARRAY.shape, ARRAY.dtype)


def test_indexing_is_that_of_an_array(slices):
    assert slices.shape == (4, 5, 6) and len(slices) == 4 and slices.ndim == 3 and slices.dtype == np.int16
    for key in (
        0, -1, np.int64(2), slice(1, 3), slice(None), slice(3, None, -2), slice(2, 2), (1, 2, 3), (slice(1, 4), 2),
        (slice(None), slice(0, 4), slice(None, 5)), (0, slice(2)), (slice(None), ..., 1),
    ):  # fmt: skip
        assert np.array_equal(slices[key], ARRAY[key]), key
    with pytest.raises(IndexError):
        slices[4]
    assert np.array_equal(np.asarray(slices), ARRAY)
    assert np.asarray(slices, np.float32).dtype == np.float32
    assert np.array_equal(list(slices), ARRAY)


def test_only_what_is_indexed_is_read(slices, asked):
    _ = slices[2]
    assert asked == [2]
    _ = slices[1:3, :2]
    assert asked == [2, 1, 2]


def test_a_part_is_still_unread(slices, asked):
    part = slices.take(1, 3)
    assert part.shape == (2, 5, 6) and asked == []
    assert np.array_equal(part[-1], ARRAY[2]) and asked == [2]
    with pytest.raises(IndexError):
        part[2]


def test_results_come_in_order_whatever_takes_longer():
    def work(number):
        time.sleep(0.002 * (number % 3))
        return number**2

    assert list(in_order(work, range(20), threads=3)) == [n**2 for n in range(20)]


def test_only_a_few_items_are_under_way_at_a_time():
    started, taken, lock = [0], [0], threading.Lock()

    def items():
        for number in range(30):
            taken[0] += 1
            yield number

    def work(number):
        with lock:
            started[0] += 1
        return number

    for done, _ in enumerate(in_order(work, items(), threads=2), 1):
        assert taken[0] <= done + 3
    assert started[0] == 30


def test_an_error_ends_the_work():
    started = []

    def work(number):
        started.append(number)
        if number == 3:
            raise UserError("slice 3")
        return number

    with pytest.raises(UserError, match="slice 3"):
        list(in_order(work, range(1000), threads=2))
    assert len(started) < 20


def test_a_volume_without_content_is_refused():
    refuse_constant(3, 4, "a.nii")
    with pytest.raises(UserError, match=r"^a\.nii: is constant \(7 everywhere\); give a volume with content$"):
        refuse_constant(np.int16(7), np.int16(7), "a.nii")
