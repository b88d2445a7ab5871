"""Batches: what a sample is hangs on the seed and its number alone, wherever the patches lie and whoever draws them."""

import itertools

import numpy as np
import pytest
import torch

from microsr import config
from microsr.core.errors import UserError
from microsr.physics.window import normalise, to_hu
from microsr.training import batches as sampling
from microsr.training.batches import Batches, Mapped, Resident, apply_symmetry

WINDOW = (-1000.0, 400.0)
SCANNER = config.Scanner(noise_hu=70)


def patch_file(path, patches):
    np.save(path, patches.astype(np.int16))
    return path


@pytest.fixture(params=[4, 8])
def files(request, tmp_path):
    """Clinical and uCT patch files of two cases; one case has fewer patches than are drawn from it in an epoch."""
    random, size = np.random.default_rng(0), request.param
    return [
        [
            patch_file(tmp_path / f"{name}{case}.npy", random.integers(-1100, 500, (count, pixels, pixels)))
            for case, count in enumerate((7, 15))
        ]
        for name, pixels in (("clinical", size), ("micro", 8 * size))
    ]


def batches(files, **changed):
    arguments = {
        "patches_per_case": 10, "batch_size": 5, "mix_fraction": 0.5, "augment": True, "window_hu": WINDOW, "seed": 3,
        "start_noise": SCANNER,
    } | changed  # fmt: skip
    return Batches(*files, **arguments)


def same(one, other):
    return all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


@pytest.mark.parametrize("cuts", [(0, 5), (0, 2, 5), (0, 1, 2, 4, 5), (0, 3, 3, 5)])
def test_the_parts_of_a_batch_are_the_whole_bit_for_bit(files, cuts):
    stream = batches(files)
    for step in (0, 3, 4, 9):
        for draw in (Batches.batch, Batches.pairs):
            ends = [both for both in itertools.pairwise(cuts) if draw is Batches.batch or both[0] < both[1]]
            parts = [draw(batches(files), step, slice(*both)) for both in ends]
            assert same(draw(stream, step), map(torch.cat, zip(*parts, strict=True)))


def test_a_part_reads_and_adds_noise_to_its_own_patches_only(files, monkeypatch):
    read, noisy = [], []
    take, add_noise = Mapped.take, sampling.add_noise
    monkeypatch.setattr(Mapped, "take", lambda self, places: read.append(len(places)) or take(self, places))
    monkeypatch.setattr(sampling, "add_noise", lambda p, *rest: noisy.append(len(p)) or add_noise(p, *rest))
    batches(files).batch(0, slice(1, 3))
    assert (sum(read), sum(noisy)) == (2 + 2 + 1, 0), "two clinical, two uCT and one mixed patch"
    batches(files).pairs(0, slice(1, 3))
    assert (sum(read), sum(noisy)) == (5 + 2, 2)


