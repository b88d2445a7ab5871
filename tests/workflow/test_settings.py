"""Every key of the configuration: which steps it reaches, and so re-runs; or that it re-runs nothing."""

import json
import re
import shlex
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from microsr.config import KINDS, REFERENCES, Experiment, Inset, MeanMethod, PairedMethod, TrainedMethod
from microsr.core.registry.losses import LOSSES

pytestmark = pytest.mark.workflow
SMOKE = ["--configfile", "experiments/smoke.yaml"]
SIMULATED = {"simulate_training_case", "simulate_test_case"}
TRAINED = {"train", "draw_network"}
SCANNED = {"validate_simulation", "train", "evaluate_known", "measure_scanner"}
SUPERRESOLVED = {"superresolve", "superresolve_draws", "superresolve_draws_again"}
METHOD = "methods.proposed."

# key: its new value and the rules whose commands it reaches
TRAINED_METHODS = ("proposed", "cyclegan", "regression", "posterior")
"""Methods of the smoke experiment that are trained."""
REACHES: dict[str, tuple[Any, set[str]]] = {
    "note": ("seen by the reader", {"draw_comparison", "write_report"}),
    "seed": (
        2,
        SIMULATED | {"extract_patches", "scan_patches", "learn_features", "train", "evaluate_known"}
        | {"evaluate_distribution", "evaluate_repeatability", "evaluate_downsampled", "evaluate_uncertainty"},
    ),
    "scale": (
        4,
        SIMULATED | SUPERRESOLVED | {"import_micro", "scan_patches", "downsample_micro"},
    ),
    "window_hu": ([-1001.0, 400.0], {"train"}),
    **{
        f"scanner.{key}": (value, SIMULATED | SCANNED | {"scan_patches"})
        for key, value in {"kernel": "D45", "pixel_mm": 0.626, "slice_sigma_mm": 0.3}.items()
    },
    "scanner.noise_hu": (31.0, SIMULATED | SCANNED),
    **{
        f"simulate.{key}": (value, SIMULATED)
        for key, value in {
            "clinical_size": 49, "clinical_slices": 4, "slice_spacing_mm": 0.7, "micro_spacing_mm": 0.08,
            "specimen_mm": 15.0, "specimen": "tumour", "micro_offset_hu": 31.5,
        }.items()
    },
    **{
        f"volumes.clinical.{key}": (value, {"import_clinical", "import_repeat", "import_noise_free"})
        for key, value in {
            "lung_below_hu": -401.0, "closing_mm": 4.1, "mask": "values", "organ": "lung",
            "mask_range": [-1100.0, -400.0], "fill_mm": 31.0,
        }.items()
    },
    **{
        f"volumes.micro.{key}": (value, {"import_micro"})
        for key, value in {
            "sampling": "native", "matched_spacing_mm": 0.08, "area_average": 2, "calibration.method": "percentile",
            "calibration.air_grey": 1.0, "calibration.tissue_grey": 2.0, "calibration.low_percentile": 6.0,
            "calibration.high_percentile": 96.0, "calibration.air_hu": -999.0, "calibration.tissue_hu": 41.0,
            "calibration.mean_hu": -700.0, "mask": "none", "mask_range": [100.0, 900.0], "closing_mm": 1.1,
            "fill_mm": 29.0,
        }.items()
    },
    "patches.clinical_size": (12, {"extract_patches"}),
    "patches.micro_size": (48, {"extract_patches"}),
    "patches.per_case": (9, {"extract_patches"}),
    "patches.inside": (0.7, {"extract_patches"}),
    **{
        f"pairs.{key}": (value, {"scan_patches"})
        for key, value in {
            "scanners": 2, "kernels": ["D45"], "slice_sigma": [0.8, 1.2], "slice_spacing_mm": [0.5, 0.7],
        }.items()
    },
    **{f"methods.{name}.slices": (3, {"train", "scan_patches"}) for name in ("regression", "posterior")},
    **{
        f"methods.{name}.{key}": (value, {"train"})
        for name, seen_by in (("regression", "drawn"), ("posterior", "stated"))
        for key, value in {"seen_by": seen_by, "noise": "measured", "noise_range": [0.6, 2.0]}.items()
    },
    **{
        f"methods.posterior.{key}": (value, {"train"})
        for key, value in {"alpha": 0.9, "pools": 0.5, "neighbourhoods": 0.5, "spectrum": 0.6}.items()
    },
    f"{METHOD}mix_fraction": (0.3, TRAINED),
    **{
        f"{METHOD}losses.{key}": (value, TRAINED)
        for key, value in {
            "adversarial": 0.6, "cycle": 11.0, "downsample": 41.0, "upsample": 2.0, "clinical_ssim": 3.0,
            "micro_ssim": 4.0, "pixel_norm": "l1",
        }.items()
    },
    **{f"{METHOD}losses.{key}": (6.0, TRAINED) for key in LOSSES},
    **{
        f"train.{key}": (value, TRAINED)
        for key, value in {
            "network": "compact", "epochs": 2, "patches_per_case": 12, "batch_size": 8, "learning_rate": 0.0005,
            "adam_betas": [0.6, 0.99], "constant_fraction": 0.6, "pool_size": 40, "augment": False,
            "precision": "float32", "start_steps": 2, "noise_gain": 2.0, "ema_decay": 0.9, "gradient_penalty": 0.5,
            "spectral_norm": False,
        }.items()
    },
    "superresolve.slices": ([0, 1], SUPERRESOLVED),
    "superresolve.precision": ("bfloat16", SUPERRESOLVED),
    "superresolve.draws": (3, SUPERRESOLVED - {"superresolve"}),
    "evaluate.feature_steps": (11, {"learn_features"}),
    "evaluate.data_range_hu": (1401.0, {"evaluate_known", "evaluate_downsampled"}),
    "figures.slice": (1, {"draw_comparison", "draw_hallucination", "draw_tiling", "draw_uncertainty"}),
    "figures.insets": (
        [{"row": 1, "column": 2, "size": 25}], {"draw_comparison", "draw_hallucination", "draw_uncertainty"},
    ),
    "figures.display_window_hu": (
        [-1000.0, 201.0],
        {"draw_comparison", "draw_hallucination", "draw_tiling", "draw_patches", "draw_uncertainty"},
    ),
}  # fmt: skip

