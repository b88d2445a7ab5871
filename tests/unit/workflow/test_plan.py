"""What an experiment is made of, without Snakemake: from its settings and its cases."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

from microsr.config import Experiment
from microsr.config.sheet import MODALITIES, Case, simulated_cases
from microsr.core.errors import UserError
from microsr.workflow.drawings import Drawings
from microsr.workflow.plan import (
    CALIBRATED,
    ENDINGS,
    TYPESET,
    VIEWED,
    Plan,
    Result,
    Trial,
    base,
    number_names,
    read_plan,
)

METHODS = {"proposed": {}, "bicubic": {"kind": "bicubic"}, "cyclegan": {"losses": {"upsample": 0}}}
EVERYTHING = {"further_protocols": ["repeatability", "downsampled", "distribution"], "validate_simulation": True}


def case(name: str, split: str, *modalities: str, airways: bool = False) -> Case:
    scans = {modality: {"path": f"{name}/{modality}.nii"} for modality in modalities}
    return Case(case=name, split=split, airways=f"{name}/airways.csv" if airways else None, **scans)


def plan(*cases: Case, **settings) -> Plan:
    """An experiment on those cases, else on two simulated lungs to train on and one to test on."""
    settings = {"experiment": "x", "methods": METHODS, "simulate": {"training_cases": 2}} | settings
    experiment = Experiment.model_validate(settings)
    rows = cases or simulated_cases(experiment.simulate, "results/x/simulated")
    return Plan(experiment, {row.case: row for row in rows})


FEW = (
    case("both", "train", "clinical", "micro"),
    case("ct", "train", "clinical"),
    case("uct", "train", "micro"),
    case("plain", "test", "clinical"),
    case("halves", "test", "clinical", "micro", "truth", "labels", "repeat"),
    case("known", "test", "clinical", "truth", "labels", airways=True),
)
"""Cases that lack what a case may lack."""
NATIVE = {"micro": {"sampling": "native"}}


def few(**settings) -> Plan:
    return plan(*FEW, **({"volumes": NATIVE} | settings))


# What cannot be made


@pytest.mark.parametrize(
    ("cases", "settings", "message"),
    [
        ([case("b", "test", "clinical")], {}, r"simulate: no case has split 'train'"),
        (
            [case("b", "test", "clinical")],
            {"cases": {"sheet": "my.tsv"}},
            r"my.tsv: no case has split 'train'; at least one is needed",
        ),
        ([case("a", "train", "clinical", "micro")], {}, r"no case to test on; .* set protocols to \[leave_one_out\]"),
        (
            [case("a", "train", "clinical"), case("b", "test", "clinical")],
            {},
            r"the training set 'pooled' \(cases: a\) has no micro volume; .*\(now pooled\)",
        ),
        (
            FEW,
            {"protocols": ["pooled", "per_case"], "volumes": NATIVE},
            r"'case-ct' \(cases: ct\) has no micro volume; .*\(now pooled, per_case\)",
        ),
        (
            [case("a", "train", "clinical", "micro")],
            {"protocols": ["leave_one_out"]},
            r"'without-a' \(cases: none\) has no clinical volume",
        ),
        (
            FEW,
            {"volumes": NATIVE | {"clinical": {"mask": "file"}}},
            r"case 'both' has no clinical_mask, and volumes\.clinical\.mask is file; fill the column, or",
        ),
        (
            [*FEW[:-1], FEW[-1].model_copy(update={"clinical_mask": "m.nii"})],
            {"volumes": NATIVE},
            r"case 'known' has a clinical_mask, but volumes\.clinical\.mask is lung; set it to file, or leave",
        ),
        (FEW, {}, r"matched_spacing_mm: must be given, as case 'uct' has uCT but no clinical CT"),
    ],
)
def test_cases_that_do_not_allow_what_is_asked_for_are_refused(cases, settings, message):
    with pytest.raises(UserError, match=message) as error:
        plan(*cases, **settings)
    assert "\n" not in str(error.value)


def specimens(other: str = "other", **settings) -> Plan:
    """A case that is tested on, whose specimen's uCT is its truth, and another one to train on, with its own uCT."""
    registered = {"micro_to_clinical": "t.tfm"}
    micro = {"micro": {"path": f"{other}/micro.nii"}}
    trained = Case.model_validate(case("a", "train", "clinical", "micro").model_dump() | micro)
    return plan(trained, case("b", "test", "clinical", "micro").model_copy(update=registered), **settings)


def test_a_registered_specimen_is_a_truth_and_stands_beside_the_methods_where_it_is_known():
    found = specimens(evaluate={"further_protocols": ["distribution"]})
    assert found.volumes("truth", ["a", "b"]) == ["<results>/volumes/b/truth.ome.zarr"]
    assert found.volumes("thick_truth", ["b"]) and found.registered_cases == ["b"]
    assert [(one.method, one.case) for one in found.references] == [("truth", "b")]
    tables = [table for table in found.metric_tables() if "/truth/" in table]
    assert tables == ["<results>/tables/metrics/truth/none/b.images.csv"]
    assert "metrics_truth" in found.metric_figures and found.volumes_viewed("comparison")["truth"] == "volumes/b/truth"


def test_the_reliability_of_draws_is_drawn_of_a_registered_specimen_too():
    methods = {"posterior": {"kind": "posterior"}, "mean_of_draws": {"kind": "mean"}}
    found = specimens(methods=methods)
    stem = "<results>/tables/metrics/mean_of_draws/pooled/b.uncertainty"
    assert f"{stem}.csv" in found.metric_tables()
    assert Drawings(found).by_kind["reliability"]["reliability"].files == {"curves": [f"{stem}.curves.csv"]}


