"""What every loss, trainable method, family of networks, upsampler, file format, protocol of evaluation and figure must
keep to: of all that `config` and the registries name, with no list here.

docs/extending.md says how to add one.
"""

import argparse
from importlib import import_module
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch

from microsr import cli, config
from microsr.config.sheet import Scan, simulated_cases
from microsr.core.registry.figures import FIGURES
from microsr.core.registry.methods import METHODS
from microsr.core.registry.protocols import ASKED_FOR, PROTOCOLS
from microsr.formats.readers import read_scan
from microsr.formats.writers import ENDINGS, kind_of, open_writer
from microsr.inference.upsamplers import Generator, Magnifier, interpolation, upsample_slice
from microsr.networks.families import build, build_g1, draw_noise
from microsr.networks.layers import InstanceNorm
from microsr.networks.model_file import load_generator, save_generator
from microsr.preprocessing.patch_files import SCAN_COLUMNS
from microsr.training.batches import Batch
from microsr.training.methods.cyclegan import CycleGAN
from microsr.training.methods.method import Setup
from microsr.training.passes import WEIGHT_OF, gigaflops_per_pair
from microsr.training.train import PATCHES, trainable
from microsr.volume.storage import Volume
from microsr.workflow.drawings import Drawings
from microsr.workflow.plan import Plan, Result

NETWORKS = get_args(config.Train.model_fields["network"].annotation)
WEIGHTS = [key for key, field in config.Losses.model_fields.items() if field.annotation is float]
FORMATS = [kind for kind in config.EXPORTED if kind != "dicom"]  # whose place is in text, rounded
SCALES = pytest.mark.parametrize("scale", config.SCALES)
SIZES = (8, 64)
NO_LOSS = dict.fromkeys(WEIGHTS, 0.0)