# `compute`: re-runs nothing, but for parts, which changes the jobs.
RE_RUNS_NOTHING = {
    "compute.device": "cpu",
    "compute.threads": 2,
    "compute.devices": 2,
    "compute.nodes": 2,
    "compute.accumulate": 1,
    "compute.compile": True,
    "compute.deterministic": True,
    "compute.checkpoint_minutes": 1.0,
    "compute.tile": 64,
    "compute.retries": 5,
}

# Which jobs there are: each has a test of its own, named here.
JOBS = {
    "experiment": "test_another_name_is_another_experiment",
    "cases.sheet": "test_a_sheet_of_the_same_files_re_runs_nothing",
    "cases.data_root": "test_a_sheet_of_the_same_files_re_runs_nothing",
    "simulate.training_cases": "test_a_further_case_leaves_the_others_as_they_are",
    "simulate.validation_cases": "test_a_validation_case_is_looked_at_when_asked_for_alone",
    "simulate.test_cases": "test_a_further_case_leaves_the_others_as_they_are",
    "simulate.scanner": "test_another_scanner_than_the_stated_one_makes_and_judges_all_scans",
    "simulate.further_scans": "test_a_further_scan_of_a_test_lung_trains_nothing_again",
    "simulate.further_specimens": "test_a_further_specimen_trains_models_of_its_own",
    "simulate.further_cases": "test_a_further_specimen_trains_models_of_its_own",
    **{
        f"scan.{key}": "test_uct_without_a_clinical_ct_is_scanned_where_that_is_asked_for"
        for key in ("micro", "slice_spacing_mm")
    },
    "methods": "test_a_method_that_is_left_out_trains_no_other_one_again",
    f"{METHOD}kind": "test_a_method_that_is_left_out_trains_no_other_one_again",
    "methods.posterior_mean.of": "test_a_mean_of_another_method_is_of_its_models",
    f"{METHOD}train": "test_a_method_s_own_change_trains_it_alone",
    "protocols": "test_further_models_leave_the_others_as_they_are",
    "train.candidates": "test_several_models_of_a_training_are_chosen_among",
    "train.repeats": "test_further_models_leave_the_others_as_they_are",
    **{f"search.{key}": "test_a_search_trains_each_trial_and_ranks_them" for key in ("trials", "seed", "spaces")},
    "evaluate.choose_by": "test_a_search_trains_each_trial_and_ranks_them",
    "superresolve.formats": "test_a_further_format_is_an_export_only",
    "evaluate.split": "test_a_validation_case_is_looked_at_when_asked_for_alone",
    "evaluate.further_protocols": "test_protocols_that_are_not_asked_for_are_not_made",
    "evaluate.validate_metrics": "test_the_metrics_are_validated_where_it_is_asked_for",
    "evaluate.validate_simulation": "test_protocols_that_are_not_asked_for_are_not_made",
    "evaluate.kernel_pair": "test_a_kernel_pair_is_for_the_validation_only",
    "compute.parts": "test_other_parts_super_resolve_again_but_train_nothing",
}


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of all settings; of the methods those of one of them, as if it were of every kind.

    But keys of a kind that learns from pairs are those of a method of that name, and those of means of posterior_mean.
    """
    found = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += keys(field.annotation, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    kinds = KINDS.values() if model is Experiment else ()
    for kind in kinds:
        if issubclass(kind, PairedMethod):
            own = [key for key in kind.model_fields if key not in TrainedMethod.model_fields]
            found += [f"methods.{kind.model_fields['kind'].default}.{key}" for key in own]
        else:
            found += keys(kind, "methods.posterior_mean." if kind is MeanMethod else METHOD)
    return [key for key in dict.fromkeys(found) if key != "methods.posterior_mean.kind"]


def test_every_key_is_in_one_of_the_lists():
    """A new key of the configuration must say here what it re-runs."""
    listed = [*REACHES, *RE_RUNS_NOTHING, *JOBS]
    assert set(keys(Experiment)) == set(listed) and len(listed) == len(set(listed))
    assert set(Inset.model_fields) == set(REACHES["figures.insets"][0][0])
    assert not [test for test in JOBS.values() if test not in globals()]


def overlay(folder, settings: dict[str, Any]) -> list[str]:
    """Arguments of a dry run with these settings, dotted, laid over the smoke experiment."""
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        *outer, name = key.split(".")
        level = nested
        for part in outer:
            level = level.setdefault(part, {})
        level[name] = value
    (folder / "overlay.yaml").write_text(yaml.safe_dump(nested))
    return [*SMOKE, str(folder / "overlay.yaml")]


def jobs_of(text: str) -> list[tuple[str, str, str]]:
    """Rule, reason and command of each job of a dry run."""
    blocks = re.split(r"(?m)^(?:local)?rule (?=\w+:$)", text)[1:]
    found = []
    for block in blocks:
        reason = re.search(r"(?m)^    reason: (.*)$", block)
        command = re.search(r"(?m)^Shell command: (.*)$", block)
        found.append((block.partition(":")[0], reason[1] if reason else "", command[1] if command else ""))
    return found


def test_a_setting_reaches_the_commands_of_the_steps_that_it_decides_and_re_runs_them(finished, tmp_path):
    """All at once: what each re-runs is told by the commands that have its new value, and by Snakemake's reason."""
    values = {key: value for key, (value, _) in REACHES.items()}
    done = finished.snakemake("-n", "-p", *overlay(tmp_path, values))
    assert done.returncode == 0, done.stdout[-3000:]
    jobs = jobs_of(done.stdout)
    reached: dict[str, set[str]] = {key: set() for key in REACHES}
    for rule, _, command in jobs:
        words = shlex.split(command.split(" --log ")[0])
        words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
        given = {word.removeprefix("--"): words[n + 1 :] for n, word in enumerate(words) if word.startswith("--")}
        for key, (value, _) in REACHES.items():
            if has(given, key, value):
                reached[key].add(rule)
    assert reached == {key: rules for key, (_, rules) in REACHES.items()}
    # Of a job whose inputs are made again as well, Snakemake gives that reason only.
    re_run = {rule for rule, reason, _ in jobs if "Params have changed" in reason}
    assert {*SIMULATED, "draw_network"} <= re_run <= {rule for _, rules in REACHES.values() for rule in rules}


