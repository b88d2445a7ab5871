"""Evaluation of a super-resolved volume: the right slices, masks and places go into the right rows."""

import json

import numpy as np
import pandas as pd
import pytest

from microsr import cli
from microsr.config import Evaluate, Scanner
from microsr.core.errors import UserError
from microsr.evaluation import metrics
from microsr.evaluation.collect import collect
from microsr.evaluation.evaluate import evaluate
from microsr.evaluation.protocols import no_reference, truth
from microsr.evaluation.protocols.truth import Reference
from microsr.evaluation.tables import COLUMNS
from microsr.physics.scanner import KERNELS
from microsr.volume.storage import Volume, magnified_geometry, open_mask, open_volume, write_volume

SPACING, ORIGIN = (0.625, 0.625, 0.6), (-30.0, 12.0, -200.0)
NAMES = ("test1", "proposed", "pooled", "2")
NO_REFERENCE = {
    "consistency_rmse": "HU",
    "consistency_scan_rmse": "HU",
    "mean_shift": "HU",
    "texture_in_vessels": "HU",
    "texture_in_airways": "HU",
    "spectrum_distance": "log10 power",
    "histogram_distance": "HU",
    "checkerboard": "log10 ratio",
}
TRUTH = {
    "psnr": "dB",
    "ssim": "1",
    "ms_ssim": "1",
    "measured_rmse": "HU",
    "null_rmse": "HU",
    "small_lost": "1",
    "small_invented": "1",
    **{f"small_{what}_{size}": "1" for what in ("lost", "invented") for size in ("0.3-0.625", "0.625-1", "1-3")},
    "airways_lost": "1",
    "airways_invented": "1",
    "lesions_lost": "count",
    "lesions_invented": "count",
}


class Case:
    """A clinical CT of 3 slices of 24x24 pixels with the lung in columns 2 to 21, uCT of white noise, and the truth."""

    def __init__(self, folder, slices=(0, 1, 2)):
        self.folder, self.slices = folder, list(slices)
        rng = np.random.default_rng(0)
        self.truth = np.rint(rng.normal(-800, 100, (3, 192, 192)))
        self.clinical = np.rint(self.truth.reshape(3, 24, 8, 24, 8).mean(axis=(2, 4)))
        self.mask = np.zeros(self.clinical.shape, bool)
        self.mask[:, :, 2:22] = True
        self.micro = np.rint(rng.normal(-800, 100, (4, 160, 160)))
        self.specimen = np.ones(self.micro.shape, bool)
        self.ct = Volume(self.clinical, SPACING, ORIGIN)

    def run(self, superresolved, truth=True, truth_geometry=None, sr_geometry=None, attributes=None, unit="HU"):
        """Metrics of `superresolved` [len(slices), 192, 192] as a dictionary."""
        first = self.ct.slices(self.slices[0], self.slices[0] + 1)
        geometry = magnified_geometry(first, 8) | (sr_geometry or {})
        attributes = {"slices": self.slices} if attributes is None else attributes
        write_volume(self.folder / "clinical", self.ct, self.mask)
        write_volume(self.folder / "sr", Volume(superresolved, **geometry, attributes=attributes))
        write_volume(self.folder / "micro", Volume(self.micro, (0.078,) * 3, unit=unit), self.specimen)
        write_volume(
            self.folder / "truth", Volume(self.truth, **(magnified_geometry(self.ct, 8) | (truth_geometry or {})))
        )
        path = self.folder / "out" / "x.csv"
        paths = [self.folder / name for name in ("sr", "clinical", "micro", "truth")]
        reference = Reference(paths[3]) if truth else None
        evaluate(NAMES, paths[0], paths[1], [paths[2]], path, Evaluate(), Scanner(), reference)
        self.table = pd.read_csv(path)
        return dict(zip(self.table["metric"], self.table["value"], strict=True))


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


def nearest(images):
    return np.kron(images, np.ones((1, 8, 8)))


def test_nearest_upsampling_is_consistent_and_without_texture(case):
    value = case.run(nearest(case.clinical))
    assert value["consistency_rmse"] == 0 and value["mean_shift"] == 0
    assert value["spectrum_distance"] > 0.5