def test_uct_is_scanned_with_as_many_slices_as_any_method_sees():
    assert plan().pair_slices == 1 and "--slices" not in plan().pairs_flags and plan().spacing_volumes == []
    methods = {
        "few": {"kind": "regression"},
        "many": {"kind": "posterior", "slices": 3},
        "bicubic": {"kind": "bicubic"},
    }
    methods |= {"many_mean": {"kind": "mean", "of": "many"}}
    made = few(volumes=NATIVE, protocols=["leave_one_out"], methods=methods, evaluate=EVERYTHING)
    assert [made.slices_of(name) for name in methods] == [1, 3, 1, 3] and made.pair_slices == 3
    assert "--slices 3" in made.pairs_flags and "--slice_spacing_mm" not in made.pairs_flags
    assert made.spacing_volumes == [f"<results>/volumes/{case}/clinical.ome.zarr" for case in ("both", "ct")]
    assert "--slices 1" in made.training_flags("few") and "--slices 3" in made.training_flags("many")
    tables = {path.split("/")[3] for path in made.metric_tables() if path.endswith(".downsampled.csv")}
    assert tables == {"few", "bicubic"}, "slices of a uCT are nearer than those of a scan"
    given = few(volumes=NATIVE, methods=methods, pairs={"slice_spacing_mm": [0.5, 0.7]})
    assert given.spacing_volumes == [] and "--slice_spacing_mm '[0.5, 0.7]'" in given.pairs_flags


def test_a_model_never_learns_from_the_specimen_that_it_is_tested_with():
    with pytest.raises(UserError, match=r"b/micro.nii is of case 'b', whose truth is its specimen, and of 'a', which"):
        specimens(other="b")
    left = [case(name, "train", "clinical", "micro").model_copy(update={"micro_to_clinical": "t"}) for name in "ab"]
    found = plan(*left, protocols=["leave_one_out"])
    assert found.tested_on("without-a") == ["a"] and "a" not in found.training_sets["without-a"]
    assert not [path for path in found.patches("micro", "without-a") if "/a/" in path]
    assert found.volumes("truth", ["a", "b"]) == [f"<results>/volumes/{name}/truth.ome.zarr" for name in "ab"]


def test_a_mask_in_a_file_is_an_input_of_the_import_and_one_on_a_server_a_word_alone():
    masks = {"a": "my masks/a.nii", "b": "https://a.org/b.zarr"}
    cases = [
        case(name, split, "clinical", "micro").model_copy(update={"clinical_mask": masks[name]})
        for name, split in (("a", "train"), ("b", "test"))
    ]
    found = plan(*cases, volumes={"clinical": {"mask": "file"}})
    assert found.mask_files("a", "clinical") == ["my masks/a.nii"] and found.mask_files("b", "clinical") == []
    assert found.mask_flags("a", "clinical") == "--mask_file 'my masks/a.nii'"
    assert found.mask_flags("b", "clinical") == "--mask_file https://a.org/b.zarr"
    assert found.mask_flags("a", "micro") == "" and found.mask_files("a", "micro") == []


@pytest.mark.parametrize("volumes", [NATIVE, {"micro": {"matched_spacing_mm": 0.08}}])
def test_a_case_without_clinical_ct_needs_a_pixel_size_or_none(volumes):
    assert not few(volumes=volumes).matches_clinical
    assert plan().matches_clinical


# Trainings


def test_pooled_trains_on_every_training_case_and_tests_on_the_held_out_one():
    made = plan()
    assert made.training_sets == {"pooled": ["train1", "train2"]}
    assert made.tested_pairs == [Trial("pooled", "test1")]
    assert made.trainings == [("proposed", "pooled"), ("cyclegan", "pooled")], "bicubic is not trained"
    assert made.models[:3] == [
        f"<results>/models/proposed/pooled/{file}" for file in ("generator.pt", "history.csv", "run.json")
    ]


def test_per_case_trains_a_model_a_case():
    made = plan(protocols=["per_case"])
    assert made.training_sets == {"case-train1": ["train1"], "case-train2": ["train2"]}
    assert made.tested_pairs == [Trial("case-train1", "test1"), Trial("case-train2", "test1")]


def test_leave_one_out_tests_on_the_case_that_a_model_has_not_seen():
    made = few(protocols=["leave_one_out"])
    assert made.training_sets == {"without-both": ["ct", "uct"], "without-ct": ["both", "uct"]}, "uct cannot be tested"
    assert made.tested_pairs == [Trial("without-both", "both"), Trial("without-ct", "ct")]


def test_validation_cases_are_tested_on_when_asked_for_and_never_beside_test_cases():
    cases = {"training_cases": 1, "validation_cases": 2, "test_cases": 2}
    tests, choosing = (plan(simulate=cases, evaluate={"split": split}) for split in ("test", "validation"))
    assert {trial.case for trial in tests.tested_pairs} == set(tests.superresolved_cases) == {"test1", "test2"}
    assert (
        {trial.case for trial in choosing.tested_pairs}
        == set(choosing.superresolved_cases)
        == {"validation1", "validation2"}
    )
    for made, looked_at, hidden in ((tests, "test", "validation"), (choosing, "validation", "test")):
        files = [
            *Drawings(made).files,
            *made.tables,
            *made.metric_tables(),
            *made.exports,
            *made.models,
            *made.view_words.split(),
        ]
        files += made.volumes("clinical", made.used_cases) + made.volumes("micro", made.used_cases)
        assert any(looked_at in file for file in files) and not [file for file in files if f"{hidden}1" in file], (
            made.split
        )
    assert tests.training_sets == choosing.training_sets == {"pooled": ["train1"]}
    assert "(a validation case; models trained" in choosing.comparison_words("comparison")
    assert "validation" not in tests.comparison_words("comparison")