def has(given: dict[str, list[str]], key: str, value: Any) -> bool:
    """Whether a command's flags have the value of a key; a flag is named as the key is within its section."""
    parts = key.removeprefix(METHOD).split(".")
    for start in range(len(parts)):
        words = given.get(".".join(parts[start:]))
        if words is not None:
            spread = value if key == "window_hu" else [value]
            texts = words[: len(spread)]
            return [as_value(text) for text in texts] == list(spread)
    return False


def as_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def test_how_the_work_is_done_re_runs_nothing(finished, tmp_path):
    assert not finished.plan(*overlay(tmp_path, RE_RUNS_NOTHING))
    assert not finished.plan(*overlay(tmp_path, {"compute.accumulate": 4}))


def test_another_name_is_another_experiment(finished, tmp_path):
    done = finished.snakemake("-n", "-p", *overlay(tmp_path, {"experiment": "other"}))
    commands = [command for _, _, command in jobs_of(done.stdout)]
    assert len(commands) > 60 and not [command for command in commands if "results/smoke/" in command]


def test_a_sheet_of_the_same_files_re_runs_nothing(finished, tmp_path):
    sheet = finished.folder / "results/smoke/cases.tsv"
    (tmp_path / "sheet.tsv").write_text(sheet.read_text(encoding="utf-8").replace("results/smoke/", ""))
    settings = {"cases.sheet": str(tmp_path / "sheet.tsv"), "cases.data_root": "results/smoke"}
    assert not finished.plan(*overlay(tmp_path, settings))