def test_the_truth_itself_gets_the_best_marks(case):
    value = case.run(case.truth)
    assert value["consistency_rmse"] < 0.5
    assert value["psnr"] == np.inf and value["ssim"] == pytest.approx(1)
    assert value["spectrum_distance"] < 0.05
    assert value["checkerboard"] < 0.35


def test_ten_hu_more_are_found_by_each_metric_of_intensity(case):
    value = case.run(case.truth + 10)
    assert value["mean_shift"] == pytest.approx(10, abs=0.1)
    assert value["psnr"] == pytest.approx(20 * np.log10(1400 / 10), abs=1e-3)
    assert value["spectrum_distance"] < 0.05


def test_only_the_lung_counts(case):
    outside = np.kron(~case.mask, np.ones((1, 8, 8), bool))
    value = case.run(np.where(outside, 3000, case.truth))
    assert value["consistency_rmse"] < 0.5
    assert value["psnr"] == np.inf
    assert value["spectrum_distance"] < 0.05


@pytest.mark.parametrize("slices", [(0, 2), (1, 2)])
def test_chosen_slices_are_compared_with_their_own_input_and_truth(tmp_path, slices):
    case = Case(tmp_path, slices)
    value = case.run(case.truth[[*slices]])
    assert value["consistency_rmse"] < 0.5 and value["psnr"] == np.inf
    wrong = case.run(case.truth[[0, 1]])
    assert wrong["consistency_rmse"] > 5 and wrong["psnr"] < 30


def scanned(slices, weights):
    """What the whole scanner makes of SR slices that go on above and below as they end."""
    planes = np.stack([metrics.scan_in_plane(image, KERNELS["lung"], SPACING[:2], 8) for image in slices])
    around = np.pad(planes, ((1, 1), (0, 0), (0, 0)), mode="edge")
    return np.rint(sum(w * around[i : i + len(planes)] for i, w in enumerate(weights)))


def test_the_fit_when_scanned_again_knows_the_slice_profile(tmp_path):
    """Only of a slice whose neighbours are there too: alone, or with a gap, it is compared in-plane."""
    case = Case(tmp_path)
    weights = metrics.slice_weights(SPACING[2], Scanner().slice_sigma_mm)
    case.ct = Volume(scanned(case.truth, weights), SPACING, ORIGIN)
    assert case.run(case.truth)["consistency_scan_rmse"] < 0.5
    thick = np.stack([np.average(case.truth, axis=0, weights=weights)] * 3)
    assert case.run(thick)["consistency_scan_rmse"] < 0.5, "the middle slice alone has both its neighbours"
    case.ct = Volume(scanned(case.truth, [0, 1, 0]), SPACING, ORIGIN)
    assert case.run(case.truth)["consistency_scan_rmse"] > 3, "now the slices are thin, and the profile is not theirs"
    for slices in ([1], [0, 2], [1, 2]):
        case.slices = slices
        assert case.run(case.truth[slices])["consistency_scan_rmse"] < 0.5


def test_a_planted_checkerboard_is_found(case):
    pattern = np.tile(np.random.default_rng(1).normal(0, 40, (8, 8)), (24, 24))
    assert case.run(case.truth + pattern)["checkerboard"] > 1


def test_spectra_come_from_inside_the_specimen(case):
    plain = case.run(case.truth)["spectrum_distance"]
    case.specimen[:] = False
    case.specimen[:, 8:150, 8:150] = True
    case.micro = np.where(case.specimen, case.micro, 3000)
    assert case.run(case.truth)["spectrum_distance"] == pytest.approx(plain, abs=0.05)


def test_rows_are_tidy_and_say_their_protocol_and_unit(case):
    case.run(case.truth)
    assert list(case.table.columns) == ["case", "method", "training_set", "seed", "protocol", "metric", "value", "unit"]
    found = set(zip(case.table["protocol"], case.table["metric"], case.table["unit"], strict=True))
    expected = {("no_reference", *pair) for pair in NO_REFERENCE.items()}
    assert found == expected | {("truth", *pair) for pair in TRUTH.items()}
    assert (case.table[["case", "method", "training_set", "seed"]].astype(str) == list(NAMES)).all(axis=None)
    settings = json.loads((case.folder / "out" / "x.run.json").read_text(encoding="utf-8"))["settings"]
    assert settings["data_range_hu"] == 1400.0 and settings["scanner"]["kernel"] == "lung"