def test_models_of_a_training_are_chosen_among_by_the_validation_cases():
    simulate = {"training_cases": 1, "validation_cases": 2}
    made = plan(train={"candidates": 3}, simulate=simulate)
    folder = "<results>/models/{method}/{training_set}"
    assert made.trained_models == [f"{folder}/generator.{n}.pt" for n in (1, 2, 3)]
    assert made.choosing_cases == ["validation1", "validation2"] and "validation1" in made.used_cases
    words = shlex.split(made.choosing_words())
    assert words[:3] == ["--case", "name=validation1", "clinical=results/x/volumes/validation1/clinical.ome.zarr"]
    assert words.count("--case") == 2 and "airways=results/x/simulated/validation2/airways.csv" in words
    assert "<results>/models/proposed/pooled/choice.csv" in made.models and "<results>/tables/choice.csv" in made.tables
    assert {trial.case for trial in made.tested_pairs} == {"test1"}
    plain = plan(simulate=simulate)
    assert plain.trained_models == [f"{folder}/generator.pt"] and plain.choosing_cases == []
    with pytest.raises(UserError, match=r"no case has split 'validation', to choose by among the 3 models"):
        plan(train={"candidates": 3})


def test_a_search_has_a_table_of_its_trials():
    search = {"trials": 2, "spaces": {"proposed": {"losses.cycle": [1, 9]}, "cyclegan": {}}}
    made = plan(search=search)
    assert list(made.trials) == ["proposed", "cyclegan"] and "<results>/tables/search.csv" in made.tables
    words = shlex.split(made.search_words)
    assert json.loads(words[1]) == made.trials and words[2:4] == ["--by", "truth.ms_ssim"]
    assert plan().trials == {} and "<results>/tables/search.csv" not in plan().tables


KNOWN = ("truth/none", "thick_truth/none", "noise_free/none")
SCANS = {"D45": {"kernel": "D45"}, "noisy": {"noise_hu": 60}}


def test_further_scans_of_a_test_lung_stand_apart_from_the_test_cases():
    simulate = {"training_cases": 2, "test_cases": 2, "further_scans": SCANS}
    plain = plan(simulate={"training_cases": 2, "test_cases": 2}, evaluate=EVERYTHING)
    made = plan(simulate=simulate, evaluate=EVERYTHING)
    assert made.conditions == {name: [f"test1-{name}", f"test2-{name}"] for name in SCANS} and plain.conditions == {}
    assert made.models == plain.models and Drawings(made).files == Drawings(plain).files, (
        "no model is trained with them, no figure is of them"
    )
    assert made.metric_tables() == plain.metric_tables() and made.known_results == plain.known_results
    assert made.metric_tables("D45") == [
        f"<results>/tables/metrics/{where}/test{n}-D45.images.csv"
        for where in (*KNOWN, "proposed/pooled", "bicubic/none", "cyclegan/pooled")
        for n in (1, 2)
    ], "of the two protocols that need no more than the scan"
    assert {"<results>/tables/conditions/D45/summary.csv", "<results>/tables/conditions/noisy/metrics.md"} <= set(
        made.tables
    )
    assert set(plain.tables) == {table for table in made.tables if "/conditions/" not in table}


def test_a_further_scan_is_of_the_same_lung_by_the_other_scanner():
    made = plan(simulate={"training_cases": 1, "further_scans": SCANS})
    assert made.scanned_lung("test1-D45") == "test1" and "test1-D45" not in made.known_by_simulation
    one, again = made.cases["test1"], made.cases["test1-D45"]
    assert (one.micro, one.truth, one.labels, one.airways) == (again.micro, again.truth, again.labels, again.airways)
    assert again.clinical.path == "results/x/simulated/test1-D45/clinical.nii.gz" and again.repeat is None
    assert "--kernel D45 " in made.scanner_flags("test1-D45") and "--noise_hu 30.0" in made.scanner_flags("test1-D45")
    assert "--kernel lung " in made.scanner_flags("test1-noisy") and "--noise_hu 60" in made.scanner_flags(
        "test1-noisy"
    )


def test_further_scans_are_for_the_models_of_all_training_cases():
    simulate = {"training_cases": 2, "further_scans": SCANS}
    made = plan(simulate=simulate, protocols=["pooled", "per_case", "leave_one_out"])
    assert made.tested_on("pooled") == ["test1", "test1-D45", "test1-noisy"]
    assert made.tested_on("case-train1") == ["test1"] and made.tested_on("without-train1") == ["train1"]
    assert "test1-D45" in plan(simulate=simulate, protocols=["per_case"]).tested_on("case-train1")


SPECIMENS = {"random": {"specimen": "random"}, "denser": {"micro_offset_hu": 60}}


