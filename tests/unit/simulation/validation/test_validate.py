"""The validation: its measurements on made-up scanners, tissues, foams and trees with known answers, and on a real
kernel pair.
"""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from microsr import cli, config
from microsr.core.errors import UserError
from microsr.figures.charts.validation import make_validation
from microsr.physics.scanner import KERNELS, Kernel
from microsr.physics.tissues import Tissue
from microsr.simulation import trees
from microsr.simulation.validation import lung
from microsr.simulation.validation import scanner as validate_scanner
from microsr.simulation.validation.checks import NONE, Check, read_checks, write_checks
from microsr.simulation.validation.scanner import KernelPair, check_kernel_pair, read_kernel_pair, transfer_of

CODES = (Tissue.PARENCHYMA, Tissue.GLASS, Tissue.VESSEL, Tissue.TUMOUR, Tissue.LUMEN)
HU = (-850, -600, 40, 30, -1000)


def by_name(checks: list[Check], quantity: str) -> dict[str, Check]:
    return {check.group: check for check in checks if check.quantity == quantity and math.isnan(check.x)}


def test_a_number_is_within_or_outside_its_range_or_has_no_figure():
    verdicts = [Check("q", "g", value, (1, 2), "mm", "s").verdict for value in (0.9, 1.0, 2.0, 2.1)]
    assert verdicts == ["outside", "within", "within", "outside"]
    assert Check("q", "g", 1.0, NONE, "mm", "s").verdict == "no figure"


def test_the_table_is_read_as_it_was_written_and_another_file_is_refused(tmp_path):
    path = tmp_path / "checks.csv"
    write_checks(path, [Check("mtf", "B30", 0.5, (0.4, 0.6), "1", "s", x=3.5), Check("q", "g", 2.0, NONE, "mm", "t")])
    table = read_checks(path)
    assert table["verdict"].tolist() == ["within", "no figure"] and table["x"].iloc[0] == 3.5
    assert table[["x", "low", "high"]].iloc[1].isna().all()
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"checks\.csv is no table of the validation"):
        read_checks(path)


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_a_slanted_edge_gives_the_kernels_mtf_beyond_the_nyquist_limit(name):
    measured = validate_scanner.measure_mtf(KERNELS[name], 0.625)
    assert 10 * measured.relative_resolution(50) == pytest.approx(KERNELS[name].mtf50, rel=0.015)
    assert 10 * measured.relative_resolution(10) == pytest.approx(KERNELS[name].mtf10, rel=0.015)


def test_a_kernel_that_is_not_the_published_one_is_found_out(monkeypatch):
    monkeypatch.setattr(validate_scanner, "KERNELS", {"B30": Kernel(3.7, 5.9)})
    checks = validate_scanner.check_mtf(0.625)
    assert by_name(checks, "mtf50")["B30"].verdict == "outside"
    assert by_name(checks, "mtf10")["B30"].verdict == "within"


def test_the_slice_profile_has_the_full_width_of_its_gaussian():
    (check,) = validate_scanner.check_slice_profile(config.Scanner(slice_sigma_mm=0.4))
    assert check.measured == pytest.approx(2.355 * 0.4, abs=0.02) and check.verdict == "outside"


def test_noise_of_a_wrong_grain_is_found_out(monkeypatch):
    scanner, rng = config.Scanner(noise_hu=25), np.random.default_rng(3)
    right = validate_scanner.check_noise(scanner, 0.6, rng)
    assert all(check.verdict == "within" for check in by_name(right, "nps_deviation").values())
    assert by_name(right, "noise_sd")["air, lung"].measured == pytest.approx(25, rel=0.03)
    monkeypatch.setattr(validate_scanner, "noise", lambda shape, *_: rng.standard_normal(shape))
    white = validate_scanner.check_noise(scanner, 0.6, rng)
    assert all(check.verdict == "outside" for check in by_name(white, "nps_deviation").values())


