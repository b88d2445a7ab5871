"""The card of a model says what its file, its records and the given tables say; of the rest, that it is not known."""

import getpass
import json
from pathlib import Path

import pytest

from microsr.core.errors import UserError
from microsr.core.provenance import checksum, write_run
from microsr.evaluation.tables import write_table
from microsr.networks.families import build_g1
from microsr.networks.model_file import save_generator
from microsr.report.models.card import write_card
from microsr.report.models.description import describe_model

FACTS = {
    "kind": "posterior", "network": "compact", "sampler": True, "window_hu": [-1000.0, 400.0], "seed": 7, "steps": 30,
    "clinical_spacing_mm": 0.625, "micro_spacing_mm": 0.078125,
}  # fmt: skip
SCANNER = {"kernel": "lung", "pixel_mm": 0.625, "slice_sigma_mm": 0.3, "noise_hu": 30.0}
PAIRS = {"scanners": 4, "kernels": ["D45", "B30"], "slice_sigma": [0.5, 2.0]}
DRAWN = {"kind": "posterior", "seen_by": "drawn", "noise": "stated", "noise_range": [0.5, 2.0]}


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Gives a generator.pt, with its records, of a training on a simulated case and a scanned one."""
    monkeypatch.chdir(tmp_path)

    def make(method=DRAWN, records=True, **facts):
        inputs = []
        for case, step in (("train1", "simulate"), ("p01", None)):
            volume, patches = Path("x/volumes", case, "micro.nii"), Path("x/patches", case, "micro.npy")
            for path in (volume, patches):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{case} {path.name}", encoding="utf-8")
            if records:
                if step:
                    write_run(volume, step, {}, [], 1.0)
                write_run(patches, "patches", {}, [volume], 1.0)
                scans = patches.with_name("micro_scans.npy")
                scans.write_text(f"{case} scans", encoding="utf-8")
                write_run(scans, "pairs", PAIRS | {"kernel": "lung", "slice_sigma_mm": 0.3}, [patches], 1.0)
                inputs.append(scans)
            inputs.append(patches)
        model = Path("x/models/posterior/pooled/generator.pt")
        model.parent.mkdir(parents=True, exist_ok=True)
        provenance = {
            "settings": {"method": method, "scanner": SCANNER}, "microsr": "0.2.0", "code": "c0de",
            "inputs": [["/".join(path.parts[-2:]), checksum(path)] for path in inputs],
        }  # fmt: skip
        g1 = build_g1("compact", 8, True, facts.get("slices", 1))
        save_generator(model, g1, FACTS | {"provenance": provenance} | facts)
        if records:
            write_run(model.with_name("run.json"), "train", {}, inputs, 1.0)
        return model

    return make


def card(model, *tables, title="Lungs", license=None, trained_on=None):
    return write_card(describe_model(model, title, license, trained_on, tables), "lungs.safetensors")


def rows(text):
    """The tables of a card, by the first cell of each row."""
    return dict(
        (first.strip(), [cell.strip() for cell in rest])
        for first, *rest in (line.strip("|").split("|") for line in text.splitlines() if line.startswith("| "))
    )


def test_it_says_what_the_model_is_and_is_not_for(trained):
    text = card(trained())
    said = rows(text)
    assert said["factor"] == ["8, in-plane; slices stay as they are"] and said["steps, seed"] == ["30, 7"]
    assert said["pixels it takes"] == ["0.625 mm"] and said["pixels it makes"] == ["0.07812 mm"]
    assert said["window"] == ["-1000 to 400 HU; beyond it the scan is interpolated"]
    assert said["random planes"] == ["at 2 x, 4 x, 8 x the scan's size: each choice is another image"]
    assert said["microsr"] == ["0.2.0"] and said["version of the training's code"] == ["c0de"]
    assert "**Not for diagnosis.**" in text and "within 15 % of 0.625 mm" in " ".join(text.split())
    assert "- diagnosis, or any decision about a patient;" in text and "under no licence yet" in " ".join(text.split())


def test_it_says_which_slices_the_model_sees(trained):
    assert rows(card(trained()))["slices it sees"] == ["the one that it magnifies"]
    several = [rows(card(trained(slices=3, slice_mm=apart)))["slices it sees"][0] for apart in ([0.6, 0.6], [0.5, 1.0])]
    assert several[0] == "3, the one that it magnifies in the middle, 0.6 mm apart"
    assert several[1].endswith(", 0.5 to 1 mm apart")


def test_it_says_of_each_case_whether_it_is_simulated(trained):
    said = rows(card(trained()))
    assert said["train1"] == ["simulated"] and said["p01"] == ["scanned"]


def test_it_says_which_scanners_the_model_learned_from(trained):
    said = rows(card(trained()))
    assert said["kernels"] == ["B30, D45, lung"]
    assert said["slice profile, SD of a Gaussian"] == ["0.15 to 0.6 mm"]
    assert said["noise, SD in the lung"] == ["15 to 60 HU"]
    said = rows(card(trained(DRAWN | {"seen_by": "stated", "kind": "regression"})))
    assert said["kernels"] == ["lung"] and said["slice profile, SD of a Gaussian"] == ["0.3 mm"]
    assert said["noise, SD in the lung"] == ["30 HU"]
    said = rows(card(trained(DRAWN | {"noise": "measured"})))
    assert said["noise"] == ["as measured on the training's clinical CTs, its SD times 0.5 to 2"]
    assert rows(card(trained({"kind": "cyclegan"})))["scans"] == ["the clinical CTs of the training, as they are"]


def test_what_no_record_tells_is_said_to_be_not_known(trained, tmp_path):
    model = trained(records=False, clinical_spacing_mm=None, micro_spacing_mm=None)
    text = card(model)
    said = rows(text)
    assert said["train1"] == said["p01"] == said["pixels it takes"] == said["kernels"] == ["not known"]
    assert "The records of the data were not beside the model" in " ".join(text.split())
    assert "which this model does not say" in " ".join(text.split())
    bare = trained(records=False, provenance={})
    assert "does not name its training data" in card(bare)
    assert "Four sheep." in card(bare, trained_on="Four sheep.")


def test_the_record_of_another_training_is_not_believed(trained):
    model = trained()
    run = json.loads(model.with_name("run.json").read_text(encoding="utf-8"))
    run["inputs"] = dict.fromkeys(run["inputs"], "0" * 64)
    model.with_name("run.json").write_text(json.dumps(run), encoding="utf-8")
    assert rows(card(model))["train1"] == ["not known"]
    model.with_name("run.json").write_text("{", encoding="utf-8")
    assert rows(card(model))["train1"] == ["not known"]


def test_it_names_neither_people_nor_places(trained):
    model = trained().absolute()
    text = card(model)
    assert str(Path.cwd()) not in text and str(Path.home()) + "/" not in text and "/tmp" not in text
    assert getpass.getuser() not in text.replace("super-resolution", "").split()


def table(path, case, coverage, method="posterior"):
    found = [("coverage_90_ideal", 0.8), ("coverage_90", coverage), ("spread_skill", 0.9), ("crps", 50.0)]
    unit = {"crps": "HU"}
    write_table(path, (case, method, "pooled", "0"), [("uncertainty", m, v, unit.get(m, "1")) for m, v in found])
    return path


def test_a_measured_calibration_stands_in_it_with_its_range_and_its_ideal(trained, tmp_path):
    text = card(trained(), table(tmp_path / "a.csv", "test1", 0.6), table(tmp_path / "b.csv", "test2", 0.7))
    said = rows(text)
    assert said["Coverage"] == ["0.65", "0.6 to 0.7", "0.8"] and said["Spread over skill"] == ["0.9", "0.9 to 0.9", "1"]
    assert said["CRPS, HU"] == ["50", "50 to 50", ""] and "on test1, test2;" in text and "Coverage, ideal" not in said
    assert "Not measured" not in text


def test_an_unmeasured_calibration_is_said_to_be_so(trained):
    assert "Not measured: how far the spread of its draws can be believed is not known." in card(trained())
    assert "Not measured. Only of a model of kind posterior" in card(trained(kind="cyclegan"))


def test_tables_of_several_models_or_of_none_are_refused(trained, tmp_path):
    model = trained()
    first, second = table(tmp_path / "a.csv", "test1", 0.6), table(tmp_path / "b.csv", "test1", 0.7, "other")
    with pytest.raises(UserError, match=r"is of other pooled 0, posterior pooled 0, not of one; give tables of"):
        card(model, first, second)
    write_table(tmp_path / "c.csv", ("a", "m", "p", "0"), [("truth", "psnr", 1.0, "dB")])
    with pytest.raises(UserError, match=r"c\.csv: the protocol uncertainty is of no model, not of one"):
        card(model, tmp_path / "c.csv")