def test_further_specimens_have_models_of_their_own_on_the_same_scans():
    simulate = {"training_cases": 2, "test_cases": 3, "further_scans": SCANS, "further_specimens": SPECIMENS}
    made = plan(simulate=simulate | {"further_cases": 2}, protocols=["pooled", "per_case"])
    assert made.training_cases == ["train1", "train2"] and "train1-random" not in made.used_cases
    assert made.training_sets["specimen-random"] == ["train1-random", "train2-random"]
    assert made.training_sets["pooled"] == made.training_cases
    assert made.cases["train2-denser"].clinical == made.cases["train2"].clinical
    assert made.cases["train2-denser"].micro.path == "results/x/simulated/train2-denser/micro.nii.gz"
    assert made.scanned_lung("train2-denser") == "train2"
    assert "--specimen matched --micro_offset_hu 60.0" in made.simulation_flags("train2-denser")
    assert "--specimen random --micro_offset_hu 0.0" in made.simulation_flags("train1-random")
    assert "--specimen matched --micro_offset_hu 0.0" in made.simulation_flags("train1")
    assert not any("specimen-" in name for name in made.comparisons)


def test_all_but_the_pooled_models_on_the_stated_scans_may_be_tested_on_fewer_lungs():
    simulate = {"training_cases": 2, "test_cases": 3, "further_scans": SCANS, "further_specimens": SPECIMENS}
    made = plan(simulate=simulate | {"further_cases": 2}, protocols=["pooled", "per_case", "leave_one_out"])
    assert made.tested_on("specimen-random") == made.tested_on("case-train1") == ["test1", "test2"]
    assert made.tested_on("without-train1") == ["train1"]
    assert made.conditions == {name: [f"test1-{name}", f"test2-{name}"] for name in SCANS}
    again = [case for cases in made.conditions.values() for case in cases]
    assert made.tested_on("pooled") == ["test1", "test2", "test3", *again]
    alone = plan(simulate=simulate | {"further_cases": 1}, protocols=["per_case"])
    assert alone.tested_on("case-train1") == ["test1", "test1-D45", "test1-noisy"]
    assert alone.tested_on("specimen-random") == ["test1"]
    assert plan(simulate=simulate).tested_on("specimen-random") == ["test1", "test2", "test3"]


def test_a_training_lung_that_is_left_out_and_tested_on_has_its_truth():
    simulate = {"training_cases": 2, "test_cases": 1, "further_specimens": SPECIMENS}
    settings = {"simulate": simulate, "protocols": ["pooled", "leave_one_out"]}
    rows = simulated_cases(plan(**settings).experiment.simulate, "results/x/simulated", training_tested=True)
    made = plan(*rows, **settings)
    assert made.known_by_simulation == ["train1", "train2", "test1", "labelled"]
    assert [made.simulated_as(case) for case in ("train1", "test1", "labelled")] == ["test", "test", "test"]
    assert {"train1", "test1"} <= set(made.known_cases) and "train1-random" not in made.known_cases
    assert Result("proposed", "without-train1", "train1") in made.known_results
    assert Result("truth", "none", "train1") in made.references


def test_a_scanner_may_be_another_one_than_is_stated():
    """The scans are made and judged by what it is; a training knows what is stated."""
    made = plan(simulate={"training_cases": 1, "scanner": {"noise_hu": 60}}, train={"start_steps": 5})
    for words in (made.simulation_flags("train1"), made.simulation_flags("labelled"), made.scanner_flags("test1")):
        assert "--noise_hu 60" in words and "--kernel lung" in words
    assert "--noise_hu 30.0" in made.training_flags("proposed")


def test_a_sheet_s_cases_are_scanned_as_stated_and_a_condition_is_no_test():
    conditioned = case("k", "test", "clinical").model_copy(update={"condition": "D45"})
    made = few(cases={"sheet": "my.tsv"}, simulate={"scanner": {"noise_hu": 60}, "further_scans": SCANS})
    assert "--noise_hu 30.0" in made.scanner_flags("plain")
    with pytest.raises(UserError, match="no case to test on"):
        plan(case("a", "train", "clinical", "micro"), conditioned)


def test_without_a_validation_case_none_can_be_tested_on():
    with pytest.raises(UserError, match=r"simulate: no case to test on; give one the split 'validation', or set"):
        plan(evaluate={"split": "validation"})


def test_every_simulated_case_but_a_training_case_has_a_truth():
    made = plan(simulate={"training_cases": 1, "validation_cases": 1, "test_cases": 1})
    assert made.known_by_simulation == ["validation1", "test1", "labelled"]
    assert made.known_cases == ["validation1", "test1"]


def test_a_repeated_training_has_the_same_cases_and_another_seed():
    made = plan(seed=7, train={"repeats": 3}, protocols=["pooled", "per_case"])
    for name in ("pooled", "case-train1", "case-train2"):
        again = [f"{name}.seed8", f"{name}.seed9"]
        assert [made.seed_of(training) for training in (name, *again)] == ["7", "8", "9"]
        assert {tuple(made.training_sets[training]) for training in again} == {tuple(made.training_sets[name])}
        assert {base(training) for training in again} == {name}
        assert {made.domain_table(training) for training in again} == {made.domain_table(name)}
        assert {made.scanner_table(training) for training in again} == {made.scanner_table(name)}
    assert len(made.training_sets) == 9
    assert made.seed_of("none") == "none"


def test_a_case_may_lack_a_modality():
    made = few()
    assert made.patches("clinical", "pooled") == [f"<results>/patches/{c}/clinical.npy" for c in ("both", "ct")]
    assert made.patches("micro", "pooled") == [f"<results>/patches/{c}/micro.npy" for c in ("both", "uct")]
    assert made.reference_micro("halves") == ["<results>/volumes/halves/micro.ome.zarr"], "its own"
    assert made.reference_micro("plain") == [f"<results>/volumes/{c}/micro.ome.zarr" for c in ("both", "uct")]


