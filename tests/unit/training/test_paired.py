"""Pairs in training: each scan stays with its patch, and its noise is the scanner's, new for each sample."""

import numpy as np
import pandas as pd
import pytest
import torch

from microsr.config import Scanner
from microsr.core.errors import UserError
from microsr.core.files import write_csv
from microsr.preprocessing.patch_files import NEIGHBOUR_COLUMNS, SCAN_COLUMNS, read_scans
from microsr.training.paired import PairBatches

WINDOW = (-1000.0, 400.0)
COUNT, SCANS = 12, 3
HOW = {"patches_per_case": 24, "batch_size": 4, "augment": True, "window_hu": WINDOW, "seed": 3}


def write(folder, count=COUNT, scans=SCANS, kernels=("lung", "D45", "B30"), size=8, slices=1, reached=(1, 1)):
    """Pairs of two cases: patches of random blocks, and as scans their means, 20 HU higher from scan to scan; of
    several slices, 3 HU higher from slice to slice, the own one in the middle.
    """
    files = [[], [], []]
    for case in (1, 2):
        coarse = np.random.default_rng(case).integers(-900, 200, (count, size, size))
        micro = coarse.repeat(8, 1).repeat(8, 2)
        seen = coarse[:, None, None] + 20 * np.arange(scans)[:, None, None, None]
        seen = (seen + 3 * (np.arange(slices) - slices // 2)[:, None, None]).reshape(-1, size, size)
        rows = [["a", "micro", 0, 0, 0, 8 * size, kernels[k % len(kernels)], 0.29] for k in range(count * scans)]
        further = NEIGHBOUR_COLUMNS if slices > 1 else []
        rows = [row + [0.4 + 0.1 * case, *reached][: len(further)] for row in rows]
        of_case = [folder / f"{case}{name}" for name in ("micro.npy", "scans.npy", "scans.csv")]
        np.save(of_case[0], micro.astype(np.int16))
        np.save(of_case[1], seen.astype(np.int16))
        write_csv(of_case[2], pd.DataFrame(rows, columns=SCAN_COLUMNS + further))
        for of_kind, file in zip(files, of_case, strict=True):
            of_kind.append(file)
    return files


def batches(folder, noise_hu=0.0, noise_range=None, stored=1, reached=(1, 1), **how):
    files = write(folder, slices=stored, reached=reached)
    return PairBatches(*files, scanner=Scanner(noise_hu=noise_hu), noise_range=noise_range, **(HOW | how))


def hu(image):
    return (image + 1) * 700 - 1000


def offsets(data, steps=range(12)):
    """How much higher each sample's scan is than its patch, HU [samples, rows, columns]."""
    pairs = [data.batch(step) for step in steps]
    a, b = (torch.cat(images) for images in zip(*pairs, strict=True))
    return (hu(a) - hu(b[..., ::8, ::8]))[:, 0]


def test_each_scan_is_turned_and_flipped_with_its_patch(tmp_path):
    data = batches(tmp_path)
    assert data.sizes == (8, 64) and data.steps_per_epoch == 12
    assert offsets(data).abs().max() < 0.01


def test_a_scanner_is_drawn_for_each_sample(tmp_path):
    found = offsets(batches(tmp_path, noise_range=(1.0, 1.0)))
    levels = found.mean((1, 2))
    assert (found - levels[:, None, None]).abs().max() < 0.01
    assert sorted(set(levels.round().tolist())) == [0, 20, 40]


def test_noise_is_the_stated_scanners_and_new_for_each_sample(tmp_path):
    data = batches(tmp_path, noise_hu=10.0, window_hu=(-2000.0, 2000.0), batch_size=48)
    pairs = [data.batch(step) for step in (0, 1)]
    noise = [2000 * (p.a - p.b[..., ::8, ::8])[:, 0] for p in pairs]
    assert torch.cat(noise).std().item() == pytest.approx(10, rel=0.03)
    assert len({tuple(image.flatten().tolist()) for image in torch.cat(noise)}) == 96


def test_drawn_scanners_have_noise_of_their_range_and_grain(tmp_path):
    data = batches(tmp_path, 10.0, (0.5, 2.0), window_hu=(-2000.0, 2000.0), batch_size=48)
    found = torch.cat([2000 * (p.a - p.b[..., ::8, ::8])[:, 0] for p in map(data.batch, range(12))])
    level = found.mean((1, 2)).div(20).round()
    sd = found.std((1, 2))
    assert sd.min() < 8 and sd.max() > 15 and 9 < sd.mean() < 14
    neighbours = [(found[level == n] - 20 * n) for n in (0, 2)]  # lung and B30
    grain = [((x[..., 1:] * x[..., :-1]).mean() / x.square().mean()).item() for x in neighbours]
    assert grain[0] < 0.15 < 0.5 < grain[1], "a soft kernel's noise is coarse"


def test_a_part_of_a_step_is_what_it_is_in_the_whole(tmp_path):
    data = batches(tmp_path, 30.0, (0.5, 2.0))
    whole, part = data.batch(5), data.batch(5, slice(1, 3))
    assert all(torch.equal(x[1:3], y) for x, y in zip(whole, part, strict=True))
    again = batches(tmp_path, 30.0, (0.5, 2.0)).batch(5)
    assert all(torch.equal(x, y) for x, y in zip(whole, again, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(whole, data.pairs(5), strict=True))
    assert torch.equal(data.examples(), data.batch(0).a)


def test_noise_leaves_the_window_clipped(tmp_path):
    a = batches(tmp_path, 2000.0).batch(0).a
    assert a.min() == -1 and a.max() == 1


@pytest.mark.parametrize("how", [{"count": 11}, {"scans": 2}, {"size": 5}])
def test_scans_of_other_patches_are_refused(tmp_path, how):
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.mkdir(), wrong.mkdir()
    (micro, _, tables), (_, scans, _) = write(right), write(wrong, **how)
    with pytest.raises(UserError, match="they are not those of 12 patches of 64 pixels"):
        PairBatches(micro, scans, tables, scanner=Scanner(), **HOW)


def test_a_table_of_scans_that_is_none_is_refused(tmp_path):
    _, _, (table, _) = write(tmp_path, kernels=("B70",))
    with pytest.raises(UserError, match="names a kernel that does not exist"):
        read_scans(table)
    table.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="has no column case"):
        read_scans(table)


def test_measured_noise_keeps_its_size_and_direction_however_patches_are_turned(tmp_path):
    along = np.fft.fftfreq(16)
    power = np.exp(-((along / 0.08) ** 2))[None] * np.exp(-((along / 0.3) ** 2))[:, None]  # drawn out along the rows
    data = batches(tmp_path, 99.0, window_hu=(-2000.0, 2000.0), batch_size=48, measured=[400 * power / power.mean()])
    found = torch.cat([2000 * (p.a - p.b[..., ::8, ::8])[:, 0] for p in map(data.batch, range(12))])
    assert found.std().item() == pytest.approx(20, rel=0.05), "not the stated 99 HU"
    beside = (found[..., 1:] * found[..., :-1]).mean() / found.square().mean()
    below = (found[:, 1:] * found[:, :-1]).mean() / found.square().mean()
    assert beside > 0.8 > 0.5 > below


def test_the_slices_of_a_scan_stay_together_and_are_seen_from_either_side(tmp_path):
    data, single = (batches(tmp_path, noise_range=(1.0, 1.0), stored=5, slices=slices) for slices in (3, 1))
    found, alone = (torch.cat([part.batch(step).a for step in range(12)]) for part in (data, single))
    assert found.shape == (48, 3, 8, 8) and torch.equal(found[:, 1:2], alone)
    steps = (hu(found[:, 1:]) - hu(found[:, :-1])).flatten(1)
    up, down = ((steps - step).abs().amax(1) < 0.01 for step in (3, -3))
    assert (up | down).all() and 12 < up.sum() < 36
    assert data.slice_mm == pytest.approx((0.5, 0.6)) and single.slice_mm is None


def test_without_turns_slices_keep_their_order(tmp_path):
    found = batches(tmp_path, stored=3, slices=3, augment=False).batch(0).a
    assert (hu(found[:, 2]) - hu(found[:, 0]) - 6).abs().max() < 0.01


def grain(data, sd=1.0):
    """The noise of each sample's slices, HU [samples, slices, rows, columns], its SD taken for 1."""
    pairs = [data.batch(step) for step in range(12)]
    found = torch.cat([2000 * (p.a - p.b[..., ::8, ::8]) for p in pairs]) / sd
    return found - found.mean((2, 3), keepdim=True)


@pytest.mark.parametrize("measured", [(), (400 * np.ones((16, 16)),)])
def test_the_noise_of_neighbouring_slices_is_tied_as_their_profiles_overlap(measured, tmp_path):
    how = {"window_hu": (-2000.0, 2000.0), "batch_size": 48, "stored": 3, "slices": 3, "measured": measured}
    found = grain(batches(tmp_path, 20.0, **how), 20)
    assert found.std().item() == pytest.approx(1, rel=0.06)
    tied = [(found[:, 1] * found[:, k]).mean().item() for k in (0, 2)]
    expected = np.mean([np.exp(-((apart / (2 * 0.29)) ** 2)) for apart in (0.5, 0.6)])
    assert tied == pytest.approx([expected] * 2, abs=0.06)
    assert (found[:, 0] * found[:, 2]).mean().abs() < 0.12, "1 mm apart they hardly overlap"


def test_a_slice_that_is_repeated_has_the_noise_of_the_one_it_repeats(tmp_path):
    data = batches(tmp_path, 20.0, stored=3, reached=(0, 1), slices=3, window_hu=(-2000.0, 2000.0), augment=False)
    found = grain(data)
    assert torch.allclose(found[:, 0], found[:, 1], atol=0.02) and not torch.allclose(found[:, 1], found[:, 2], atol=1)


def test_scans_of_fewer_slices_than_are_asked_for_are_refused(tmp_path):
    files = write(tmp_path, slices=3)
    with pytest.raises(UserError, match=r"holds scans of 3 slices, and 5 are asked for; make them with .* --slices 5"):
        PairBatches(*files, scanner=Scanner(), slices=5, **HOW)
    files = write(tmp_path)
    with pytest.raises(UserError, match="has no column slice_mm"):
        PairBatches(*files, scanner=Scanner(), slices=3, **HOW)
