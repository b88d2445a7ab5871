"""Settings and case sheet: a mistake stops the workflow before any job, with one line that says where, what and what is
allowed.
"""

import argparse
import json
import shlex
from pathlib import Path

import pytest
import yaml

from microsr.config import (
    Calibration,
    Cases,
    Compute,
    CycleGANMethod,
    Evaluate,
    Experiment,
    Losses,
    MicroVolume,
    Patches,
    Simulate,
    Superresolve,
    Train,
    add_flags,
    add_method_flags,
    flags,
    from_flags,
    load,
    method_from_flags,
)
from microsr.config.sheet import (
    MODALITIES,
    SHEET_COLUMNS,
    Case,
    Scan,
    read_sheet,
    sheet_text,
    simulated_cases,
    with_scans,
)
from microsr.core.errors import UserError

ROOT = Path(__file__).parents[3]
FILES = [ROOT / "config.yaml", *sorted((ROOT / "experiments").glob("*.yaml"))]


def refused(match, call, *arguments):
    with pytest.raises(UserError, match=match) as error:
        call(*arguments)
    assert "\n" not in str(error.value)


def test_defaults_that_the_paper_fixes():
    experiment = load({"experiment": "x"})
    assert (experiment.patches.clinical_size, experiment.patches.micro_size) == (32, 256)
    assert experiment.train.epochs == 200
    assert list(experiment.methods) == ["proposed", "bicubic", "cyclegan"]
    assert (
        experiment.methods["proposed"].mix_fraction == 0.25
        and experiment.methods["proposed"].losses.pixel_norm == "mse"
    )
    cyclegan = experiment.methods["cyclegan"].losses
    assert (cyclegan.downsample, cyclegan.upsample, cyclegan.clinical_ssim, cyclegan.micro_ssim) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"experiment": "x", "tran": {}}, r"tran: unknown key; allowed here: experiment, .*, train"),
        ({"experiment": "x", "train": {"epoch": 5}},
         r"train\.epoch: unknown key; allowed here: network, repeats, candidates, epochs"),
        ({"experiment": "x", "volumes": {"micro": {"calibration": {"air": 1}}}},
         r"volumes\.micro\.calibration\.air: unknown key.*air_grey"),
        ({"experiment": "x", "methods": {"mine": {"loss": {}}}},
         r"methods\.mine\.loss: unknown key for kind cyclegan; allowed here: kind, train, losses, mix_fraction"),
        ({"experiment": "x", "methods": {"b": {"kind": "bicubic", "losses": {"cycle": 1}}}},
         r"methods\.b\.losses: unknown key for kind bicubic; allowed here: kind$"),
        ({"experiment": "x", "methods": {"bicubic": {"kind": "bicubic", "train": {"epochs": 1}}}},
         r"methods\.bicubic\.train: unknown key for kind bicubic; allowed here: kind$"),
        ({"experiment": "x", "methods": {"cyclegan": {"losses": {"cycle": -1}}}},
         r"methods\.cyclegan\.losses\.cycle: .*not -1"),
        ({"experiment": "x", "methods": {"b": {"kind": "lanczos"}}},
         r"methods\.b\.kind: must be one of cyclegan, .*bicubic.*, not 'lanczos'$"),
        ({"experiment": "x", "methods": {"b": {"upsampler": "bicubic"}}},
         r"methods\.b: upsampler is now kind: write kind: bicubic instead of upsampler: bicubic$"),
        ({"experiment": "x", "methods": {"b": {"kind": "cyclegan", "upsampler": "generator"}}},
         r"methods\.b: upsampler is now kind: write kind: cyclegan instead of upsampler: generator$"),
        ({}, r"experiment: is missing"),
        ({"experiment": "a b"}, r"experiment: .*not 'a b'"),
        ({"experiment": "x", "train": {"epochs": 0}}, r"train\.epochs: .*not 0"),
        ({"experiment": "x", "train": {"network": "unet"}}, r"train\.network: .*'resnet' or 'compact'"),
        ({"experiment": "x", "patches": {"clinical_size": 16}},
         r"patches\.micro_size is 256, must be scale x patches\.clinical_size = 8 x 16 = 128"),
        ({"experiment": "x", "window_hu": [400, -1000]}, r"window_hu must rise"),
        ({"experiment": "x", "protocols": ["pooled", "pooled"]}, "lists one twice"),
        ({"experiment": "x", "volumes": {"micro": {"calibration": {"low_percentile": 98}}}},
         "low_percentile must be below"),
        ({"experiment": "x", "volumes": {"micro": {"calibration": {"mean_hu": -1000}}}},
         "mean_hu must be above air_hu"),
        ({"experiment": "x", "seed": float("nan")}, "seed"),
        ({"experiment": "x", "train": {"ema_decay": 1}}, r"train\.ema_decay: .*less than 1.*not 1"),
        ({"experiment": "x", "train": {"gradient_penalty": -1}}, r"train\.gradient_penalty: .*not -1"),
        ({"experiment": "x", "compute": {"devices": 0}}, r"compute\.devices: .*not 0"),
        ({"experiment": "x", "methods": {"mine": {"train": {"epoch": 5}}}},
         r"methods\.mine\.train\.epoch: unknown key; allowed here: network, repeats, candidates, epochs"),
        ({"experiment": "x", "methods": {"mine": {"train": {"network": "unet"}}}},
         r"methods\.mine\.train\.network: .*'resnet' or 'compact', not 'unet'"),
        ({"experiment": "x", "methods": {"mine": {"train": {"repeats": 3}}}},
         r"methods\.mine\.train: repeats must be the same for all methods"),
        ({"experiment": "x", "volumes": {"micro": {"mask": "values"}}}, "mask is values, so mask_range must give"),
        ({"experiment": "x", "volumes": {"clinical": {"mask": "values", "mask_range": [900, 200]}}},
         "mask_range must rise"),
        ({"experiment": "x", "volumes": {"clinical": {"organ": "other"}},
          "evaluate": {"further_protocols": ["distribution"]}}, "distribution compares features of lung tissue"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_config_is_named(config, match):
    refused(match, load, config)


def test_the_file_that_holds_the_mistake_is_named(tmp_path):
    base, overlay = tmp_path / "base.yaml", tmp_path / "overlay.yaml"
    base.write_text("experiment: x\ntrain: {epochs: 3}\n")
    overlay.write_text("train: {epoch: 5}\n")
    config = {"experiment": "x", "train": {"epochs": 3, "epoch": 5}}
    with pytest.raises(UserError, match=r"overlay\.yaml: train\.epoch: unknown key"):
        load(config, [overlay, base])


def parsed(section, text=None):
    parser = argparse.ArgumentParser()
    add_flags(parser, type(section))
    return from_flags(parser.parse_args(shlex.split(flags(section) if text is None else text)), type(section))


@pytest.mark.parametrize(
    "section",
    [
        MicroVolume(),
        MicroVolume(sampling="native", area_average=16, calibration=Calibration(method="percentile", mean_hu=-850)),
        MicroVolume(matched_spacing_mm=0.078, calibration=Calibration(air_grey=-12.5, tissue_grey=1e5)),
        Patches(clinical_size=8, micro_size=64, inside=0.9),
        CycleGANMethod(mix_fraction=0.5, losses=Losses(cycle=3)),
        Train(learning_rate=2e-5, adam_betas=(0.4, 0.99), augment=False),
        Train(ema_decay=0.999, gradient_penalty=1, spectral_norm=False),
        Compute(devices=4, nodes=2, accumulate=2, compile=True, deterministic=True),
        Superresolve(slices=[3, 14]),
        Superresolve(),
        Evaluate(),
    ],
)
def test_settings_survive_the_command_line(section):
    assert parsed(section) == section


def test_what_is_not_given_on_the_command_line_takes_its_default():
    assert parsed(Train(), "--epochs 3") == Train(epochs=3)


def test_a_mistake_on_the_command_line_is_named():
    refused(r"command line: epochs: .*not 'many'", parsed, Train(), "--epochs many")


def method_of(text):
    parser = argparse.ArgumentParser()
    add_method_flags(parser)
    return method_from_flags(parser.parse_args(shlex.split(text)))


def test_a_command_takes_the_settings_of_the_kind_that_it_names():
    mine = CycleGANMethod(mix_fraction=0.5, losses=Losses(cycle=3))
    assert method_of(flags(mine)) == mine and flags(mine).startswith("--kind cyclegan ")
    assert method_of("") == CycleGANMethod()
    refused(r"command line: kind: must be one of cyclegan.*, not 'bicubic'$", method_of, "--kind bicubic")


HEADER = "case\tsplit\tclinical\tmicro\n"


@pytest.fixture
def sheet(tmp_path):
    """Writes a sheet beside two files that it can name, a.nii and b.nii."""
    for name in ("a.nii", "b.nii"):
        (tmp_path / name).touch()

    def write(text, header=HEADER, encoding="utf-8"):
        (tmp_path / "cases.tsv").write_bytes((header + text).encode(encoding))
        return Cases(sheet=str(tmp_path / "cases.tsv"), data_root=str(tmp_path))

    return write


def test_a_sheet_gives_the_cases_and_paths_below_the_data_root(sheet, tmp_path):
    cases = read_sheet(sheet("one\ttrain\ta.nii\tb.nii\n\n# a remark\ntwo\ttest\ta.nii\t\n"))
    assert [(c.case, c.split) for c in cases] == [("one", "train"), ("two", "test")]
    assert Path(cases[0].micro.path) == tmp_path / "b.nii"
    assert cases[1].micro is None and cases[1].truth is None


def test_a_test_case_may_have_a_condition(sheet):
    header = HEADER.strip() + "\tcondition\n"
    (case,) = read_sheet(sheet("one\ttest\ta.nii\t\tsoft_kernel\n", header))
    assert case.condition == "soft_kernel"
    refused(
        r"line 2: train case 'one' has a condition; only a test case may have one",
        read_sheet, sheet("one\ttrain\ta.nii\t\tsoft_kernel\n", header),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("simulate", "match"),
    [
        ({"scanner": {"noise": 3}}, r"simulate\.scanner.*noise"),
        ({"scanner": {"kernel": "B29"}}, r"simulate\.scanner.*B29"),
        ({"scanner": {"pixel_mm": 0.5}}, r"simulate\.scanner: pixel_mm must be the one that is stated"),
        ({"further_scans": {"a b": {}}}, r"further_scans.*letters, digits"),
        ({"further_scans": {"soft": {"kernl": "B30"}}}, r"further_scans\.soft.*kernl"),
        ({"further_specimens": {"a b": {}}}, r"further_specimens.*letters, digits"),
        ({"further_specimens": {"other": {"specimen": "best"}}}, r"further_specimens\.other.*'random' or 'tumour'"),
        ({"further_specimens": {"other": {"specimen_mm": 5}}}, r"further_specimens\.other.*specimen_mm"),
        ({"further_specimens": {"other": {"micro_offset_hu": 900}}}, r"further_specimens\.other.*600"),
        ({"further_cases": 0}, r"simulate\.further_cases"),
        ({"specimen": "best"}, r"simulate\.specimen: .*'matched', 'random' or 'tumour'"),
        ({"micro_offset_hu": -100}, r"simulate\.micro_offset_hu: .*-60"),
    ],
)
def test_another_scanner_is_checked_as_the_stated_one_is(simulate, match):
    refused(match, load, {"experiment": "a", "simulate": simulate})


def test_a_sheet_saved_by_a_spreadsheet_reads_the_same(sheet):
    text = "one\ttrain\ta.nii\tb.nii\n"
    plain = read_sheet(sheet(text))
    assert read_sheet(sheet(text.replace("\n", "\r\n"), HEADER.replace("\n", "\r\n"), "utf-8-sig")) == plain


def test_series_slices_and_spacing_belong_to_their_modality(sheet):
    header = "case\tsplit\tclinical\tclinical_series\tclinical_slices\tmicro\tmicro_spacing\n"
    (case,) = read_sheet(sheet("one\ttrain\ta.nii\t1.2.3\t10:20\tb.nii\t0.05x0.05x0.06\n", header))
    assert (case.clinical.series, case.clinical.slices, case.clinical.spacing) == ("1.2.3", "10:20", None)
    assert case.micro.spacing == "0.05x0.05x0.06"
    assert (case.micro.level, case.micro.region) == (None, None)


def test_a_store_is_named_by_its_url_with_a_level_and_a_region(sheet):
    header = "case\tsplit\tmicro\tmicro_level\tmicro_region\n"
    (case,) = read_sheet(sheet("one\ttrain\thttps://a.org/b.zarr\t2\t10:20,:30\n", header))
    assert case.micro == Scan(path="https://a.org/b.zarr", level=2, region="10:20,:30")


def test_features_of_lung_are_for_lungs():
    settings = {"experiment": "x", "evaluate": {"further_protocols": ["distribution"]}}
    with pytest.raises(ValueError, match="distribution compares features of lung tissue"):
        Experiment.model_validate(settings | {"volumes": {"clinical": {"mask": "none"}}})
    Experiment.model_validate(settings | {"volumes": {"clinical": {"mask": "none", "organ": "lung"}}})


@pytest.mark.parametrize(
    ("text", "header", "match"),
    [
        ("one\ttrain\ta.nii\tb.nii\tc\n", HEADER, r"line 2: has 5 tab-separated cells, the header has 4"),
        ("one train a.nii b.nii\n", HEADER, r"line 2: has 1 tab-separated cells"),
        ("one\ttrain\tc.nii\tb.nii\n", HEADER,
         r"line 2: clinical: .*c\.nii does not exist; correct the sheet, or cases\.data_root"),
        ("one\tlearn\ta.nii\tb.nii\n", HEADER, r"line 2: split: .*'train', 'validation' or 'test'"),
        ("o/e\ttrain\ta.nii\tb.nii\n", HEADER, r"line 2: case: .*o/e"),
        ("\ttrain\ta.nii\tb.nii\n", HEADER, r"line 2: case: is missing"),
        ("one\ttrain\ta.nii\tb.nii\nOne\ttrain\ta.nii\tb.nii\n", HEADER, r"line 3: case 'One' appears twice"),
        ("one\ttest\t\tb.nii\n", HEADER, r"line 2: test case 'one' has no clinical CT"),
        ("one\tvalidation\t\tb.nii\n", HEADER, r"line 2: validation case 'one' has no clinical CT"),
        ("one\ttrain\t\t\n", HEADER, r"line 2: case 'one' has neither clinical nor micro"),
        ("one\ttrain\ta.nii\n", "case\tsplit\tclincal\n",
         r"line 1: column 'clincal' is unknown.*allowed: case, split, clinical"),
        ("one\ttrain\ta.nii\n", "case\tcase\tsplit\n", r"line 1: column 'case' is unknown or named twice"),
        ("a.nii\n", "clinical\n", r"line 1: column 'case' is missing"),
        ("one\ttrain\ta.nii\t5-9\n", "case\tsplit\tclinical\tclinical_slices\n", r"line 2: clinical\.slices: .*5-9"),
        ("one\ttrain\ta.nii\tc.nii\n", "case\tsplit\tclinical\tclinical_mask\n",
         r"line 2: clinical_mask: .*c\.nii does not exist; correct the sheet, or cases\.data_root"),
        ("one\ttrain\ta.nii\tb.nii\n", "case\tsplit\tclinical\tmicro_mask\n",
         r"line 2: micro_mask is given but micro is empty"),
        ("one\ttrain\ta.nii\t\t5:9\n", "case\tsplit\tclinical\tmicro\tmicro_slices\n",
         r"line 2: micro_slices is given but micro is empty"),
        ("one\ttrain\ta.nii\t-1\n", "case\tsplit\tclinical\tclinical_level\n",
         r"line 2: clinical\.level: .*not '-1'"),
        ("one\ttrain\ta.nii\t5:9\n", "case\tsplit\tclinical\tclinical_region\n",
         r"line 2: clinical\.region: must be rows and .*5:9"),
        ("", "", r"is empty; its first line must name the columns"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_sheet_is_named_by_its_line(sheet, text, header, match):
    refused(rf"cases\.tsv.*{match}", read_sheet, sheet(text, header))


def test_a_sheet_that_is_missing_or_no_text_is_named(tmp_path, sheet):
    refused(r"cases\.sheet: .*none\.tsv does not exist", read_sheet, Cases(sheet=str(tmp_path / "none.tsv")))
    refused(r"cannot be read as UTF-8", read_sheet, sheet("\u00e9\ttrain\ta.nii\tb.nii\n", encoding="latin-1"))


def test_every_column_is_read_as_it_is_written(tmp_path):
    """So that a new field of `Case` or `Scan` is a column that nothing drops; give it a value here."""
    file = tmp_path / "a"
    file.write_text("")
    scan = Scan(path=str(file), series="1.2", slices="0:5", spacing="1", resample="even", level=1, region="0:2,0:2")
    scans = dict.fromkeys(MODALITIES, scan)
    masks = {"clinical_mask": str(file), "micro_mask": str(file)}
    cases = [Case(case="one", split="test", airways=str(file), condition="sharp", **masks, **scans)]
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text(sheet_text(cases), encoding="utf-8")
    header, row = (line.split("\t") for line in sheet.read_text(encoding="utf-8").splitlines())
    assert header == list(SHEET_COLUMNS)
    assert [column for column, cell in zip(header, row, strict=True) if not cell] == ["micro_to_clinical"]
    assert read_sheet(Cases(sheet=str(sheet))) == cases


def test_uct_without_a_clinical_ct_is_scanned_where_that_is_asked_for(sheet):
    named = sheet("a\ttrain\t\tb.nii\nb\ttest\t\tb.nii\nc\ttrain\ta.nii\tb.nii\n")
    refused("case 'b' has no clinical CT to super-resolve", read_sheet, named)
    one, two, three = with_scans(read_sheet(named, scan_micro=True), "made")
    assert (one.clinical, one.truth) == (Scan(path="made/a/clinical.nii.gz"), None)
    assert [getattr(two, name).path for name in ("clinical", "truth", "thick_truth", "noise_free")] == [
        f"made/b/{name}.nii.gz" for name in ("clinical", "truth", "thick_truth", "noise_free")
    ]
    assert three.clinical.path.endswith("a.nii"), "its own"
    refused("'b' has no clinical CT", read_sheet, sheet("b\ttest\t\t\n"), True)


def test_only_uct_of_a_sheet_is_scanned():
    refused("name the sheet of your uCT in cases.sheet", load, {"experiment": "x", "scan": {"micro": True}})
    load({"experiment": "x", "scan": {"micro": True}, "cases": {"sheet": "s.tsv"}})


def test_a_registered_specimen_is_the_only_truth(sheet, tmp_path):
    header = "case\tsplit\tclinical\tmicro\tmicro_to_clinical\ttruth\n"
    (case,) = cases = read_sheet(sheet("one\ttest\ta.nii\tb.nii\ta.nii\t\n", header))
    assert case.micro_to_clinical == str(tmp_path / "a.nii")
    (tmp_path / "again.tsv").write_text(sheet_text(cases), encoding="utf-8")
    assert read_sheet(Cases(sheet=str(tmp_path / "again.tsv"), data_root=str(tmp_path))) == cases
    for row in ("one\ttest\ta.nii\tb.nii\ta.nii\ta.nii\n", "one\ttrain\t\tb.nii\ta.nii\t\n"):
        with pytest.raises(UserError, match="micro_to_clinical makes the truth of a clinical CT"):
            read_sheet(sheet(row, header))


def test_simulated_cases_have_truth_where_they_are_tested():
    cases = simulated_cases(Simulate(training_cases=2, validation_cases=1, test_cases=1), "results/x/simulated")
    assert [(c.case, c.split, c.truth is not None) for c in cases] == [
        ("train1", "train", False),
        ("train2", "train", False),
        ("validation1", "validation", True),
        ("test1", "test", True),
    ]
    assert cases[0].micro == Scan(path="results/x/simulated/train1/micro.nii.gz")


def test_every_setting_says_what_it_is():
    def described(model, prefix=""):
        for key, field in model.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and hasattr(inner, "model_fields"):
                yield from described(inner, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", field.description

    assert [key for key, text in described(Experiment) if not text] == []


def test_slices_of_one_volume_are_evenly_spaced():
    assert Superresolve(slices=[7, 3, 5]).slices == [7, 3, 5]
    with pytest.raises(ValueError, match=r"evenly spaced.*not \[1, 2, 7\]"):
        Superresolve(slices=[1, 2, 7])


def test_patches_too_small_for_the_papers_discriminator_are_refused():
    small = {"patches": {"clinical_size": 5, "micro_size": 40}, "train": {"network": "resnet"}}
    refused(
        r"clinical_size is 5, network resnet \(method proposed\) needs at least 6", load, {"experiment": "a"} | small
    )
    small = small | {"train": {}, "methods": {"mine": {"train": {"network": "resnet"}}}}
    refused(r"clinical_size is 5, network resnet \(method mine\) needs at least 6", load, {"experiment": "a"} | small)


def test_a_method_may_train_otherwise_than_the_rest():
    methods = {"mine": {"train": {"network": "resnet", "spectral_norm": None, "learning_rate": 1}}, "other": {}}
    train = {"epochs": 7, "spectral_norm": True, "learning_rate": 2}
    experiment = load({"experiment": "x", "methods": methods, "train": train})
    assert experiment.training_of("other") == experiment.train == Train(**train)
    assert experiment.training_of("mine") == Train(epochs=7, network="resnet", learning_rate=1)
    assert "train" not in flags(experiment.methods["mine"]), "the merged section is passed instead"


def test_a_batch_is_shared_evenly_by_devices_nodes_and_parts():
    compute = {"compute": {"devices": 2, "nodes": 3, "accumulate": 2}}
    assert load({"experiment": "x", "train": {"batch_size": 24}} | compute).compute.nodes == 3
    refused(
        r"batch_size is 18 \(method proposed\), must be divisible by .* = 2 x 3 x 2 = 12$",
        load, {"experiment": "x", "train": {"batch_size": 18}} | compute,
    )  # fmt: skip
    mine = {"train": {"batch_size": 24}, "methods": {"mine": {"train": {"batch_size": 6}}, "other": {}}}
    refused(r"batch_size is 6 \(method mine\)", load, {"experiment": "x"} | mine | compute)
    untrained = {"methods": {"bicubic": {"kind": "bicubic"}}}
    assert load({"experiment": "x"} | untrained | compute), "nothing is trained"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_words_of_a_command_line_mean_what_a_file_means(file):
    """Snakemake reads all scalars of `--config` as texts."""

    def words(value):
        if isinstance(value, dict):
            return {key: words(one) for key, one in value.items()}
        if isinstance(value, list):
            return list(map(words, value))
        return value if isinstance(value, str) else json.dumps(value)

    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    one, other = load(settings), load(words(settings))
    assert {**dict(one), "methods": 0} == {**dict(other), "methods": 0}
    assert list(one.methods) == list(other.methods)
    for name, method in one.methods.items():
        if name in one.trained_methods:
            assert one.training_of(name) == other.training_of(name)
        assert method.model_copy(update={"train": {}}) == other.methods[name].model_copy(update={"train": {}})


def test_null_on_a_command_line_is_none():
    words = {"experiment": "x", "methods": {"cyclegan": "null", "bicubic": {"kind": "bicubic"}}}
    words["volumes"] = {"micro": {"calibration": {"air_grey": "~"}}}
    experiment = load(words)
    assert list(experiment.methods) == ["bicubic"] and experiment.volumes.micro.calibration.air_grey is None