def test_only_a_method_that_learns_from_noise_is_told_of_the_scanner():
    quiet = {"start_steps": 0, "noise_gain": 1}
    made = plan(methods=METHODS | {"best_guess": {"kind": "regression"}}, train=quiet, scanner={"noise_hu": 12.5})
    told = [method for method in made.trained_methods if "--noise_hu 12.5" in made.training_flags(method)]
    assert told == ["best_guess"]
    assert "--noise_hu" not in made.network_flags("best_guess")
    assert "--noise_hu" in plan(train={"start_steps": 5}).training_flags("proposed"), "its generator starts from noise"


def test_a_method_trains_with_its_own_changes_and_no_number_of_repeats():
    made = plan(
        methods=METHODS | {"small": {"train": {"network": "compact"}}}, train={"network": "resnet", "repeats": 2}
    )
    assert "--network compact " in made.training_flags("small") and "--network resnet " in made.training_flags(
        "proposed"
    )
    assert "--repeats" not in made.training_flags("small")
    assert made.networks_differ and not plan().networks_differ


# Super-resolution and evaluation


def test_what_is_not_trained_is_made_once_a_case():
    made = plan(protocols=["pooled", "per_case"])
    assert [r for r in made.superresolutions if r.method == "bicubic"] == [Result("bicubic", "none", "test1")]
    assert len(made.superresolutions) == 1 + 2 * 3
    assert [method for method, *_ in made.superresolutions] == ["proposed"] * 3 + ["bicubic"] + ["cyclegan"] * 3


def test_what_is_known_of_a_tested_case_is_evaluated_beside_the_methods():
    made = plan()
    assert made.references == [Result(name, "none", "test1") for name in ("truth", "thick_truth", "noise_free")]
    assert made.evaluated_results == made.references + made.superresolutions
    assert few().references == [Result("truth", "none", "halves"), Result("truth", "none", "known")]
    tables = [table.removeprefix("<results>/tables/metrics/") for table in plan(evaluate=EVERYTHING).metric_tables()]
    of_known = [table for table in tables if table.startswith(("truth", "thick", "noise"))]
    assert of_known == [
        "truth/none/test1.images.csv", "truth/none/test1.distribution.csv", "truth/none/test1.repeatability.csv",
        "thick_truth/none/test1.images.csv", "thick_truth/none/test1.distribution.csv",
        "noise_free/none/test1.images.csv", "noise_free/none/test1.distribution.csv",
    ]  # fmt: skip


def test_a_mean_is_of_the_draws_of_another_method_s_models():
    sampler = {"posterior": {"kind": "posterior"}, "posterior_mean": {"kind": "mean"}, "bicubic": {"kind": "bicubic"}}
    made = plan(methods=sampler, evaluate=EVERYTHING, superresolve={"draws": 4})
    assert made.trained_methods == ["posterior"] and made.model_of("posterior_mean") == "posterior"
    assert made.model_of("bicubic") is made.model_of("truth") is None
    assert Result("posterior_mean", "pooled", "test1") in made.superresolutions
    assert made.list_compared("superresolved", Trial("pooled", "test1"))[1].endswith(
        "/posterior_mean/pooled/test1.ome.zarr"
    )
    own = [table for table in made.metric_tables() if table.endswith(".uncertainty.csv")]
    assert own == ["<results>/tables/metrics/posterior_mean/pooled/test1.uncertainty.csv"]
    assert "metrics_uncertainty" in made.metric_figures and "metrics_uncertainty" not in plan().metric_figures

    def draws(scan, method="posterior_mean"):
        return made.superresolve_flags(scan, method).partition(" --draw")[2]

    assert draws("test1") == "s 4 --keep 4", "all, as they have a truth"
    assert draws("test1.repeat") == "s 4 --draw 4", "random planes of its own"
    assert (draws("test1.downsampled"), draws("test1", "posterior")) == ("s 4", "")
    drawn = made.draw_volumes("posterior_mean", "pooled", "test1", most=2)
    assert drawn == [f"<results>/superresolved/posterior_mean/pooled/test1_draw{n}.ome.zarr" for n in (0, 1)]
    assert made.list_draws("posterior_mean", "pooled", "test1", "redrawn") == []
    pair = made.evaluation_files("repeatability", Result("posterior_mean", "pooled", "test1"))
    assert [pair[key][0].rpartition("/")[2] for key in ("sd", "repeated_sd")] == [
        "test1_sd.ome.zarr", "test1.repeat_sd.ome.zarr",
    ]  # fmt: skip
    assert not made.evaluation_files("repeatability", Result("posterior", "pooled", "test1"))["sd"]
    unknown = plan(*FEW[:4], volumes=NATIVE, methods=sampler)
    assert unknown.kept_draws == 3 and "uncertainty" not in unknown.protocols_of("plain")


def test_what_is_known_is_made_of_its_own_volume():
    made = plan(evaluate=EVERYTHING)
    assert made.known_volume("truth", "test1.repeat") == ["<results>/volumes/test1/truth.ome.zarr"]
    assert made.known_volume("thick_truth", "test1") == ["<results>/volumes/test1/thick_truth.ome.zarr"]
    assert made.known_volume("noise_free", "test1") == made.known_volume("bicubic", "test1") == []
    assert made.scan_volume("noise_free", "test1") == "<results>/volumes/test1/noise_free.ome.zarr"
    assert made.scan_volume("truth", "test1.repeat") == "<results>/volumes/test1/repeat.ome.zarr"
    assert made.interpolation("noise_free") == made.interpolation("bicubic") == "bicubic"


