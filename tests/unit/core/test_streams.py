"""Random streams: none draws what another draws, none changes, and none is made elsewhere."""

import ast
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

import microsr
from microsr.core.streams import Stream, key, numpy_stream, philox_stream, seed_torch, torch_stream

SOURCES = sorted(Path(microsr.__file__).parent.rglob("*.py"))
TORCH_SEED = 12345

# Of each stream: indices of seed 7 that there may be, and the key that each must have for ever, as results hang on it.
KEYS = {
    Stream.POOL: {(3,): [7, 3, 2]},
    Stream.PLANES: {(3, 0): [7, 3, 3, 0], (3, 4): [7, 3, 3, 4]},
    Stream.SLICE_PLANES: {(3,): [7, 3, 4], (3, 2): [7, 3, 4, 2]},
    Stream.FEATURES: {(): [7, 0, 5]},
    Stream.FEATURE_WEIGHTS: {(): [7, 0, 7]},
    Stream.FEATURE_WINDOWS: {(): [7, 0, 8]},
    Stream.BRONCHIOLE_CONTROLS: {(3,): [7, 3, 9]},
    Stream.BOOTSTRAP: {(): [7, 0, 10]},
    Stream.VALIDATION: {(): [7, 0, 11]},
    Stream.EXPORTED: {(): [7, 0, 31]},
    Stream.LUNGS: {(): [7, 0, 21]},
    Stream.START_NOISE: {(3,): [7, 3, 12]},
    Stream.SCANNERS: {(0x9E83486D,): [7, 0x9E83486D, 13]},  # the CRC-32 of a case's name
    Stream.PAIRS: {(3,): [7, 3, 14]},
    Stream.CANDIDATES: {(): [7, 0, 23]},
    Stream.SEARCH: {(0x9E83486D,): [7, 0x9E83486D, 20]},  # the CRC-32 of a trial's name
    Stream.SCANS: {(0x9E83486D,): [7, 0x9E83486D, 30]},
    Stream.TEXTURE_WINDOWS: {(): [7]},
    Stream.CASE: {("ab",): [7, 0x9E83486D]},  # the CRC-32 of these letters
    Stream.PATCHES: {("ab/micro",): [7, *b"ab/micro"]},
    Stream.ORDER: {("micro", 3): [7, *b"micro", 3]},
}
NAMES = ("micro", "clinical", "mixed", "start", "paired")


def test_each_stream_has_its_key_for_ever():
    """A stream whose draws are to change gets a new name: its key is no part of a step's fingerprint."""
    found = {stream: {index: key(stream, 7, *index) for index in of} for stream, of in KEYS.items()}
    assert found == KEYS
    assert set(KEYS) | {Stream.WEIGHTS} == set(Stream)


def indices(stream: Stream) -> list[tuple]:
    """Many that a stream may have."""
    numbers = range(70)
    return {
        Stream.PLANES: list(itertools.product(numbers, range(5))),
        Stream.SLICE_PLANES: [(n, *draw) for n in numbers for draw in ((), (1,), (2,), (70,))],
        Stream.CASE: [(name,) for name in ("a", "train1", "test1", "test2", "é")],
        Stream.PATCHES: [(f"{case}/{name}",) for case in ("a", "train1", "micro", "é") for name in NAMES[:2]],
        Stream.ORDER: list(itertools.product(NAMES, numbers)),
    }.get(stream, [(n,) for n in numbers] if KEYS[stream] and () not in KEYS[stream] else [()])


def test_no_two_draw_the_same_whatever_their_indices():
    """As NumPy sees them, which reads [1] and [1, 0] as one."""
    every = [(stream, seed, *index) for stream in KEYS for seed in range(3) for index in indices(stream)]
    drawn = {tuple(np.random.SeedSequence(key(*one)).generate_state(4)): one for one in every}
    assert len(drawn) == len(every) > 2000


def test_a_number_of_a_stream_is_no_letter():
    assert len({stream.value for stream in Stream}) == len(Stream.__members__)
    numbered = [stream for stream, of in KEYS.items() if key(stream, 7, *next(iter(of)))[2:3] == [stream.value]]
    assert len(numbered) >= 11 and all(0 < stream < ord(" ") for stream in numbered)


def test_each_library_draws_from_the_stream_that_it_is_asked_for():
    same = [numpy_stream(Stream.POOL, 7, 3).random() for _ in range(2)]
    assert same[0] == same[1] != numpy_stream(Stream.POOL, 7, 4).random()
    assert (
        philox_stream(Stream.SLICE_PLANES, 7, 3).random_raw() != philox_stream(Stream.SLICE_PLANES, 8, 3).random_raw()
    )
    drawn = [torch.rand(1, generator=torch_stream(Stream.PLANES, 7, 3, n, device="cpu")).item() for n in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_first_weights_are_of_their_stream():
    with torch.random.fork_rng(devices=[]):
        drawn = []
        for stream in (Stream.WEIGHTS, Stream.FEATURE_WEIGHTS):
            seed_torch(stream, TORCH_SEED)
            drawn.append(torch.rand(4))
        torch.manual_seed(TORCH_SEED)
        assert torch.equal(drawn[0], torch.rand(4)), "the weights of a CycleGAN of a seed are those that they were"
    assert not torch.equal(*drawn)


MAKERS = {
    "default_rng", "SeedSequence", "RandomState", "Philox", "PCG64", "PCG64DXSM", "MT19937", "SFC64", "manual_seed",
    "manual_seed_all", "seed", "getrandbits",
}  # fmt: skip
DRAWN_BY_TORCH = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial"}


def made_here(tree: ast.Module) -> list[str]:
    """Calls that make a random generator, or draw from one that has no name."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            found += [m for m in modules if m in ("random", "secrets", "numpy.random")]
        if not isinstance(node, ast.Call):
            continue
        name, *owners = ast.unparse(node.func).split(".")[::-1]
        makes = name in MAKERS or (name == "Generator" and owners[:1] in (["torch"], ["random"]))
        nameless = name in DRAWN_BY_TORCH and "generator" not in {keyword.arg for keyword in node.keywords}
        if makes or (owners == ["torch"] and nameless) or owners == ["random", "np"]:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_generator_is_made_elsewhere(path):
    found = made_here(ast.parse(path.read_text(encoding="utf-8")))
    assert bool(found) == (path.stem == "streams"), found


@pytest.mark.parametrize(
    "code",
    [
        "import random",
        "from numpy.random import default_rng",
        "rng = np.random.default_rng(3)",
        "np.random.normal(0, 1)",
        "np.random.Generator(bits)",
        "torch.manual_seed(0)",
        "torch.Generator('cpu')",
        "torch.randn(3)",
    ],
)
def test_what_the_check_finds(code):
    assert made_here(ast.parse(code))


@pytest.mark.parametrize(
    "code", ["torch.randn(3, generator=g)", "rng.normal(0, 1)", "random.random()", "Generator(path)"]
)
def test_what_the_check_lets_pass(code):
    """Draws from a stream, whatever its variable is called; and upsamplers.Generator, which is a network."""
    assert not made_here(ast.parse(code))