@pytest.fixture(autouse=True)
def _one_thread():
    """Small networks gain nothing from more, and wait for ever where another process has the other core."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def slice_hu():
    return np.random.default_rng(0).normal(-800, 200, (50, 61)).astype(np.float32)


def a_batch():
    a, b = torch.rand(2, 1, 8, 8) * 2 - 1, torch.rand(2, 1, 64, 64) * 2 - 1
    return Batch(a, a, b)


def a_model(network="compact", **losses):
    settings = config.Train(network=network, learning_rate=1e-3, batch_size=2)
    method = config.CycleGANMethod(losses=config.Losses(**losses))
    return CycleGAN(Setup(settings, method, 1, scanner=config.Scanner()), SIZES)


def flat(network):
    return torch.cat([p.detach().flatten().clone() for p in network.parameters()])


def noise_for(network, size):
    return draw_noise(network.noise_scales, 1, (size, size), torch.Generator().manual_seed(0), "cpu")


def model_file(network, folder, scale=8):
    """A model with random weights, large enough to matter, and instance norm statistics as if some patches had been
    seen.
    """
    g1 = build(network, 16, 16 * scale).g1
    with torch.no_grad():
        for _ in range(3):
            g1(torch.randn(2, 1, 16, 16), [plane.repeat(2, 1, 1, 1) for plane in noise_for(g1, 16)])
            for norm in (module for module in g1.modules() if isinstance(module, InstanceNorm)):
                norm.commit()
        for parameter in g1.parameters():
            parameter.mul_(1.5)
    facts = {"network": network, "window_hu": [-1000.0, 400.0], "seed": 3, "steps": 1, "provenance": {}}
    save_generator(folder / "generator.pt", g1, facts | {"clinical_spacing_mm": None, "micro_spacing_mm": None})
    return folder / "generator.pt", g1


# Losses


@pytest.mark.parametrize("key", WEIGHTS)
def test_a_loss_alone_moves_a_generator_and_has_its_column(key):
    model = a_model(**NO_LOSS | {key: 1.0})
    before = torch.cat([flat(model.nets.g1), flat(model.nets.g2)])
    found = {name: float(value) for name, value in model.step(0, a_batch(), 1e-3).items()}
    columns = {name for name, weight in WEIGHT_OF.items() if weight == key} or {f"{key}_loss"}
    assert set(found) == columns | {"D1", "D2", "skipped"}
    assert all(np.isfinite(value) for value in found.values()) and not found["skipped"]
    assert not torch.equal(before, torch.cat([flat(model.nets.g1), flat(model.nets.g2)]))


@pytest.mark.parametrize("key", WEIGHTS)
def test_a_loss_is_a_mean_over_the_batch(key):
    """Twice the same pairs have the same loss: a batch may be cut into parts."""
    model = a_model("resnet", **NO_LOSS | {key: 1.0})  # takes no noise, which is each sample's own
    batch = a_batch()
    twice = Batch(*(torch.cat([part, part]) for part in batch))
    found = []
    for each in (batch, twice):
        found.append(model._passes[0](each, [[], [], [], []])[0].item())
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.parametrize("key", WEIGHTS)
def test_the_arithmetic_of_a_loss_can_be_counted(key):
    assert gigaflops_per_pair(config.Train(network="compact"), config.Losses(**NO_LOSS | {key: 1.0}), SIZES) > 0


# Trainable methods


def in_training(kind, accumulate=1):
    """A method of the kind that has not begun."""
    settings = config.Train(network="compact", learning_rate=1e-3, batch_size=2, ema_decay=0.9)
    return trainable(kind)(Setup(settings, config.KINDS[kind](), 1, accumulate=accumulate), SIZES)


def data_of(kind, folder):
    """Batches of two samples from a few patches of every kind."""
    random, files = np.random.default_rng(0), {}
    for name, side in {"clinical": 0, "micro": 1, "scans": 0}.items():
        files[name] = [folder / f"{name}.npy"]
        hu = random.normal(-700, 150, (6, SIZES[side], SIZES[side]))
        np.save(files[name][0], hu.astype(np.int16))
    files["scan_table"] = [folder / "scans.csv"]
    rows = [["a", "micro", 0, 0, 0, SIZES[1], "lung", 0.29]] * 6
    pd.DataFrame(rows, columns=SCAN_COLUMNS).to_csv(folder / "scans.csv", index=False)
    assert set(files) == set(PATCHES) - {"scanner_table"}
    settings = config.Train(network="compact", batch_size=2, patches_per_case=6)
    return trainable(kind).open_data(files, Setup(settings, config.KINDS[kind](), 1, scanner=config.Scanner()))


@pytest.mark.parametrize("kind", METHODS)
def test_a_step_of_a_method_trains_the_g1_that_it_saves(kind, tmp_path):
    model, data = in_training(kind), data_of(kind, tmp_path)
    before = {name: weight.clone() for name, weight in model.generator().items()}
    found = model.step(0, data.batch(0), 1e-3)
    assert len(found) > 1 and found.pop("skipped") == 0
    assert all(value.isfinite() and value.ndim == 0 for value in found.values())
    g1 = build_g1("compact", 8, model.SAMPLER)
    g1.load_state_dict(model.generator())
    assert any(not torch.equal(before[name], weight) for name, weight in g1.state_dict().items())
    assert 0 < model.gigaflops_per_pair(model.setup, SIZES) < 1000


@pytest.mark.parametrize("kind", METHODS)
def test_a_method_goes_on_from_its_state_to_the_same_weights(kind, tmp_path):
    straight, resumed, data = in_training(kind), in_training(kind), data_of(kind, tmp_path)
    for number in range(3):
        straight.step(number, data.batch(number), 1e-3)
        if number == 0:
            torch.save(straight.state(), tmp_path / "state.pt")
    resumed.load(torch.load(tmp_path / "state.pt", weights_only=True))
    for number in (1, 2):
        resumed.step(number, data.batch(number), 1e-3)
    ends = [one.generator() for one in (straight, resumed)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("kind", METHODS)
def test_what_the_board_shows_of_a_method_changes_nothing(kind, tmp_path):
    shown, plain, data = in_training(kind), in_training(kind), data_of(kind, tmp_path)
    examples = data.examples()
    image = shown.superresolve(examples)
    assert image.shape == (len(examples), 1, *(8 * side for side in examples.shape[-2:]))
    assert torch.equal(image, shown.superresolve(examples)), "always the same noise"
    for model in (shown, plain):
        model.step(0, data.batch(0), 1e-3)
    assert all(torch.equal(shown.generator()[name], weight) for name, weight in plain.generator().items())


@pytest.mark.parametrize("kind", METHODS)
def test_a_batch_of_a_method_in_parts_is_the_whole_but_for_rounding(kind, tmp_path):
    data, found = data_of(kind, tmp_path), []
    for accumulate in (1, 2):
        model = in_training(kind, accumulate)
        found.append({name: float(value) for name, value in model.step(0, data.batch(0), 1e-3).items()})
    assert found[0] == pytest.approx(found[1], rel=1e-3)


# Families of networks


@SCALES
@pytest.mark.parametrize("network", NETWORKS)
def test_networks_magnify_shrink_and_judge(network, scale):
    g1, g2, d1, d2 = build(network, 8, 8 * scale)
    a, b = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8 * scale, 8 * scale)
    assert g1.scale == scale and all(noise <= scale for noise in g1.noise_scales)
    with torch.inference_mode():
        assert g1(a, noise_for(g1, 8)).shape == b.shape
        assert g2(b, noise_for(g2, 8)).shape == a.shape
        assert d1(b).dim() == d2(a).dim() == 4


@pytest.mark.parametrize("network", NETWORKS)
def test_a_step_trains_all_four_networks(network):
    model = a_model(network)
    before = [flat(one) for one in model.nets]
    found = model.step(0, a_batch(), 1e-3)
    assert all(value.isfinite() for value in found.values()) and not found["skipped"]
    assert not any(torch.equal(old, flat(one)) for old, one in zip(before, model.nets, strict=True))


@pytest.mark.parametrize("scale", [2, 8, 16])
@pytest.mark.parametrize("network", NETWORKS)
def test_nothing_beyond_the_halo_influences_a_pixel(network, scale):
    g1 = build(network, 8, 8 * scale).g1.eval()
    assert g1.halo >= g1.trunk_halo + g1.magnify_halo
    size = 2 * g1.halo + 3
    centre = size // 2
    a = (0.2 * torch.randn(1, 1, size, size)).requires_grad_()  # far from where A_SR is clamped
    pixel = slice(scale * centre, scale * (centre + 1))
    g1(a, noise_for(g1, size))[0, 0, pixel, pixel].sum().backward()
    assert (a.grad[0, 0].nonzero() - centre).abs().max() <= g1.halo


@pytest.mark.parametrize("scale", [2, 8, 16])
@pytest.mark.parametrize("network", NETWORKS)
def test_tiles_of_a_network_do_not_show(network, scale, slice_hu, tmp_path):
    slice_hu = slice_hu if scale == 8 else slice_hu[:26, :33]
    way = Generator(model_file(network, tmp_path, scale)[0], "cpu", "float32")
    whole = upsample_slice(slice_hu, 4, way, 1000)
    assert whole.shape == tuple(scale * n for n in slice_hu.shape) and whole.std() > 10
    assert np.abs(whole - upsample_slice(slice_hu, 4, way, 16)).max() < 2e-3


@pytest.mark.parametrize("network", NETWORKS)
def test_a_saved_generator_is_read_again(network, tmp_path):
    path, g1 = model_file(network, tmp_path)
    found, facts = load_generator(path)
    assert found.scale == g1.scale
    assert facts["network"] == network and torch.equal(flat(found), flat(g1))


# Upsamplers


@SCALES
@pytest.mark.parametrize("name", config.INTERPOLATIONS)
def test_tiles_of_an_upsampler_do_not_show(name, scale, slice_hu):
    way = interpolation(name, scale)
    whole = upsample_slice(slice_hu, 4, way, 1000)
    assert whole.shape == (50 * scale, 61 * scale) and whole.std() > 10
    assert np.abs(whole - upsample_slice(slice_hu, 4, way, 16)).max() < 2e-3
    with Magnifier(way, 17) as magnify:
        part = magnify(slice_hu, way.draw(4, slice_hu.shape), (slice(12, 48), slice(2, 60))).numpy()
    assert np.abs(part - whole[12 * scale : 48 * scale, 2 * scale : 60 * scale]).max() < 2e-3
    assert way.facts["upsampler"] == name


@SCALES
@pytest.mark.parametrize("name", config.INTERPOLATIONS)
def test_what_an_upsampler_makes_overlays_its_input(name, scale):
    y, x = np.mgrid[:30, :40].astype(np.float32)
    blob = 1000 * np.exp(-((y - 13.3) ** 2 + (x - 21.7) ** 2) / 18)
    fine = upsample_slice(blob.astype(np.float32), 0, interpolation(name, scale))
    y, x = ((np.indices(fine.shape) + 0.5) / scale - 0.5) * fine / fine.sum()
    assert (y.sum(), x.sum()) == pytest.approx((13.3, 21.7), abs=0.05)


@pytest.mark.parametrize("name", config.INTERPOLATIONS)
def test_an_upsampler_keeps_hu(name):
    flat_hu = np.full((20, 20), 3000.0, np.float32)
    assert np.allclose(upsample_slice(flat_hu, 0, interpolation(name)), 3000, atol=0.1)


# Formats


def a_volume():
    """Noise over all of int16; the spacing and the place are no round numbers."""
    array = np.random.default_rng(0).integers(-32768, 32768, (4, 6, 5)).astype(np.int16)
    array[0, 0, :2] = -32768, 32767
    return Volume(array, (0.078125, 1 / 12, 1.25), (-123.456789, 50.1, -30.3))


def name_of(kind):
    return "v" + next(ending for ending, known in ENDINGS.items() if known == kind)


def written(path, kind, volume, stop=None):
    """Write a volume; with `stop`, another writer goes on from there."""
    state, slices = None, list(enumerate(volume.array))
    for part in (slices,) if stop is None else (slices[:stop], slices[stop:]):
        writer = open_writer(path, kind, volume.shape, volume, state)
        for position, image in part:
            writer.write(position, image)
        state = writer.state()
        writer.close()
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_written_is_read_again(kind, tmp_path):
    volume, path = a_volume(), tmp_path / name_of(kind)
    assert kind_of(path) == kind
    found = read_scan(Scan(path=str(written(path, kind, volume))))
    assert np.array_equal(found.array, volume.array)
    assert found.spacing == pytest.approx(volume.spacing, rel=1e-5)
    assert found.origin == pytest.approx(volume.origin, abs=1e-4)
    assert found.direction == pytest.approx(volume.direction, abs=1e-6)
    assert found.attributes["source"]["spacing_from"] == "file"


@pytest.mark.parametrize("kind", FORMATS)
def test_the_sheet_chooses_slices_and_spacing(kind, tmp_path):
    path = written(tmp_path / name_of(kind), kind, volume := a_volume())
    found = read_scan(Scan(path=str(path), slices="1:3", spacing="0.5x0.6x0.7"))
    assert np.array_equal(found.array, volume.array[1:3])
    assert found.spacing == (0.5, 0.6, 0.7)
    assert found.origin[2] == pytest.approx(volume.origin[2] + 0.7, abs=1e-4)
    assert found.attributes["source"]["spacing_from"] == "sheet"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_writer_that_was_stopped_goes_on_to_the_same_bytes(kind, tmp_path):
    straight = written(tmp_path / "straight", kind, a_volume())
    assert written(tmp_path / "stopped", kind, a_volume(), stop=2).read_bytes() == straight.read_bytes()


# Protocols of evaluation and figures


@pytest.fixture(scope="module")
def plan():
    """An experiment that asks for everything."""
    evaluate = {"further_protocols": list(ASKED_FOR), "validate_simulation": True, "validate_metrics": True}
    methods = {name: {"train": {"network": name}} for name in ("resnet", "compact")}
    methods |= {"posterior": {"kind": "posterior", "train": {"network": "compact"}}, "mean": {"kind": "mean"}}
    experiment = config.load({"experiment": "x", "evaluate": evaluate, "methods": methods})
    return Plan(experiment, {case.case: case for case in simulated_cases(experiment.simulate, "simulated")})


def flags_of(module):
    """The flags of a command that its module adds, by name."""
    parser = argparse.ArgumentParser()
    import_module(module).arguments(parser)
    return {action.dest: action for action in parser._actions}


def refusal_of(step, name, module, given, folder, capsys):
    """What a command says where none of its files is there."""
    words = ["microsr", step, name, *given]
    for flag, action in flags_of(module).items():
        if action.required:
            value = f"a={folder}/no_{flag}" if action.metavar == "NAME=PATH" else f"{folder}/no_{flag}"
            words += [f"--{flag}", next(iter(action.choices)) if action.choices else value]
    with pytest.raises(SystemExit) as ended:
        cli.main(words[1:])
    assert ended.value.code == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_files_of_a_protocol_are_planned_under_the_flags_of_its_command(name, plan):
    case = next(case for case in plan.superresolved_cases if name in plan.protocols_of(case))
    files = plan.evaluation_files(name, Result("mean" if PROTOCOLS[name].kind else "resnet", "pooled", case))
    flags = flags_of(PROTOCOLS[name].module)
    assert set(files) <= set(flags) and not {"case", "method", "training_set", "seed", "output"} & set(flags)
    assert {flag for flag, action in flags.items() if action.required} <= {flag for flag in files if files[flag]}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_names_the_file_that_is_not_there_and_writes_nothing(name, tmp_path, capsys):
    given = [
        *["--case", "c", "--method", "m", "--training_set", "t", "--seed", "1", "--output"],
        str(tmp_path / "out.csv"),
    ]
    said = refusal_of("evaluate", name, PROTOCOLS[name].module, given, tmp_path, capsys)
    assert "/no_" in said and "unexpected" not in said and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FIGURES)
def test_what_a_figure_is_drawn_from_is_planned_under_the_flags_of_its_command(name, plan):
    flags = flags_of(FIGURES[name].module)
    assert "output" not in flags
    for drawing in Drawings(plan).by_kind[name].values():
        assert set(drawing.files) <= set(flags)
        assert set(drawing.names) == {flag for flag in drawing.files if flags[flag].metavar == "NAME=PATH"}
    assert Drawings(plan).by_kind[name] or ".png" not in FIGURES[name].endings, "it is never drawn"


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "network"])  # which is drawn of settings
def test_a_figure_names_the_file_that_is_not_there_and_writes_nothing(name, tmp_path, capsys):
    said = refusal_of("figures", name, FIGURES[name].module, ["--output", str(tmp_path / "out")], tmp_path, capsys)
    assert "/no_" in said and "unexpected" not in said and not list(tmp_path.iterdir())