def test_a_scan_is_super_resolved_again_only_for_a_protocol_that_compares_with_it():
    assert list(plan().scans) == ["train1", "train2", "test1"]
    made = plan(evaluate=EVERYTHING)
    assert made.scans_of("test1") == {
        "test1": "clinical",
        "test1.repeat": "repeat",
        "test1.redrawn": "clinical",
        "test1.same_draw": "repeat",
        "test1.downsampled": "downsampled",
    }
    assert made.scans["test1.downsampled"] == ("test1", "downsampled")
    assert few(evaluate=EVERYTHING).scans_of("plain") == {"plain": "clinical"}


def test_a_case_has_the_tables_of_metrics_that_it_allows():
    assert plan().protocols_of("test1") == ["images"]
    made = few(evaluate=EVERYTHING)
    assert made.protocols_of("plain") == ["images", "distribution"]
    assert made.protocols_of("halves") == ["images", "distribution", "downsampled", "repeatability"]
    tables = [table for table in made.metric_tables() if "/proposed/pooled/halves." in table]
    assert tables == [
        f"<results>/tables/metrics/proposed/pooled/halves.{p}.csv" for p in made.protocols_of("halves")
    ]  # fmt: skip


def test_a_repeated_scan_has_random_planes_of_its_own_and_each_pair_changes_what_it_says():
    made = plan(evaluate=EVERYTHING)
    draws = {scan: "--draw 1" in made.superresolve_flags(scan, "proposed") for scan in made.scans_of("test1")}
    assert [scan for scan, other in draws.items() if other] == ["test1.repeat", "test1.redrawn"]
    result = ("proposed", "pooled", "test1")
    assert made.list_draws(*result, "redrawn") == ["<results>/superresolved/proposed/pooled/test1.redrawn.ome.zarr"]
    assert made.list_draws("bicubic", "none", "test1", "redrawn") == [], "draws nothing"


def test_the_scale_reaches_what_makes_data_and_what_super_resolves():
    made = plan(scale=4, patches={"clinical_size": 16, "micro_size": 64}, evaluate=EVERYTHING)
    words = [made.simulation_flags("test1"), made.pairs_flags, made.superresolve_flags("test1", "proposed")]
    words += [made.superresolve_flags("test1.downsampled", "proposed")]
    assert all("--scale 4" in one for one in words)


def test_of_a_down_sampled_uct_all_slices_are_super_resolved():
    made = plan(superresolve={"slices": [1], "formats": ["nifti"]}, evaluate=EVERYTHING)
    assert shlex.split(made.superresolve_flags("test1", "proposed"))[2:4] == ["--slices", "[1]"]
    assert shlex.split(made.superresolve_flags("test1.downsampled", "proposed"))[2:4] == ["--slices", "all"]
    assert "--formats" not in made.superresolve_flags("test1", "proposed") + made.superresolve_flags(
        "test1.downsampled", "proposed"
    )
    without = [
        made.superresolve_flags(scan, "proposed").partition("--slices ")[2].removesuffix(" --draw 1").split(" ", 1)[1:]
        for scan in made.scans
    ]
    assert without.count(without[0]) == len(without), "all else is the same"


def test_every_result_is_exported_in_every_format_asked_for():
    assert plan().exports == []
    made = plan(superresolve={"formats": ["nifti.gz", "dicom", "metaimage"]})
    of_one = [file for file in made.exports if "/bicubic/" in file]
    assert of_one == [f"<results>/superresolved/bicubic/none/test1{end}" for end in (".nii.gz", "_dicom", ".mha")]
    assert len(made.exports) == 3 * len(made.superresolutions)
    assert len(set(ENDINGS.values())) == len(ENDINGS), "no format overwrites another one"


def test_a_result_is_named_by_its_training_and_its_seed():
    made = plan(train={"repeats": 2}, seed=4)
    assert made.name_flags(Result("proposed", "pooled.seed5", "test1")) == (
        "--case test1 --method proposed --training_set pooled --seed 5"
    )
    assert made.name_flags(Result("bicubic", "none", "test1")).endswith("--training_set none --seed none")


def test_what_decides_which_metrics_are_made_is_no_setting_of_a_metric():
    assert plan(evaluate=EVERYTHING | {"feature_steps": 9}).evaluation_flags == plan().evaluation_flags
    assert "--data_range_hu 900" in plan(evaluate={"data_range_hu": 900}).evaluation_flags


def test_a_scan_is_told_what_the_sheet_says_of_it():
    facts = {"path": "a b.nii", "slices": "3:8", "series": "1.2 3"}
    store = {"path": "http://a/b.zarr", "level": 2, "region": "3:9,:"}
    made = plan(Case(case="a", split="train", clinical=facts, micro=store), case("b", "test", "clinical"))
    words = shlex.split(made.scan_flags("a", "clinical"))
    assert words == ["--input", "a b.nii", "--series", "1.2 3", "--slices", "3:8"]
    words = shlex.split(made.scan_flags("a", "micro"))
    assert words == ["--input", "http://a/b.zarr", "--level", "2", "--region", "3:9,:"]
    assert made.scan_files("a", "clinical") == ["a b.nii"] and made.scan_files("a", "micro") == []


def test_how_many_lungs_are_simulated_decides_none_of_them():
    one, two = (plan(simulate={"training_cases": n, "test_cases": n}).simulation_flags("test1") for n in (1, 2))
    assert one == two and "--clinical_size" in one and "--noise_hu" in one


# Figures and tables