def commands_of(workflow, *arguments: str) -> dict[str, list[str]]:
    """The commands of a dry run, by rule."""
    done = workflow.snakemake("-n", "-p", *arguments)
    assert done.returncode == 0, done.stdout[-3000:]
    found: dict[str, list[str]] = {}
    for rule, _, command in jobs_of(done.stdout):
        found.setdefault(rule, []).append(command)
    return found


def test_a_further_case_leaves_the_others_as_they_are(finished, tmp_path):
    commands = commands_of(finished, *overlay(tmp_path, {"simulate.training_cases": 3, "simulate.test_cases": 2}))
    made = {rule for rule, texts in commands.items() if any("--case" in text for text in texts)}
    assert {
        "simulate_training_case",
        "simulate_test_case",
        "import_clinical",
        "import_micro",
        "extract_patches",
    } <= made
    for rule in (*SIMULATED, "import_clinical", "import_micro", "extract_patches"):
        assert all(re.search("--case (train3|test2) ", text) for text in commands[rule]), rule
    assert len(commands["train"]) == len(TRAINED_METHODS), "on one case more"


def test_a_validation_case_is_looked_at_when_asked_for_alone(finished, tmp_path):
    planned = finished.plan(*overlay(tmp_path, {"simulate.validation_cases": 1}))
    assert set(planned) <= {"all", "write_report"}, "the report shows the settings"
    asked = {"simulate.validation_cases": 1, "evaluate.split": "validation"}
    commands = commands_of(finished, *overlay(tmp_path, asked))
    assert all("--case validation1 --split validation" in text for text in commands["simulate_test_case"])
    assert "train" not in commands and not [text for text in commands["superresolve"] if "/test1." in text]
    assert not [text for text in commands["collect_metrics"] if "/test1." in text]
    for rule in ("summarise_metrics", "draw_metrics"):
        assert all("--split validation" in text for text in commands[rule]), rule


def test_another_scanner_than_the_stated_one_makes_and_judges_all_scans(finished, tmp_path):
    commands = commands_of(finished, *overlay(tmp_path, {"simulate.scanner": {"noise_hu": 61.0}}))
    for rule in (*SIMULATED, "evaluate_known", "validate_simulation"):
        assert all("--noise_hu 61.0 " in f"{text} " for text in commands[rule]), rule
    assert all("--noise_hu 30" in text for text in commands["train"]), "which know what is stated"


def test_uct_without_a_clinical_ct_is_scanned_where_that_is_asked_for(finished, tmp_path):
    lines = ["case\tsplit\tmicro\tmicro_slices", *(f"{name}\t{split}\tmicro.nii.gz\t{part}" for name, split, part in
             (("one", "train", ":20"), ("two", "test", "25:")))]  # fmt: skip
    (tmp_path / "sheet.tsv").write_text("\n".join(lines))
    root = finished.folder / "results/smoke/simulated/train1"
    asked = {"cases.sheet": str(tmp_path / "sheet.tsv"), "cases.data_root": str(root), "experiment": "scanned"}
    asked |= {"evaluate.further_protocols": [], "scanner.kernel": "D45", "volumes.micro.calibration.air_grey": 7.0}
    done = finished.snakemake("-n", *overlay(tmp_path, asked))
    assert done.returncode == 1 and "'two' has no clinical CT to super-resolve" in done.stdout
    commands = commands_of(finished, *overlay(tmp_path, asked | {"scan.micro": True, "scan.slice_spacing_mm": 0.7}))
    (trained,), (tested,) = commands["scan_training_case"], commands["scan_test_case"]
    for text, part in ((trained, ":20"), (tested, "25:")):
        assert f"microsr scan {root}/micro.nii.gz --slices {part} --scale 8 --calibration.method two_point" in text
        assert "--calibration.air_grey 7.0" in text and "--kernel D45" in text and "--slice_spacing_mm 0.7 " in text
    assert "--truth " not in trained and "--thick_truth results/scanned/scanned/two/thick_truth.nii.gz" in tested
    further = 2  # bicubic, and the mean of draws
    assert len(commands["evaluate_images"]) == len(TRAINED_METHODS) + further + len(REFERENCES)
    assert any("--input results/scanned/scanned/two/clinical.nii.gz" in text for text in commands["import_clinical"])