def test_without_truth_there_are_no_metrics_of_it(case):
    assert set(case.run(case.truth, truth=False)) == set(NO_REFERENCE)


def test_the_same_windows_are_used_each_time(case):
    case.run(nearest(case.clinical))
    first = case.table
    case.run(nearest(case.clinical))
    assert first.equals(case.table)


def test_windows_do_not_keep_their_slices_in_memory(tmp_path, peak_memory):
    random = np.random.default_rng(0)

    def peak(slices):
        images, inside = np.rint(random.normal(-800, 100, (slices, 192, 192))), np.ones((slices, 192, 192), bool)
        write_volume(tmp_path / "volume", Volume(images, (0.078,) * 3), inside)
        volume, mask = open_volume(tmp_path / "volume"), open_mask(tmp_path / "volume")
        lung, paths = inside[:, ::8, ::8], [tmp_path / "volume"]
        return peak_memory(
            lambda: no_reference.window_rows(volume, paths[0], lung, list(range(slices)), [volume], [mask], paths)
        )

    assert peak(40) - peak(20) < 20 * 192 * 192 / 4, "bytes"


def test_the_truth_is_compared_in_memory_that_does_not_grow_with_the_slices(case, peak_memory):
    def peak(slices):
        images = np.resize(case.truth, (slices, 192, 192))
        for name in ("sr", "truth"):
            write_volume(case.folder / name, Volume(images, **magnified_geometry(case.ct, 8)))
        sr, mask, reference = (
            open_volume(case.folder / "sr"),
            np.ones((slices, 24, 24)),
            Reference(case.folder / "truth"),
        )
        return peak_memory(
            lambda: truth.rows(sr, case.folder, mask, list(range(slices)), reference, Evaluate(), Scanner())
        )

    assert peak(40) - peak(20) < 20 * 192 * 192 / 4, "bytes"


def test_smaller_windows_are_used_where_larger_ones_do_not_fit(case):
    case.micro, case.specimen = case.micro[:, :70, :40], case.specimen[:, :70, :40]
    assert case.run(case.truth)["spectrum_distance"] < 0.1


@pytest.mark.parametrize(
    "geometry",
    [
        {"spacing": (0.08, 0.08, 0.6)},
        {"spacing": (0.078125, 0.078125, 1.0)},
        {"origin": ORIGIN},
        {"direction": (0, 1, 0, 1, 0, 0, 0, 0, 1)},
    ],
)
def test_truth_that_does_not_overlay_is_refused(case, geometry):
    with pytest.raises(UserError, match=r"sr and .*truth do not overlay: corners are .* apart"):
        case.run(case.truth, truth_geometry=geometry)


def test_truth_that_lacks_slices_is_refused(case):
    truth, case.truth = case.truth, case.truth[:2]
    with pytest.raises(UserError, match=r"up to clinical slice 2.*truth .*2 slices.* do not overlay"):
        case.run(truth)


def test_a_volume_of_another_scan_is_refused(case):
    with pytest.raises(UserError, match=r"sr and .*clinical do not overlay"):
        case.run(case.truth, sr_geometry={"origin": (0.0, 0.0, 0.0)})


def test_a_volume_that_does_not_say_its_slices_is_refused(case):
    for slices in ([0, 1], [0, 1, 3], [1, 0, 2]):
        with pytest.raises(UserError, match="sr holds 3 slices and says they are"):
            case.run(case.truth, attributes={"slices": slices})
    with pytest.raises(UserError, match="says they are None"):
        case.run(case.truth, attributes={})


def test_what_tells_lung_by_its_hu_is_not_measured_of_another_organ(case):
    whole = set(case.run(case.truth))
    case.ct = Volume(case.clinical, SPACING, ORIGIN, attributes={"organ": "other"})
    of_lungs = {"texture_in_vessels", "texture_in_airways", "airways_lost", "airways_invented"}
    of_lungs |= {key for key in TRUTH if key.startswith(("small", "les"))}
    assert whole - set(case.run(case.truth)) == of_lungs <= whole