def blurred_pair() -> tuple[np.ndarray, np.ndarray]:
    """A made-up sharp scan, and the same blurred by a kernel with MTF50 2 and MTF10 3.4 lp/cm; pixels of 0.8 mm."""
    sharp = np.random.default_rng(0).normal(0, 100, (6, 96, 96)).astype(np.float32)
    f = np.hypot(np.fft.fftfreq(96, 0.8)[:, None], np.fft.fftfreq(96, 0.8))
    return sharp, np.fft.ifft2(np.fft.fft2(sharp) * Kernel(2.0, 3.4).mtf(f)).real.astype(np.float32)


def test_the_blur_between_two_kernels_is_found_and_undone():
    sharp, soft = blurred_pair()
    pair = KernelPair(sharp, soft, 0.8)
    (found,) = pair.fit([(4.0, 0.5)])
    assert (found.mtf50, found.mtf10) == pytest.approx((2.0, 3.4), rel=0.02)
    assert pair.rmse(np.ones_like) > 90
    assert pair.rmse(transfer_of([found])) < 3


def test_a_real_sharp_scan_blurred_by_the_model_comes_near_the_soft_one(shared_data):
    folder = shared_data / "clinical"
    scans = [folder / f"kernelpair_A0001_{kernel}.nii.gz" for kernel in ("L-sharp", "B-soft")]
    checks = check_kernel_pair(*read_kernel_pair(*scans))
    rmse = {group: check.measured for group, check in by_name(checks, "pair_rmse").items()}
    assert rmse["before"] > 90
    assert rmse["one kernel"] < 0.16 * rmse["before"]
    assert rmse["two kernels"] < 0.08 * rmse["before"]
    assert rmse["two kernels"] < 1.1 * rmse["any isotropic filter"]
    assert all(check.verdict != "outside" for check in by_name(checks, "pair_explained").values())


def test_two_scans_that_are_not_on_one_grid_are_refused(tmp_path):
    paths = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    for path, size in zip(paths, (20, 24), strict=True):
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, size, size), np.int16)), str(path))
    with pytest.raises(UserError, match="not on one grid"):
        read_kernel_pair(*paths)
    with pytest.raises(UserError, match="cannot be read"):
        read_kernel_pair(tmp_path / "none.nii.gz", paths[0])


def write_case(folder) -> None:
    """A case of five vertical bands, 8 clinical pixels wide, of one tissue each, scanned twice with noise of 25 HU."""
    rng = np.random.default_rng(5)
    bands = np.repeat(np.arange(5), 8)
    clinical = np.broadcast_to(np.array(HU)[bands], (2, 40, 40))
    fine = np.repeat(bands, 8)
    volumes = {
        "clinical": clinical + rng.normal(0, 25, clinical.shape),
        "repeat": clinical + rng.normal(0, 25, clinical.shape),
        "truth": np.broadcast_to(np.array(HU)[fine], (2, 320, 320)),
        "labels": np.broadcast_to(np.array(CODES)[fine], (2, 320, 320)),
    }
    folder.mkdir()
    for name, values in volumes.items():
        image = sitk.GetImageFromArray(np.rint(values).astype(np.uint8 if name == "labels" else np.int16))
        image.SetSpacing((0.625, 0.625, 0.6))
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
    airways = {"slice": 0, "x_mm": 0, "y_mm": 0, "diameter_mm": [1.0, 2.0], "wall_mm": [0.147, 0.294]}
    pd.DataFrame({**airways, "tilt_degrees": 0.0, "generation": [4, 3]}).to_csv(folder / "airways.csv", index=False)


def test_hu_noise_and_walls_are_read_off_a_case(tmp_path):
    write_case(tmp_path / "test1")
    case = lung.SimulatedCase.read(tmp_path / "test1")
    assert case.slice_mm == pytest.approx(0.6)
    checks = lung.check_tissues([case])
    found = {group: check.measured for group, check in by_name(checks, "hu").items()}
    expected = dict(zip(("parenchyma", "glass", "vessel", "tumour", "lumen"), HU, strict=True))
    assert found == pytest.approx(expected, abs=4)
    (noise,) = by_name(checks, "noise_sd").values()
    assert noise.measured == pytest.approx(25, rel=0.04)
    (share,) = by_name(checks, "tissue_fraction").values()
    assert share.measured == pytest.approx(100 * 150 / 1045)
    (wall,) = by_name(lung.check_walls(case.airways), "pi10_wall").values()
    assert wall.measured == pytest.approx(0.147 * 10 / math.pi)