def test_the_first_comparison_is_of_the_pooled_models_and_no_seed_has_one_of_its_own():
    made = plan(protocols=["per_case", "pooled"], train={"repeats": 3})
    assert made.comparisons == {
        "comparison": Trial("pooled", "test1"),
        "comparison_test1_case-train1": Trial("case-train1", "test1"),
        "comparison_test1_case-train2": Trial("case-train2", "test1"),
    }


def test_a_comparison_shows_each_method_in_its_order():
    made = plan()
    assert made.list_compared("superresolved", made.comparisons["comparison"]) == [
        f"<results>/superresolved/{result}/test1.ome.zarr"
        for result in ("proposed/pooled", "bicubic/none", "cyclegan/pooled")
    ]


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("pooled", "test1 (models trained on all training cases)"),
        ("per_case", "test1 (models trained on train1 only)"),
        ("leave_one_out", "train1 (models trained without train1)"),
    ],
)
def test_a_comparison_says_what_its_models_were_trained_on(protocol, said):
    assert shlex.split(plan(protocols=[protocol]).comparison_words("comparison")) == ["--title", said]


def test_a_comparison_of_interpolations_says_nothing_of_training_and_a_note_is_one_word():
    made = plan(methods={"bicubic": {"kind": "bicubic"}}, note="it's a test; nothing more")
    assert shlex.split(made.comparison_words("comparison")) == [
        "--title",
        "test1",
        "--note",
        "it's a test; nothing more",
    ]


def test_hallucinations_are_drawn_of_the_first_comparison_that_is_known():
    assert few().known_cases == ["known"], "halves lacks airways"
    assert few().hallucination == Trial("pooled", "known")
    assert {result.case for result in few().known_results} == {"known"} and len(few().known_results) == 4
    made = plan(*FEW[:5], volumes=NATIVE)
    assert made.hallucination is None
    assert not {"hallucination", "bronchioles"} & set(Drawings(made).names)
    assert {"hallucination", "bronchioles"} <= set(Drawings(few()).names)


def test_a_protocol_has_a_figure_where_a_case_has_its_metrics():
    assert list(plan().metric_figures) == ["metrics", "metrics_no_reference", "metrics_truth"]
    assert list(plan(*FEW[:4], volumes=NATIVE).metric_figures) == ["metrics", "metrics_no_reference"]
    every = few(evaluate=EVERYTHING).metric_figures
    protocols = ["distribution", "downsampled", "no_reference", "repeatability", "truth"]
    assert every == {"metrics": ""} | {f"metrics_{protocol}": f"--protocol {protocol}" for protocol in protocols}


def test_figures_of_trainings_are_drawn_where_something_is_trained():
    of_trainings = {
        "network",
        "network_cyclegan",
        "losses",
        "tiling",
        "domain",
        "scanner",
        "panels",
        "patches_train1_micro",
    }
    made, untrained = plan(), plan(methods={"bicubic": {"kind": "bicubic"}})
    assert of_trainings <= set(Drawings(made).names) and not of_trainings & set(Drawings(untrained).names)
    more = {f"<results>/tables/{name}.csv" for name in ("domain", "scanner", "tiling")}
    assert set(made.tables) - set(untrained.tables) == more
    assert (
        untrained.domains == untrained.scanners == untrained.networks == untrained.sampled_models == {}
        and untrained.models == []
    )


def test_patches_are_drawn_of_each_training_volume():
    drawn = [name for name in Drawings(few()).names if name.startswith("patches_")]
    assert drawn == ["patches_both_clinical", "patches_ct_clinical", "patches_both_micro", "patches_uct_micro"]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"evaluate": EVERYTHING}, "validation"),
        ({"methods": METHODS | {"small": {"train": {"network": "compact"}}}}, "efficiency"),
    ],
)
def test_a_figure_with_its_table_is_made_where_it_is_asked_for(settings, name):
    for made, is_made in ((plan(**settings), True), (plan(), False)):
        assert (name in Drawings(made).names, f"<results>/tables/{name}.csv" in made.tables) == (is_made, is_made)


def test_every_figure_is_for_screen_and_print_and_no_file_is_named_twice():
    made = few(
        protocols=["pooled"], train={"repeats": 3}, evaluate=EVERYTHING, superresolve={"formats": ["nifti", "dicom"]}
    )
    assert {f"<results>/figures/comparison.{ending}" for ending in ("png", "pdf")} <= set(Drawings(made).files)
    assert len(Drawings(made).files) == 2 * len(Drawings(made).names)
    files = [*Drawings(made).files, *made.tables, *made.models, *made.exports, *made.metric_tables()]
    assert len(set(files)) == len(files)
    assert all(file.startswith("<results>/") for file in files)
    assert {f"<results>/tables/{name}.{kind}" for name in TYPESET for kind in ("tex", "md")} <= set(made.tables)


def test_measured_noise_is_what_its_methods_learn_from():
    kinds = {"m": {"kind": "posterior", "noise": "measured"}, "s": {"kind": "regression"}}
    made = plan(methods=kinds, protocols=["per_case", "pooled"])
    assert made.training_files("m", "pooled", "scanner_table") == ["<results>/tables/scanner_pooled.csv"]
    assert made.training_files("s", "pooled", "scanner_table") == []
    assert made.measured_flags.startswith("--used stated ") and "--noise_hu 30" in made.measured_flags
    assert plan(methods={"m": kinds["m"]}).measured_flags.startswith("--used measured ")


def test_each_training_set_has_one_domain_check():
    made = plan(protocols=["per_case", "pooled"], train={"repeats": 2})
    assert made.scanners == {"scanner": "case-train1", "scanner_case-train2": "case-train2", "scanner_pooled": "pooled"}
    assert made.domains == {"domain": "case-train1", "domain_case-train2": "case-train2", "domain_pooled": "pooled"}
    assert made.domain_table("pooled.seed2") == "<results>/tables/domain_pooled.csv"