def test_resident_and_mapped_patches_give_the_same_bits(files, monkeypatch):
    mapped = batches(files)
    monkeypatch.setattr(sampling, "fits", lambda size, device: True)
    resident = batches(files)
    assert isinstance(sampling.open_stored(files[0], "cpu"), Resident)
    for step in range(9):
        assert same(mapped.batch(step), resident.batch(step))
    assert same(mapped.batch(2, slice(2, 4)), resident.batch(2, slice(2, 4)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_gpu_sees_the_patches_that_a_cpu_sees(files, share, monkeypatch):
    monkeypatch.setattr(sampling, "RESIDENT_SHARE", share)
    for step in range(5):
        there, here = batches(files, device="cuda").batch(step), batches(files).batch(step)
        assert all(x.device.type == "cuda" for x in there)
        assert torch.equal(there.clinical.cpu(), here.clinical) and torch.equal(there.b.cpu(), here.b)
        assert torch.allclose(there.a.cpu(), here.a, atol=1e-6)


def test_patches_live_on_a_gpu_only_if_they_leave_room_for_the_networks(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 8000))
    largest = int(1000 * sampling.RESIDENT_SHARE)
    assert 0 < largest < 1000 / 2
    assert sampling.fits(largest, "cuda") and sampling.fits(largest, "cuda:1")
    assert not sampling.fits(largest + 1, "cuda")
    assert not sampling.fits(1, "cpu")


def test_on_a_cpu_the_files_stay_on_disk(files):
    stored = sampling.open_stored(files[1], "cpu")
    assert all(isinstance(array.base, np.memmap) for array in stored._arrays)


def test_a_resumed_training_sees_what_the_straight_one_sees(files):
    straight, resumed = batches(files), batches(files)
    seen = [straight.batch(step) for step in range(9)]
    assert same(seen[8], straight.batch(8)), "drawing a step changes nothing"
    for step in (6, 7, 8, 1):
        assert same(seen[step], resumed.batch(step))
    assert not any(torch.equal(seen[step].b, seen[step + 4].b) for step in range(5)), "the second epoch is another one"
    assert not torch.equal(seen[6].b, batches(files, seed=4).batch(6).b)


def test_an_epoch_draws_evenly_from_cases_of_any_size(tmp_path):
    levels = [
        [
            patch_file(tmp_path / f"{size}_{case}.npy", np.full((count, size, size), -800 + 300 * case))
            for case, count in enumerate((3, 50))
        ]
        for size in (4, 32)
    ]
    stream = batches(levels, patches_per_case=20)
    assert stream.steps_per_epoch == 8
    drawn = torch.cat([stream.batch(step).clinical for step in range(8)])[:, 0, 0, 0]
    assert (drawn < normalise(torch.tensor(-700.0), WINDOW)).sum() == 20


def test_every_stream_is_turned_by_each_symmetry_of_the_square_equally_often(tmp_path):
    random = np.random.default_rng(0)
    clinical, micro = random.integers(-900, 300, (4, 4)), random.integers(-900, 300, (32, 32))
    paths = [[patch_file(tmp_path / f"{len(p)}.npy", p[None])] for p in (clinical, micro)]
    stream = batches(paths, patches_per_case=1600, batch_size=16)
    seen = [stream.batch(step) for step in range(100)]
    mixed = [batch.a[(batch.a != batch.clinical).flatten(1).any(1)] for batch in seen]
    pooled = micro.reshape(4, 8, 4, 8).mean(axis=(1, 3))
    drawn = {
        "clinical": (clinical, [b.clinical for b in seen]),
        "micro": (micro, [b.b for b in seen]),
        "mixed": (pooled, mixed),
    }
    for name, (stored, images) in drawn.items():
        known = torch.stack([normalise(torch.tensor(apply_symmetry(stored, k).copy()), WINDOW) for k in range(8)])
        distance = (torch.cat(images) - known).abs().amax(dim=(2, 3))
        assert (distance.amin(dim=1) < 1e-5).all(), name
        counts = np.bincount(distance.argmin(dim=1), minlength=8)
        assert counts == pytest.approx(len(distance) / 8, abs=4.5 * np.sqrt(len(distance) / 8)), name
    assert len({apply_symmetry(clinical, k).tobytes() for k in range(8)}) == 8


def test_mixed_inputs_are_other_patches_than_the_uct_of_their_step(tmp_path):
    """Else G1 would be shown the very image that D1 is told to take for real."""
    levels = [
        [patch_file(tmp_path / f"{n}.npy", np.arange(-500, 300)[:, None, None] + np.zeros((n, n)))] for n in (4, 32)
    ]
    stream = batches(levels, patches_per_case=800, mix_fraction=1.0, augment=False)
    drawn = [stream.batch(step) for step in range(160)]
    mixed, micro, clinical = (
        to_hu(torch.cat([getattr(batch, name) for batch in drawn])[:, 0, 0, 0], WINDOW).round()
        for name in ("a", "b", "clinical")
    )
    for one, other in ((mixed, micro), (mixed, clinical), (micro, clinical)):
        assert torch.equal(one.sort().values, other.sort().values), "an epoch shows every patch"
        assert (one == other).sum() < 8, "of 800, by chance about one"


def test_without_augmentation_patches_stay_as_they_are(tmp_path):
    micro = np.random.default_rng(0).integers(-900, 300, (1, 32, 32))
    paths = [[patch_file(tmp_path / f"{p.shape[-1]}.npy", p)] for p in (micro[:, ::8, ::8], micro)]
    batch = batches(paths, augment=False).batch(0)
    assert torch.equal(batch.b, normalise(torch.tensor(micro), WINDOW).expand(5, 1, 32, 32))


def test_each_pair_of_a_start_gets_noise_of_its_own_with_the_scanners_sd(tmp_path):
    grey = [[patch_file(tmp_path / f"{n}.npy", np.full((1, n, n), -300))] for n in (8, 64)]
    noisy, plain = (batches(grey, patches_per_case=400, start_noise=noise) for noise in (SCANNER, None))
    noise = torch.cat([(noisy.pairs(n).a - plain.pairs(n).a)[:, 0] for n in range(80)]).flatten(1)
    assert noise.std().item() == pytest.approx(0.1, rel=0.03), "70 HU of a window of 1400 HU that is 2 wide"
    assert torch.corrcoef(noise).fill_diagonal_(0).abs().mean() < 2 / np.sqrt(noise.shape[1])


def test_noise_is_added_as_the_scanner_draws_it_and_stays_in_the_window():
    patches = torch.linspace(-1, 1, 2 * 64).reshape(2, 1, 8, 8)
    found = sampling.add_noise(patches, SCANNER, WINDOW, np.random.default_rng(5))
    drawn = sampling.noise((2, 8, 8), SCANNER, sampling.UNRELATED_MM, np.random.default_rng(5))
    expected = np.clip(patches.numpy()[:, 0] + 70 / 700 * drawn, -1, 1)
    assert found.dtype == torch.float32 and found[:, 0].numpy() == pytest.approx(expected, abs=1e-6)
    assert found.min() == -1 and found.max() == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "holds no patches"),
        (lambda path: path.write_text("patches"), "holds no patches"),
        (lambda path: np.save(path, np.zeros((3, 8, 8), np.float32)), "holds float32 patches of 8 pixels, not int16"),
        (lambda path: np.save(path, np.zeros((3, 9, 9), np.int16)), "holds int16 patches of 9 pixels, not int16 of 8"),
        (lambda path: None, "holds patches of 8 pixels, not 2, 4, 8, 16 times the 8 of"),
    ],
)
def test_a_damaged_or_foreign_file_is_named(tmp_path, damage, message):
    paths = [patch_file(tmp_path / f"{case}.npy", np.zeros((3, 8, 8))) for case in range(2)]
    damage(paths[1])
    with pytest.raises(UserError, match=f"1.npy {message}"):
        batches([paths, paths[::-1]])