def test_a_folder_that_is_no_test_case_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"clinical\.nii\.gz is missing .* `microsr simulate"):
        lung.SimulatedCase.read(tmp_path)


@pytest.mark.parametrize(("ducts", "walls"), [(0.0, 1.0), (1.0, 0.0)])
def test_cubes_have_three_square_walls_each_and_ducts_none(ducts, walls):
    n = 8
    seeds = np.stack(np.meshgrid(*[np.arange(n)] * 3), axis=-1).reshape(-1, 3) + 0.5
    seeds = seeds + np.random.default_rng(0).uniform(-0.01, 0.01, seeds.shape)
    foam = SimpleNamespace(seeds=seeds, tile=float(n), duct=np.full(n**3, bool(ducts)))
    foam.duct[0] = False  # one alveolus, whose six faces are walls with a mouth
    area, faces = lung._walls(foam)
    assert area == pytest.approx(3 * n**3 if not ducts else 6 * (1 - lung.MOUTH_SHARE), rel=0.02)
    assert faces >= 6


def test_a_fork_has_its_ratio_length_and_angle():
    def branch(start, end, acini, generation):
        return trees.Branch(np.array([start, end], float), np.ones(2), acini, generation)

    tree = trees.Tree([branch((0, 0, 0), (0, 0, 4), 8, 0), branch((0, 0, 4), (3, 0, 8), 4, 1)])
    tree.branches.append(branch((0, 0, 4), (-3, 0, 8), 4, 1))
    table = lung.branch_table(tree)
    assert table["parent"].tolist() == [-1, 0, 0]
    assert table["length"].tolist() == pytest.approx([4, 5, 5])
    assert table["diameter"].iloc[0] == pytest.approx(1.32)
    assert table["ratio"].tolist() == pytest.approx([math.nan, 0.5 ** (1 / 3), 0.5 ** (1 / 3)], nan_ok=True)
    assert table["angle"].iloc[0] == pytest.approx(2 * math.degrees(math.atan(3 / 4)))


def test_the_step_writes_the_table_and_the_figure_shows_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lung, "TREE_SIDE_MM", 30.0)  # quicker
    write_case(tmp_path / "test1")
    table = tmp_path / "validation.csv"
    cli.main(["validate", "--case-folders", str(tmp_path / "test1"), "--output", str(table), "--noise_hu", "20"])
    checks = read_checks(table)
    alveoli = checks.set_index("quantity").loc[["alveoli", "alveolar_volume"]]
    assert alveoli["verdict"].tolist() == ["within", "within"]
    ratios = checks[(checks["quantity"] == "diameter_ratio") & (checks["group"] == "conducting")]
    assert ratios["measured"].item() == pytest.approx(0.79, abs=0.02)
    assert (tmp_path / "validation.run.json").exists()
    counted = make_validation(table, tmp_path / "figure")
    single = checks[checks["x"].isna()]
    assert counted["within"] == (single["verdict"] == "within").sum() > 15
    assert (tmp_path / "figure.png").stat().st_size > 20_000


def test_a_tissue_that_no_case_holds_is_told(tmp_path, caplog):
    write_case(tmp_path / "test1")
    case = lung.SimulatedCase.read(tmp_path / "test1")
    labels = np.where(case.labels == Tissue.TUMOUR, Tissue.PARENCHYMA, case.labels)
    checks = lung.check_tissues([dataclasses.replace(case, labels=labels)])
    assert "no tumour in the cases is large enough to measure its HU" in caplog.text
    assert "tumour" not in by_name(checks, "hu")