def test_a_truth_that_is_known_in_a_part_counts_there_alone(case, tmp_path):
    """Outside of the specimen the truth is air, which would be an error of 200 HU; slice 2 holds none of it."""
    case.run(case.truth)
    known = np.zeros(case.truth.shape, bool)
    known[:2, 12:180, 40:170] = True
    attributes = {"region": "specimen", "specimen_slices": [0, 2]}
    true = Volume(np.where(known, case.truth, -1000), **magnified_geometry(case.ct, 8), attributes=attributes)
    write_volume(tmp_path / "truth", true, known)

    def run(name, superresolved, *slices):
        first = case.ct.slices(slices[0], slices[0] + 1)
        sr = Volume(superresolved[list(slices)], **magnified_geometry(first, 8), attributes={"slices": list(slices)})
        write_volume(tmp_path / "sr", sr)
        paths = [tmp_path / part for part in ("sr", "clinical")], [tmp_path / "micro"]
        names = ("test1", name, "none", "none")
        evaluate(
            names, *paths[0], paths[1], tmp_path / "t.csv", Evaluate(), Scanner(),
            Reference(tmp_path / "truth", thick=tmp_path / "truth"),
        )  # fmt: skip
        table = pd.read_csv(tmp_path / "t.csv")
        return dict(zip(table["metric"], table["value"], strict=True))

    found = run("proposed", case.truth, 0, 1, 2)
    assert found["psnr"] == np.inf and found["ssim"] == pytest.approx(1) and found["ms_ssim"] == pytest.approx(1)
    assert found["psnr_thick"] == np.inf and found["measured_rmse"] == found["null_rmse"] == 0
    assert run("proposed", case.truth + 10, 1, 2)["psnr"] == pytest.approx(20 * np.log10(1400 / 10), abs=1e-3)
    as_method = run("truth", np.asarray(true.array), 0, 1, 2)
    assert as_method["consistency_rmse"] < 0.5, "not where there is air in its place"
    assert "spectrum_distance" in as_method
    with pytest.raises(UserError, match=r"the truth is not known in its slices \[2\]; .*, between 0 and 1"):
        run("proposed", case.truth, 2)


def test_a_truth_without_room_for_a_window_has_no_texture(case, tmp_path, caplog):
    case.run(case.truth)
    known = np.zeros(case.truth.shape, bool)
    known[:2, 16:40, 40:64] = True
    geometry = magnified_geometry(case.ct, 8)
    true = Volume(np.where(known, case.truth, -1000), **geometry, attributes={"region": "specimen"})
    write_volume(tmp_path / "truth", true, known)
    write_volume(tmp_path / "sr", Volume(true.array, **geometry, attributes={"slices": [0, 1, 2]}))
    paths = (tmp_path / "sr", tmp_path / "clinical", [tmp_path / "micro"], tmp_path / "t.csv")
    with caplog.at_level("INFO"):
        evaluate(("a", "truth", "none", "none"), *paths, Evaluate(), Scanner(), Reference(tmp_path / "truth"))
    assert "of the truth no texture is measured" in caplog.text
    assert "spectrum_distance" not in set(pd.read_csv(tmp_path / "t.csv")["metric"])


def test_uncalibrated_uct_is_refused(case):
    with pytest.raises(UserError, match="micro has unit 'grey'"):
        case.run(case.truth, unit="grey")


def test_slices_without_lung_are_refused(case):
    case.mask[:] = False
    with pytest.raises(UserError, match=r"nothing of its slices \[.*\] is inside the mask"):
        case.run(case.truth)


def test_a_specimen_without_room_for_a_window_is_refused(case):
    case.micro, case.specimen = case.micro[:, :20, :20], case.specimen[:, :20, :20]
    with pytest.raises(UserError, match="micro: its specimen mask has no room for a window of 32x32"):
        case.run(case.truth)