def test_a_further_scan_of_a_test_lung_trains_nothing_again(finished, tmp_path):
    commands = commands_of(finished, *overlay(tmp_path, {"simulate.further_scans": {"D45": {"kernel": "D45"}}}))
    (scan,) = commands["scan_again"]
    assert "--case test1-D45 --lung test1 " in scan and "--kernel D45 " in scan
    assert not {"train", "simulate_test_case", "collect_metrics", "draw_comparison"} & set(commands)
    assert len(commands["superresolve"]) == len(TRAINED_METHODS) + 1 + len(REFERENCES)
    assert len(commands["superresolve_draws"]) == len(commands["evaluate_uncertainty"]) == 1
    assert len(commands["evaluate_known"]) == len(commands["superresolve"]) + 1
    assert all("test1-D45.images.csv" in text for text in commands["collect_condition"])
    assert {"summarise_condition", "typeset_condition"} <= set(commands)


def test_a_further_specimen_trains_models_of_its_own(finished, tmp_path):
    asked = {"simulate.further_specimens": {"denser": {"micro_offset_hu": 60}}, "simulate.further_cases": 1}
    commands = commands_of(finished, *overlay(tmp_path, asked))
    cut = commands["cut_again"]
    assert all(f"--case train{n}-denser --split train " in text for n, text in enumerate(sorted(cut), start=1))
    assert all("--lung train" in text and "--micro_offset_hu 60" in text for text in cut)
    assert not {"simulate_training_case", "simulate_test_case", "draw_comparison"} & set(commands)
    assert len(commands["train"]) == len(TRAINED_METHODS)
    assert all("/specimen-denser --state " in text and "-denser/micro.npy" in text for text in commands["train"])
    images = commands["superresolve"] + commands["superresolve_draws"]
    assert all("/specimen-denser/test1" in one for one in images)
    assert len([one for one in images if "/specimen-denser/test1.ome.zarr" in one]) == len(TRAINED_METHODS) + 1


def test_several_models_of_a_training_are_chosen_among(finished, tmp_path):
    asked = {"simulate.validation_cases": 1, "train.candidates": 2, "experiment": "chosen"}
    commands = commands_of(finished, *overlay(tmp_path, asked))
    assert (
        len(commands["choose_model"]) == len(commands["train"]) == len(TRAINED_METHODS)
        and "tabulate_choices" in commands
    )
    for text in commands["choose_model"]:
        assert "generator.1.pt" in text and "generator.2.pt --case name=validation1 clinical=" in text
    assert all("--candidates 2 " in text for text in commands["train"])
    assert not any("validation1" in text for text in commands["superresolve"] + commands["evaluate_known"])


def test_a_search_trains_each_trial_and_ranks_them(finished, tmp_path):
    asked = {"simulate.validation_cases": 1, "evaluate.split": "validation", "search.trials": 2, "search.seed": 5}
    asked |= {f"search.spaces.{name}": {"losses.cycle": [1, 20]} for name in TRAINED_METHODS[:2]}
    asked |= {f"search.spaces.{name}": {"train.learning_rate": [1e-4, 1e-3]} for name in TRAINED_METHODS[2:]}
    choice = {"evaluate.choose_by": ["truth.psnr"]}
    commands = commands_of(finished, "search", *overlay(tmp_path, asked | choice | {"experiment": "search"}))
    trained = {re.search(r"models/([\w-]+)/pooled ", text)[1] for text in commands["train"]}
    assert trained == {f"{name}-{number}" for name in TRAINED_METHODS for number in (1, 2)}
    (command,) = commands["tabulate_search"]
    assert "--by truth.psnr " in command and '"cyclegan-2": {"losses.cycle": ' in command
    assert not {"draw_comparison", "write_report"} & set(commands) and not any(
        "test1" in t for t in commands["superresolve"]
    )