def test_the_first_of_several_figures_has_the_plain_name():
    assert number_names("a", ["x", "y", "x", "z"]) == {"a": "x", "a_y": "y", "a_z": "z"}
    assert number_names("a", []) == {}


# The report


def test_the_report_shows_so_many_comparisons_and_calibrations():
    many = [case(f"t{n}", "train", "clinical", "micro") for n in range(7)]
    made = plan(*many, case("b", "test", "clinical"), case("c", "test", "clinical"), protocols=["per_case"])
    assert len(made.comparisons) == 14
    assert made.viewed_comparisons == list(made.comparisons)[:VIEWED]
    assert made.calibrated_cases == [f"t{n}" for n in range(CALIBRATED)]


def test_a_comparison_is_looked_into_with_its_truth_if_there_is_one():
    words = shlex.split(plan().view_words)
    assert words[:3] == [
        "--view",
        "results/x/figures/comparison.run.json",
        "clinical=results/x/volumes/test1/clinical.ome.zarr",
    ]
    assert words[3:] == [
        "method/proposed=results/x/superresolved/proposed/pooled/test1.ome.zarr",
        "method/bicubic=results/x/superresolved/bicubic/none/test1.ome.zarr",
        "method/cyclegan=results/x/superresolved/cyclegan/pooled/test1.ome.zarr",
        "truth=results/x/volumes/test1/truth.ome.zarr",
    ]
    assert "truth" not in few().volumes_viewed("comparison"), "the first test case has none"


def test_sample_panels_are_of_the_models_of_the_first_comparison():
    assert plan(protocols=["per_case", "pooled"]).sampled_models == {
        "proposed": "proposed/pooled",
        "cyclegan": "cyclegan/pooled",
    }


def test_a_plan_does_not_change():
    with pytest.raises(AttributeError):
        plan().experiment = None


def test_columns_of_the_sheet_are_what_a_case_may_have():
    """So that a misspelt modality is an error, not a case without it."""
    assert all(plan().having(modality, ["test1"]) == ["test1"] for modality in (*MODALITIES, "airways"))
    with pytest.raises(AttributeError):
        plan().having("macro", ["test1"])


def test_a_method_is_given_the_generator_that_it_needs():
    made = plan(methods={**METHODS, "sampler": {"kind": "posterior"}, "average": {"kind": "mean", "of": "sampler"}})
    assert made.generator("proposed", "pooled") == ["<results>/models/proposed/pooled/generator.pt"]
    assert made.generator("average", "pooled") == ["<results>/models/sampler/pooled/generator.pt"]
    assert made.generator("bicubic", "none") == made.generator("truth", "none") == []


def test_a_uct_waits_for_its_clinical_ct_where_it_is_matched_to_it():
    assert plan().clinical_to_match("train1") == ["<results>/volumes/train1/clinical.ome.zarr"]
    assert few().clinical_to_match("both") == []


# From settings as they are given


def read(folder: Path, **settings) -> Plan:
    """The plan of settings that stand in a file of `folder`."""
    file = folder / "config.yaml"
    settings = {"experiment": "x", "methods": METHODS} | settings
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return read_plan(settings, [file])


def test_a_plan_is_read_of_simulated_cases(tmp_path):
    made = read(tmp_path, simulate={"training_cases": 1, "test_cases": 1})
    assert list(made.cases) == ["train1", "test1"]
    assert made.cases["test1"].clinical.path == "results/x/simulated/test1/clinical.nii.gz"


def test_a_plan_is_read_of_a_sheet(tmp_path):
    sheet = tmp_path / "cases.tsv"
    for name in ("a.nii", "b.nii", "c.nii"):
        (tmp_path / name).touch()
    sheet.write_text("case\tsplit\tclinical\tmicro\na\ttrain\ta.nii\tb.nii\nb\ttest\tc.nii\t\n", encoding="utf-8")
    made = read(tmp_path, cases={"sheet": str(sheet), "data_root": str(tmp_path)}, volumes=NATIVE)
    assert list(made.cases) == ["a", "b"] and made.sheet == str(sheet)


def test_a_search_is_planned_with_its_trials(tmp_path):
    spaces = {"proposed": {"losses.downsample": [1, 200]}, "cyclegan": {"losses.cycle": [1, 20]}}
    made = read(
        tmp_path,
        search={"trials": 3, "spaces": spaces},
        simulate={"validation_cases": 1},
        evaluate={"split": "validation"},
    )
    trials = made.trials["proposed"]
    assert len(trials) == 3 and set(trials) <= set(made.trained_methods)


def test_what_is_wrong_with_the_settings_is_said_with_their_file(tmp_path):
    with pytest.raises(UserError, match=r"config\.yaml: simulat: unknown key"):
        read(tmp_path, simulat={})


# Another organ


def test_another_organ_is_shown_and_judged_in_the_window_of_its_settings():
    bone = {"volumes": {"clinical": {"mask": "none"}, **NATIVE}, "window_hu": [-1000, 3000]}
    bone |= {"figures": {"display_window_hu": [-500, 2500]}}
    made = few(**bone)
    assert (made.display_flags, made.domain_flags) == ("--display -500 2500", "--window_hu -1000 3000")
    lung = few(window_hu=[-1000, 300], figures={"display_window_hu": [-900, 100]})
    assert (lung.display_flags, lung.domain_flags) == ("", ""), "a lung window, and the limit that was found on lungs"