def test_collect_sorts_and_copies_values_as_they_are(tmp_path):
    header = ",".join(COLUMNS)
    (tmp_path / "b.csv").write_text(f"{header}\n007,proposed,pooled,1,truth,psnr,inf,dB\n")
    rows = "007,bicubic,none,none,truth,ssim,0.10,1\n007,bicubic,none,none,no_reference,mean_shift,-1e-05,HU\n"
    (tmp_path / "a.csv").write_text(f"{header}\n{rows}")
    expected = (
        f"{header}\n007,bicubic,none,none,no_reference,mean_shift,-1e-05,HU\n"
        "007,bicubic,none,none,truth,ssim,0.10,1\n007,proposed,pooled,1,truth,psnr,inf,dB\n"
    )
    for inputs in (["a.csv", "b.csv"], ["b.csv", "a.csv"]):
        out = tmp_path / "tables" / "metrics.csv"
        cli.main(["evaluate", "collect", "--inputs", *(str(tmp_path / n) for n in inputs), "--output", str(out)])
        assert out.read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("text", ["case,method,value\na,b,1\n", "", ",".join(COLUMNS) + "\n"])
def test_collect_refuses_a_table_of_another_kind(tmp_path, text):
    (tmp_path / "odd.csv").write_text(text)
    with pytest.raises(UserError, match=r"odd\.csv"):
        collect([tmp_path / "odd.csv"], tmp_path / "metrics.csv")


def test_collect_refuses_the_same_row_twice(tmp_path):
    (tmp_path / "a.csv").write_text(",".join(COLUMNS) + "\nc,m,t,1,truth,psnr,1,dB\n")
    with pytest.raises(UserError, match="second row for c, m, t, 1, truth, psnr"):
        collect([tmp_path / "a.csv", tmp_path / "a.csv"], tmp_path / "metrics.csv")


def test_uncorrelated_texture_of_equal_hu_differs_in_ssim_not_in_histogram(case):
    shuffled = np.random.default_rng(7).permutation(case.truth.ravel()).reshape(case.truth.shape)
    value = case.run(shuffled)
    assert value["histogram_distance"] < 3
    assert value["ssim"] < 0.1


def test_hallucinations_are_written_where_they_are(case, tmp_path):
    """Stripes of 2 pixels cannot pass the scanner: all of them are null space, outside the lung nothing counts."""
    stripes = 50.0 * (-1) ** (np.arange(192) // 2)
    case.run(case.truth + stripes)
    paths = [tmp_path / name for name in ("sr", "clinical", "micro", "truth")]
    maps = tmp_path / "maps"
    evaluate(
        NAMES, *paths[:2], [paths[2]], tmp_path / "y.csv", Evaluate(), Scanner(kernel="B30"), Reference(paths[3]), maps
    )
    found, inside = open_volume(maps), np.s_[:, 40:-40, 40:-40]
    assert found.attributes["slices"] == [0, 1, 2] and found.spacing == pytest.approx((0.078125, 0.078125, 0.6))
    assert np.abs(np.asarray(found.array) - stripes)[inside].max() <= 1
    assert np.abs(np.asarray(found.array)[:, :, :4]).max() < 3
    value = pd.read_csv(tmp_path / "y.csv").set_index("metric")["value"]
    assert value["null_rmse"] == pytest.approx(50, rel=0.02) and value["measured_rmse"] < 5
    with pytest.raises(UserError, match="--maps needs --truth"):
        evaluate(NAMES, *paths[:2], [paths[2]], tmp_path / "y.csv", Evaluate(), Scanner(), maps=maps)


def test_airways_without_labels_are_refused(case, tmp_path):
    case.run(case.truth)
    paths = [tmp_path / name for name in ("sr", "clinical", "micro", "truth")]
    reference = Reference(paths[3], airways=tmp_path / "airways.csv")
    with pytest.raises(UserError, match="airways need the truth's labels"):
        evaluate(NAMES, *paths[:2], [paths[2]], tmp_path / "y.csv", Evaluate(), Scanner(), reference)


def test_command_line_evaluates_a_case(case, tmp_path):
    case.run(case.truth)
    out = tmp_path / "cli.csv"
    paths = {name: str(tmp_path / name) for name in ("sr", "clinical", "micro", "truth")}
    names = ["--case", "c", "--method", "m", "--training_set", "none", "--seed", "none", "--data_range_hu", "2800.0"]
    files = ["--superresolved", paths["sr"], "--clinical", paths["clinical"], "--micro", paths["micro"], paths["micro"]]
    cli.main(["evaluate", "metrics", *names, *files, "--kernel", "B30", "--output", str(out)])
    table = pd.read_csv(out, keep_default_na=False)
    assert len(table) == len(NO_REFERENCE) and set(table["seed"]) == {"none"}