def test_further_models_leave_the_others_as_they_are(finished, tmp_path):
    commands = commands_of(finished, *overlay(tmp_path, {"protocols": ["pooled", "per_case"], "train.repeats": 2}))
    sets = {re.search(r"models/(\w+)/(\S+) ", text).groups() for text in commands["train"]}
    new = ("pooled.seed2", *(f"case-{case}{seed}" for case in ("train1", "train2") for seed in ("", ".seed2")))
    assert sets == {(method, name) for method in TRAINED_METHODS for name in new}
    assert not {"simulate_training_case", "import_micro", "extract_patches"} & set(commands)


def test_a_method_that_is_left_out_trains_no_other_one_again(finished, tmp_path):
    commands = commands_of(
        finished,
        *overlay(tmp_path, {"methods.cyclegan": None, "methods.proposed": None, "methods.mine.kind": "bicubic"}),
    )
    assert "train" not in commands and "draw_comparison" in commands
    assert all("superresolved/mine/none" in text for text in commands["superresolve"])


def test_a_mean_of_another_method_is_of_its_models(finished, tmp_path):
    asked = {"methods.again.kind": "posterior", "methods.posterior_mean.of": "again"}
    commands = commands_of(finished, *overlay(tmp_path, asked))
    for rule in ("superresolve_draws", "superresolve_draws_again"):
        assert all("models/again/pooled/generator.pt" in text for text in commands[rule]), rule
    (trained,) = commands["train"]
    assert "models/again/pooled" in trained


def test_a_method_s_own_change_trains_it_alone(finished, tmp_path):
    commands = commands_of(finished, *overlay(tmp_path, {"methods.cyclegan.train": {"epochs": 2}}))
    (command,) = commands["train"]
    assert "models/cyclegan/pooled" in command and "--epochs 2 " in command


def test_a_further_format_is_an_export_only(finished, tmp_path):
    assert set(finished.plan(*overlay(tmp_path, {"superresolve.formats": ["nifti", "dicom"]}))) == {
        "export", "export_dicom", "all",
    }  # fmt: skip


def test_a_kernel_pair_is_for_the_validation_only(finished, tmp_path):
    scans = [f"simulated/test1/{name}.nii.gz" for name in ("clinical", "repeat")]
    settings = {"evaluate.kernel_pair": scans, "cases.data_root": "results/smoke"}
    assert set(finished.plan(*overlay(tmp_path, settings))) == {
        "validate_simulation", "draw_validation", "write_report", "all",
    }  # fmt: skip


def test_the_metrics_are_validated_where_it_is_asked_for(finished, tmp_path):
    commands = commands_of(finished, *overlay(tmp_path, {"evaluate.validate_metrics": True}))
    assert set(commands) >= {"validate_metrics", "draw_metrics_validation", "write_report"}
    (command,) = commands["validate_metrics"]
    assert "--seeds 1 2 " in command and "--kernel lung " in f"{command} "
    assert not {"train", "superresolve", "collect_metrics"} & set(commands)


def test_protocols_that_are_not_asked_for_are_not_made(finished, tmp_path):
    """What is there already stays as it is; what depended on it is put together without it."""
    fewer = {"evaluate.further_protocols": ["downsampled"], "evaluate.validate_simulation": False}
    assert set(finished.plan(*overlay(tmp_path, fewer))) == {
        "collect_metrics", "summarise_metrics", "draw_metrics", "typeset_table", "write_report", "all",
    }  # fmt: skip
    other = {"experiment": "other", "methods.regression": None}
    jobs = set(finished.plan(*overlay(tmp_path, other | fewer)))
    assert "evaluate_downsampled" in jobs and "evaluate_known" in jobs
    unasked = {"learn_features", "evaluate_distribution", "evaluate_repeatability", "import_repeat"}
    assert not jobs & (unasked | {"validate_simulation", "draw_validation"})
    every = set(finished.plan(*overlay(tmp_path, other)))
    assert every - jobs == unasked | {"validate_simulation", "draw_validation"}


def test_other_parts_super_resolve_again_but_train_nothing(finished, tmp_path):
    """To Snakemake the volume is another job's, with other inputs, although it is the same."""
    jobs = finished.plan(*overlay(tmp_path, {"compute.parts": 2}))
    assert {"superresolve_part", "gather"} <= set(jobs)
    assert not {"train", "import_clinical", "learn_features", "draw_network"} & set(jobs)
