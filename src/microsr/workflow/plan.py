"""What an experiment is made of: which cases train a model, which it is tested on, which files show that, by which
commands.

The rules ask it. It follows from the settings and the cases alone, without Snakemake. In the names of files `<results>`
stands for the experiment's folder, which Snakemake fills in; words of a command are ready for the shell.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from microsr.config import (
    EXPORTED,
    OF_CASES,
    OF_PLAN,
    REFERENCES,
    CycleGANMethod,
    Experiment,
    flags,
    load,
    trials_of,
    with_trials,
)  # fmt: skip
from microsr.config.sheet import Case, read_sheet, simulated_cases, with_scans
from microsr.core.errors import UserError
from microsr.core.registry.protocols import PROTOCOLS
from microsr.core.urls import url

UNTRAINED = "none"
"""In place of the training set, and of the seed, where nothing is trained."""
LABELLED = "labelled"
"""The simulated lung whose tissue labels the features are learnt from, and which the validation measures."""
ENDINGS = {"nifti": ".nii", "nifti.gz": ".nii.gz", "nrrd": ".nrrd", "metaimage": ".mha"}
ENDINGS |= {kind: f".{kind}" for kind in EXPORTED if kind not in (*ENDINGS, "dicom")}
"""How the file of a super-resolved volume ends, by its format. DICOM is a folder, which ends in _dicom."""
TYPESET = {"volumes": "volumes", "metrics": "summary", "summary": "summary"}
"""The tables that are set for a paper, each with the table that it is made from."""
PATCH_FILES = {
    "clinical": ("clinical", "clinical.npy"),
    "micro": ("micro", "micro.npy"),
    "scans": ("micro", "micro_scans.npy"),
    "scan_table": ("micro", "micro_scans.csv"),
}
"""Modality and file, of each case, of what a training may learn from."""
SPREAD = "SD of draws (0 to 300)"
"""What the report calls the SD of draws, which has a window of its own."""
VIEWED = 6
"""At most so many comparisons can be looked into in the report; each makes it larger."""
SHOWN_DRAWS = 3
"""Draws that figures and the report show, and that are kept of a case that has no truth."""
CALIBRATED = 4
"""At most so many uCTs are in the figure of calibrations: a page of print."""


class Trial(NamedTuple):
    """A case that the models of a training set are tested on."""

    training_set: str
    case: str


class Result(NamedTuple):
    """What one method, after one training, makes of a case."""

    method: str
    training_set: str
    case: str


def base(training_set: str) -> str:
    """The training set without the seed of its training."""
    return training_set.partition(".")[0]


@dataclass(frozen=True)
class Plan:
    """An experiment, and all that is to be made for it.

    Raises
    ------
    UserError
        The cases do not allow what is asked for. The message names the sheet or the setting, and what mends it.
    """

    experiment: Experiment
    cases: Mapping[str, Case]
    """By name, in the order of the sheet."""

    def __post_init__(self) -> None:
        """Check that the cases allow what is asked for."""
        if not self.training_cases:
            raise UserError(f"{self.sheet}: no case has split 'train'; at least one is needed")
        if not any(self.cases[case].condition is None for case in self.superresolved_cases):
            raise UserError(
                f"{self.sheet}: no case to test on; give one the split '{self.split}', or set protocols to "
                "[leave_one_out], which tests on training cases that have a clinical CT"
            )
        if self.candidates > 1 and not self.choosing_cases and self.trained_methods:
            raise UserError(
                f"{self.sheet}: no case has split 'validation', to choose by among the {self.candidates} models of a "
                "training (train.candidates); add one, or set candidates to 1"
            )
        for name, cases in self.training_sets.items():
            for modality in ("clinical", "micro"):
                if not self.having(modality, cases):
                    raise UserError(
                        f"{self.sheet}: the training set '{name}' (cases: {', '.join(cases) or 'none'}) has no "
                        f"{modality} volume; fill the column '{modality}', or change protocols "
                        f"(now {', '.join(self.experiment.protocols)})"
                    )
        for modality in ("clinical", "micro"):
            self._check_masks(modality)
        self._check_specimens()
        for name in self.having("micro", self.cases) if self.matches_clinical else ():
            if self.cases[name].clinical is None:
                raise UserError(
                    f"volumes.micro.matched_spacing_mm: must be given, as case '{name}' has uCT but no clinical CT "
                    "whose pixel size it could be matched to"
                )

    def _check_specimens(self) -> None:
        """Refuse a model that has seen what is the truth of a case that it is tested on."""
        for training_set, case in self.tested_pairs:
            if case not in self.registered_cases:
                continue
            own = (self.cases[case].micro, self.cases[case].clinical)
            for other in self.training_sets[training_set]:
                seen = (self.cases[other].micro, self.cases[other].clinical)
                if shared := next((a for a, b in zip(own, seen, strict=True) if b and a.path == b.path), None):
                    raise UserError(
                        f"{self.sheet}: {shared.path} is of case '{case}', whose truth is its specimen, and of "
                        f"'{other}', which the model '{training_set}' learns from: it would be tested on what it has "
                        f"seen; give '{other}' another split"
                    )

    def _check_masks(self, modality: str) -> None:
        column, asked = f"{modality}_mask", getattr(self.experiment.volumes, modality).mask
        for name in self.having(modality, self.cases):
            given = getattr(self.cases[name], column) is not None
            if asked == "file" and not given:
                raise UserError(
                    f"{self.sheet}: case '{name}' has no {column}, and volumes.{modality}.mask is file; fill the "
                    "column, or choose another mask"
                )
            if given and asked != "file":
                raise UserError(
                    f"{self.sheet}: case '{name}' has a {column}, but volumes.{modality}.mask is {asked}; set it to "
                    "file, or leave the column empty"
                )

    # Cases and volumes

    @property
    def sheet(self) -> str:
        """Where the cases come from, to name in an error: the sheet, or the section of the settings that simulates
        them.
        """
        return self.experiment.cases.sheet or "simulate"

    @property
    def results(self) -> str:
        """The folder of the experiment's results, which `<results>` stands for."""
        return f"results/{self.experiment.experiment}"

    @cached_property
    def training_cases(self) -> list[str]:
        """Names of the cases to train on, each lung once."""
        return [name for name, case in self.cases.items() if case.split == "train" and case.condition is None]

    @cached_property
    def further_specimens(self) -> dict[str, list[str]]:
        """The training cases with a further specimen, by its name."""
        found: dict[str, list[str]] = {}
        for name, case in self.cases.items():
            if case.split == "train" and case.condition is not None:
                found.setdefault(case.condition, []).append(name)
        return found

    @property
    def split(self) -> str:
        """The split that models are tested on: "test", or "validation" while settings are chosen."""
        return self.experiment.evaluate.split

    @cached_property
    def held_out(self) -> list[str]:
        """Names of the cases that models are tested on: those of one split, never of both."""
        return [name for name, case in self.cases.items() if case.split == self.split]

    @cached_property
    def used_cases(self) -> list[str]:
        """Names of the cases that anything is made of: the training cases and those that are tested on."""
        used = {*self.training_cases, *self.superresolved_cases, *self.choosing_cases}
        return [name for name in self.cases if name in used]

    @cached_property
    def known_by_simulation(self) -> list[str]:
        """Names of the simulated cases that have a truth: all but training cases that nothing is tested on, and the
        labelled lung.
        """
        known = (name for name, case in self.cases.items() if case.truth is not None and case.condition is None)
        return [*known, LABELLED]

    def simulated_as(self, case: str) -> str:
        """The split that a lung with a truth is simulated for: a training case that models are tested on is a test
        case, too.
        """
        return self.cases[case].split if case in self.cases and self.cases[case].split != "train" else "test"

    @cached_property
    def conditions(self) -> dict[str, list[str]]:
        """The test cases of each condition, by its name; they stand in tables of their own."""
        found: dict[str, list[str]] = {}
        for name in self.held_out:
            if (condition := self.cases[name].condition) is not None:
                found.setdefault(condition, []).append(name)
        return found

    def scanned_lung(self, case: str) -> str:
        """The simulated case whose lung a further scan, or a further specimen, is of."""
        return case.removesuffix(f"-{self.cases[case].condition}")

    def having(self, modality: str, cases: Iterable[str]) -> list[str]:
        """Those of `cases` that were scanned with a modality, or of which it is known: a column of the sheet, as
        "micro".
        """
        registered = self.registered_cases if modality in ("truth", "thick_truth") else ()
        return [name for name in cases if getattr(self.cases[name], modality) is not None or name in registered]

    def volumes(self, modality: str, cases: Iterable[str]) -> list[str]:
        """The imported volumes of those of `cases` that were scanned with a modality."""
        return [f"<results>/volumes/{case}/{modality}.ome.zarr" for case in self.having(modality, cases)]

    @cached_property
    def registered_cases(self) -> list[str]:
        """Names of the cases whose truth is their specimen's own uCT, brought into their CT."""
        return [name for name, case in self.cases.items() if case.micro_to_clinical is not None]

    @cached_property
    def scanned_cases(self) -> list[str]:
        """Names of the cases whose clinical CT is made by scanning their uCT."""
        made = f"{self.results}/scanned/"
        return [name for name in self.having("clinical", self.cases) if self.cases[name].clinical.path.startswith(made)]

    @property
    def matches_clinical(self) -> bool:
        """Whether a uCT is resampled to the pixel size of the same case's clinical CT / scale."""
        micro = self.experiment.volumes.micro
        return micro.sampling == "matched" and micro.matched_spacing_mm is None

    def clinical_to_match(self, case: str) -> list[str]:
        """The clinical CT whose pixel size the uCT of a case is resampled to, if any."""
        return [f"<results>/volumes/{case}/clinical.ome.zarr"] if self.matches_clinical else []

    def reference_micro(self, case: str) -> list[str]:
        """The uCT whose texture is the aim of super-resolution: the case's own, else that of all training cases."""
        return self.volumes("micro", [case]) or self.volumes("micro", self.training_cases)

    @cached_property
    def known_cases(self) -> list[str]:
        """The cases of which everything is known: the truth, its tissues and its airways."""
        return [name for name, case in self.cases.items() if case.truth and case.labels and case.airways]

    def scan_files(self, case: str, modality: str) -> list[str]:
        """The file or folder that a scan is in; none, if it is read from a server."""
        path = getattr(self.cases[case], modality).path
        return [] if url(path) else [path]

    def scan_flags(self, case: str, modality: str) -> str:
        """Words that say where a scan is, which part of it is meant, and its spacing, where the sheet says so."""
        facts = getattr(self.cases[case], modality).model_dump(exclude_none=True)
        facts = {"input": facts.pop("path"), **facts}
        return " ".join(f"--{key} {shlex.quote(str(value))}" for key, value in facts.items())

    def micro_scan_words(self, case: str) -> str:
        """Words that say how the uCT of a case is scanned: which part of which file, its calibration, the scanner."""
        experiment = self.experiment
        _, _, micro = self.scan_flags(case, "micro").partition("--input ")
        settings = flags(experiment.volumes.micro, without=["sampling", "matched_spacing_mm", "area_average"])
        scale = f"--scale {experiment.scale}"
        words = [micro, self.mask_flags(case, "micro"), scale, settings, flags(experiment.scanner)]
        return " ".join(filter(None, [*words, flags(experiment.scan, without=["micro"])]))

    @property
    def display_flags(self) -> str:
        """Words that say in which grey scale viewers open a volume: the figures', of another organ than the lung."""
        black, white = self.experiment.figures.display_window_hu
        return "" if self.experiment.volumes.clinical.is_lung else f"--display {black:g} {white:g}"

    @property
    def domain_flags(self) -> str:
        """Words that say how wide a window the domain check judges by, where it is not the lung's."""
        low, high = self.experiment.window_hu
        return "" if self.experiment.volumes.clinical.is_lung else f"--window_hu {low:g} {high:g}"

    def mask_files(self, case: str, modality: str) -> list[str]:
        """The file or folder of a scan's mask; none, if there is none or it is read from a server."""
        path = getattr(self.cases[case], f"{modality}_mask")
        return [] if path is None or url(path) else [path]

    def mask_flags(self, case: str, modality: str) -> str:
        """Words that say where a scan's mask is, where it has one."""
        path = getattr(self.cases[case], f"{modality}_mask")
        return "" if path is None else f"--mask_file {shlex.quote(path)}"

    def simulation_flags(self, case: str) -> str:
        """Words that say how a lung is simulated and scanned, and how fine its truth is."""
        experiment = self.experiment
        further = any(case in cases for cases in self.further_specimens.values())
        changes = experiment.simulate.further_specimens[self.cases[case].condition] if further else {}
        settings = flags(experiment.simulate.model_copy(update=changes), without=OF_CASES)
        return f"--scale {experiment.scale} {settings} {self.scanner_flags(case)}"

    def scanner_flags(self, case: str) -> str:
        """Words that give the scanner that a case was scanned with, as far as it is known."""
        return flags(self.experiment.scanner_of(self.cases[case].condition if case in self.cases else None))

    # Trainings

    @cached_property
    def trained_methods(self) -> list[str]:
        """Names of the methods that are trained."""
        return list(self.experiment.trained_methods)

    @property
    def means(self) -> dict[str, str]:
        """The methods that are means of draws, each with the trained method whose models draw."""
        return self.experiment.means

    def model_of(self, method: str) -> str | None:
        """The trained method whose models a method super-resolves with; None: it needs no model."""
        source = self.means.get(method, method)
        return source if source in self.trained_methods else None

    @cached_property
    def training_sets(self) -> dict[str, list[str]]:
        """The cases behind each model, by the name of the training set; one trained again with another seed ends in
        .seed<n>.
        """
        sets: dict[str, list[str]] = {}
        for protocol in self.experiment.protocols:
            if protocol == "pooled":
                sets["pooled"] = self.training_cases
            elif protocol == "per_case":
                sets |= {f"case-{name}": [name] for name in self.training_cases}
            else:
                for name in self.having("clinical", self.training_cases):
                    sets[f"without-{name}"] = [other for other in self.training_cases if other != name]
        sets |= {f"specimen-{name}": cases for name, cases in self.further_specimens.items()}
        first = self.experiment.seed
        again = range(first + 1, first + self.experiment.train.repeats)
        return sets | {f"{name}.seed{seed}": cases for seed in again for name, cases in sets.items()}

    def seed_of(self, training_set: str) -> str:
        """The seed of a training, "none" where nothing is trained."""
        if training_set == UNTRAINED:
            return UNTRAINED
        return training_set.partition(".seed")[2] or str(self.experiment.seed)

    @cached_property
    def trainings(self) -> list[tuple[str, str]]:
        """Method and training set of each training."""
        return [(method, training_set) for method in self.trained_methods for training_set in self.training_sets]

    @property
    def models(self) -> list[str]:
        """The files of the trained models."""
        kinds = ("generator.pt", "history.csv", "run.json", *(["choice.csv"] if self.candidates > 1 else []))
        return [f"<results>/models/{m}/{s}/{kind}" for m, s in self.trainings for kind in kinds]

    @property
    def candidates(self) -> int:
        """How many models are kept of each training."""
        return self.experiment.train.candidates

    @property
    def trained_models(self) -> list[str]:
        """The files that a training writes its models into, with Snakemake's wildcards."""
        folder = "<results>/models/{method}/{training_set}"
        numbers = [f".{number}" for number in range(1, self.candidates + 1)] if self.candidates > 1 else [""]
        return [f"{folder}/generator{number}.pt" for number in numbers]

    @cached_property
    def choosing_cases(self) -> list[str]:
        """The validation cases that choose among the models of a training; none where there is nothing to choose."""
        chosen = [name for name, case in self.cases.items() if case.split == "validation"]
        return chosen if self.candidates > 1 and self.trained_methods else []

    def choosing_volumes(self, case: str) -> dict[str, list[str]]:
        """What a choice needs of a validation case, by what the command calls it."""
        found = {"clinical": self.volumes("clinical", [case]), "micro": self.reference_micro(case)}
        known = {kind: self.volumes(kind, [case]) for kind in ("truth", "labels")} if case in self.known_cases else {}
        return found | known | ({"airways": [self.cases[case].airways]} if known else {})

    def choosing_words(self) -> str:
        """The validation cases, as words of the command that chooses."""
        words = []
        for case in self.choosing_cases:
            words += ["--case", f"name={case}"]
            for kind, paths in self.choosing_volumes(case).items():
                words += [f"{kind}={path.replace('<results>', self.results)}" for path in paths]
        return shlex.join([*words, "--by", *self.experiment.evaluate.choose_by])

    def patches(self, modality: str, training_set: str) -> list[str]:
        """The files with the training patches of a training set."""
        return [
            f"<results>/patches/{case}/{modality}.npy"
            for case in self.having(modality, self.training_sets[training_set])
        ]

    def training_files(self, method: str, training_set: str, held: str) -> list[str]:
        """The files that a method learns from, by what they hold, one of PATCH_FILES; none where it needs none such."""
        if held not in self.experiment.trained_methods[method].files:
            return []
        if held == "scanner_table":
            return [self.scanner_table(training_set)]
        modality, file = PATCH_FILES[held]
        return [f"<results>/patches/{case}/{file}" for case in self.having(modality, self.training_sets[training_set])]

    @property
    def pairs_flags(self) -> str:
        """Words that say by which scanners uCT patches are scanned; the noise is left to the trainings."""
        experiment = self.experiment
        slices = f" --slices {self.pair_slices}" if self.pair_slices > 1 else ""
        settings = f"{flags(experiment.pairs)} {flags(experiment.scanner, without=['noise_hu'])}"
        return f"--scale {experiment.scale}{slices} {settings}"

    def slices_of(self, method: str) -> int:
        """How many clinical slices the models of a method see, the one to super-resolve in the middle."""
        return getattr(self.experiment.methods[self.model_of(method) or method], "slices", 1)

    @cached_property
    def pair_slices(self) -> int:
        """How many slices the scans of uCT patches have: as many as any method sees."""
        return max(map(self.slices_of, self.trained_methods), default=1)

    @property
    def spacing_volumes(self) -> list[str]:
        """The clinical CTs whose distance of slices the scans of uCT patches have; none where there is nothing to ask
        them.
        """
        asked = self.pair_slices > 1 and self.experiment.pairs.slice_spacing_mm is None
        return self.volumes("clinical", self.training_cases) if asked else []

    @cached_property
    def domains(self) -> dict[str, str]:
        """The training set of each domain check, by the name of its table and figure."""
        return number_names("domain", map(base, self.training_sets)) if self.trained_methods else {}

    def domain_table(self, training_set: str) -> str:
        """The domain check of a training set, however often it is trained on."""
        return next(f"<results>/tables/{name}.csv" for name, s in self.domains.items() if s == base(training_set))

    @cached_property
    def scanners(self) -> dict[str, str]:
        """The training set of each measurement of scanners, by the name of its table and figure."""
        return number_names("scanner", map(base, self.training_sets)) if self.trained_methods else {}

    def scanner_table(self, training_set: str) -> str:
        """What was measured on a training set's clinical CTs, however often it is trained on."""
        return next(f"<results>/tables/{name}.csv" for name, s in self.scanners.items() if s == base(training_set))

    @property
    def measured_flags(self) -> str:
        """Words that say what is stated of the scanner, and whether all that learns from noise learns from measured
        noise.
        """
        learning = [method for method in self.experiment.trained_methods.values() if method.uses_noise]
        used = learning and all("scanner_table" in method.files for method in learning)
        return f"--used {'measured' if used else 'stated'} {flags(self.experiment.scanner)}"

    def network_flags(self, method: str) -> str:
        """Words that give a method and its training, as Fig. 1 shows them."""
        experiment = self.experiment
        return f"{flags(experiment.methods[method])} {flags(experiment.training_of(method), without=['repeats'])}"

    def training_flags(self, method: str) -> str:
        """Words that give all that decides a training besides its patches; the scanner, where a method learns from
        noise.
        """
        experiment = self.experiment
        needs_scanner = experiment.trained_methods[method].needs_scanner(experiment.training_of(method))
        return self.network_flags(method) + (f" {flags(experiment.scanner)}" if needs_scanner else "")

    @property
    def networks_differ(self) -> bool:
        """Whether the trained methods have networks of several families: then there is quality to choose against
        cost.
        """
        return len({self.experiment.training_of(method).network for method in self.trained_methods}) > 1

    # Super-resolution and evaluation

    def tested_on(self, training_set: str) -> list[str]:
        """The cases that a model is tested on: the case that was left out, else the held-out cases."""
        left_out = base(training_set).removeprefix("without-")
        if left_out != base(training_set):
            return [left_out]
        if base(training_set) == "pooled":
            return self.held_out
        # Conditions are many: they are for the models of all training cases, or the only ones that there are.
        further = base(training_set).startswith("specimen-")
        every = not ("pooled" in self.experiment.protocols or further)
        plain = [name for name in self.held_out if self.cases[name].condition is None]
        if self.experiment.cases.sheet is None and self.split == "test":
            plain = plain[: self.experiment.simulate.further_cases]
        return [name for name in self.held_out if name in plain or (every and self.cases[name].condition is not None)]

    @cached_property
    def tested_pairs(self) -> list[Trial]:
        """Each training set with each case that its models are tested on."""
        return [
            Trial(training_set, case) for training_set in self.training_sets for case in self.tested_on(training_set)
        ]

    @cached_property
    def superresolutions(self) -> list[Result]:
        """What is made and evaluated: of a method that is not trained, once a case."""
        untrained = [Trial(UNTRAINED, case) for case in dict.fromkeys(case for _, case in self.tested_pairs)]
        tested = {
            method: self.tested_pairs if self.model_of(method) else untrained for method in self.experiment.methods
        }
        return [Result(method, *pair) for method, pairs in tested.items() for pair in pairs]

    @property
    def superresolved_cases(self) -> list[str]:
        """The cases that methods are tested on."""
        return list(dict.fromkeys(case for _, _, case in self.superresolutions))

    @cached_property
    def references(self) -> list[Result]:
        """What is known of the tested cases, in a method's place: the scores that a method could have at best."""
        cases = self.superresolved_cases
        found = [Result(name, UNTRAINED, case) for name in REFERENCES for case in self.having(name, cases)]
        return [one for one in found if one.method == "truth" or one.case not in self.registered_cases]

    @property
    def evaluated_results(self) -> list[Result]:
        """All that metrics are measured of."""
        return self.references + self.superresolutions

    @cached_property
    def known_results(self) -> list[Result]:
        """The evaluated results of cases of which everything is known, in no condition of their own."""
        known = [name for name in self.known_cases if self.cases[name].condition is None]
        return [result for result in self.evaluated_results if result.case in known]

    def scan_volume(self, method: str, scan: str) -> str:
        """The imported volume that a method is given for a scan."""
        case, volume = self.scans[scan]
        return f"<results>/volumes/{case}/{'noise_free' if method == 'noise_free' else volume}.ome.zarr"

    def generator(self, method: str, training_set: str) -> list[str]:
        """The trained generator that a method super-resolves with; none, if it needs none."""
        model = self.model_of(method)
        return [f"<results>/models/{model}/{training_set}/generator.pt"] if model else []

    def known_volume(self, method: str, scan: str) -> list[str]:
        """The imported volume whose slices stand in a method's place; none of one that super-resolves."""
        return self.volumes(method, [self.scans[scan][0]]) if method in ("truth", "thick_truth") else []

    def interpolation(self, method: str) -> str:
        """The interpolation by which an untrained method super-resolves."""
        return "bicubic" if method == "noise_free" else self.experiment.methods[method].kind

    def scans_of(self, case: str) -> dict[str, str]:
        """The volumes of a case that may be super-resolved, by the name of the result.

        They are the clinical CT, and where a further protocol compares with them, its repetition and the down-sampled
        uCT.
        """
        further = self._further_protocols(case)
        named = {name: volume for protocol in further for name, volume in PROTOCOLS[protocol].scans.items()}
        return {case: "clinical"} | {f"{case}.{name}": volume for name, volume in named.items()}

    @cached_property
    def scans(self) -> dict[str, tuple[str, str]]:
        """Case and volume of each scan that may be super-resolved, by the name of the result."""
        return {name: (case, volume) for case in self.cases for name, volume in self.scans_of(case).items()}

    def superresolve_flags(self, scan: str, method: str) -> str:
        """Words that give the scale, the slices of a scan to super-resolve (of a down-sampled uCT, which has a few,
        all), the precision, and the draws: a repeated scan has random planes of its own.
        """
        settings, apart = self.experiment.superresolve, scan.endswith((".repeat", ".redrawn"))
        scale, drawn = f"--scale {self.experiment.scale}", ""
        if method in self.means:
            drawn = f" --draws {settings.draws}" + (f" --keep {self.kept_draws}" if scan in self.cases else "")
        if apart:
            drawn += f" --draw {settings.draws if method in self.means else 1}"
        if self.scans[scan][1] == "downsampled":
            return f"{scale} --slices all {flags(settings, without=['slices', 'formats', 'draws'])}{drawn}"
        return f"{scale} {flags(settings, without=['formats', 'draws'])}{drawn}"

    @property
    def kept_draws(self) -> int:
        """How many draws are kept of each case: where there is a truth to compare them with, all."""
        known = self.having("truth", self.superresolved_cases)
        return self.experiment.superresolve.draws if known else min(SHOWN_DRAWS, self.experiment.superresolve.draws)

    @property
    def kept_with_mean(self) -> list[str]:
        """The draws that are kept of a case, as in the names of the files; of a repeated scan none is."""
        return [f"draw{number}" for number in range(self.kept_draws)]

    def draw_volumes(self, method: str, training_set: str, case: str, most: int | None = None) -> list[str]:
        """The draws of a case that a mean is of, all that are kept, or at most so many."""
        stem = f"<results>/superresolved/{method}/{training_set}/{case}"
        return [f"{stem}_{draw}.ome.zarr" for draw in self.kept_with_mean[:most]]

    def list_draws(self, method: str, training_set: str, case: str, name: str) -> list[str]:
        """A scan of a case with another draw, for the protocol `repeatability`; none of what draws nothing.

        name: "redrawn", the first scan with the second one's draw, or "same_draw", the second with the first one's.
        """
        drawn = method in self.trained_methods
        return [f"<results>/superresolved/{method}/{training_set}/{case}.{name}.ome.zarr"] if drawn else []

    @property
    def exports(self) -> list[str]:
        """The super-resolved volumes in other formats than OME-Zarr: files, and folders of DICOM slices."""
        return [
            f"<results>/superresolved/{method}/{training_set}/{case}{ENDINGS.get(kind, '_dicom')}"
            for kind in self.experiment.superresolve.formats
            for method, training_set, case in self.superresolutions
        ]

    def protocols_of(self, case: str) -> list[str]:
        """The tables of metrics that a case allows; `images` holds the protocols no_reference and truth."""
        return ["images", *self._further_protocols(case)]

    def _further_protocols(self, case: str) -> list[str]:
        """The further protocols that a case allows: those asked for, of a condition none, and those of the kinds of
        methods that there are.
        """
        asked = self.experiment.evaluate.further_protocols if self.cases[case].condition is None else []
        kinds = {method.kind for method in self.experiment.methods.values()}
        return [
            protocol
            for protocol, entry in PROTOCOLS.items()
            if (protocol in asked or entry.kind in kinds)
            and all(self.having(column, [case]) for column in entry.columns)
        ]

    def _protocols_of_result(self, result: Result) -> list[str]:
        """As `protocols_of`, but those of another kind of method; of what is known in a method's place, those that have
        a use for it.
        """
        protocols = self.protocols_of(result.case)
        if result.method not in REFERENCES:
            kinds = ("", self.experiment.methods[result.method].kind)
            if self.slices_of(result.method) > 1:  # slices of a down-sampled uCT are not as far apart as a scan's
                protocols = [name for name in protocols if name != "downsampled"]
            return [name for name in protocols if name == "images" or PROTOCOLS[name].kind in kinds]
        if result.case in self.registered_cases:
            return ["images"]  # the others look at all of the mask, of which it is known in a part only
        return [name for name in protocols if name == "images" or result.method in PROTOCOLS[name].references]

    def evaluation_files(self, protocol: str, result: Result) -> dict[str, list[str]]:
        """The files that a further protocol compares, by the flag of its command."""
        entry, (method, training_set, case) = PROTOCOLS[protocol], result
        folder = f"<results>/superresolved/{method}/{training_set}"
        every = {
            "superresolved": [f"{folder}/{case}{entry.measures and f'.{entry.measures}'}.ome.zarr"],
            "repeated": [f"{folder}/{case}.repeat.ome.zarr"],
            "redrawn": self.list_draws(method, training_set, case, "redrawn"),
            "same_draw": self.list_draws(method, training_set, case, "same_draw"),
            "draws": self.draw_volumes(method, training_set, case),
            "sd": [f"{folder}/{case}_sd.ome.zarr"] if method in self.means else [],
            "repeated_sd": [f"{folder}/{case}.repeat_sd.ome.zarr"] if method in self.means else [],
            "clinical": self.volumes("clinical", [case]),
            "repeated_clinical": self.volumes("repeat", [case]),
            "micro": self.reference_micro(case),
            "truth": self.volumes("truth", [case]),
            "thick_truth": self.volumes("thick_truth", [case]),
            "labels": self.volumes("labels", [case]),
            "features": ["<results>/features/features.pt"],
        }
        return {name: every[name] for name in entry.inputs}

    def metric_tables(self, condition: str | None = None) -> list[str]:
        """The tables of metrics of the cases of a condition, or of those of none: one a result and protocol."""
        return [
            f"<results>/tables/metrics/{result.method}/{result.training_set}/{result.case}.{protocol}.csv"
            for result in self.evaluated_results
            for protocol in self._protocols_of_result(result)
            if self.cases[result.case].condition == condition
        ]

    @property
    def trials(self) -> dict[str, dict[str, dict[str, float]]]:
        """What each trial of a search changes, {method: {name of the trial: {key: value}}}; none without a search."""
        return trials_of(self.experiment)

    @property
    def search_words(self) -> str:
        """The trials of a search, and what ranks them, as words of its command."""
        return shlex.join(["--trials", json.dumps(self.trials), "--by", *self.experiment.evaluate.choose_by])

    @property
    def evaluation_flags(self) -> str:
        """Words that say how metrics are measured."""
        return flags(self.experiment.evaluate, without=[*OF_PLAN, "feature_steps"])

    def name_flags(self, result: Result) -> str:
        """Words that name a result in the tables."""
        return f"--case {result.case} {self.model_words(result.method, result.training_set)}"

    def model_words(self, method: str, training_set: str) -> str:
        """Words that name a model in the tables."""
        return f"--method {method} --training_set {base(training_set)} --seed {self.seed_of(training_set)}"

    # Figures and tables

    @cached_property
    def comparisons(self) -> dict[str, Trial]:
        """What each comparison figure shows, by its name. The first is called `comparison`; it is of the pooled models,
        if any. Models of further specimens are in tables alone.
        """
        once = [
            tested
            for tested in self.tested_pairs
            if tested.training_set == base(tested.training_set)
            and self.cases[tested.case].condition is None
            and not tested.training_set.startswith("specimen-")
        ]
        first, *others = sorted(once, key=lambda tested: tested.training_set != "pooled")
        return {"comparison": first} | {f"comparison_{case}_{s}": Trial(s, case) for s, case in others}

    def list_compared(self, kind: str, tested: Trial) -> list[str]:
        """What each method made of a tested case, in the order of the methods; kind: "superresolved" or
        "hallucinations".
        """
        return [
            f"<results>/{kind}/{method}/{self._folder_of(method, tested)}.ome.zarr"
            for method in self.experiment.methods
        ]

    def _folder_of(self, method: str, tested: Trial) -> str:
        """Training set and case of a method's results in a comparison, as in the names of files."""
        return f"{tested.training_set if self.model_of(method) else UNTRAINED}/{tested.case}"

    def comparison_words(self, name: str) -> str:
        """Title and note of a comparison, as words of its command."""
        training_set, case = self.comparisons[name]
        protocol, _, left = training_set.partition("-")
        trained = {"pooled": "on all training cases", "case": f"on {left} only", "without": f"without {left}"}[protocol]
        facts = ["a validation case"] if self.cases[case].split == "validation" else []
        facts += [f"models trained {trained}"] if self.trained_methods else []
        words = ["--title", f"{case} ({'; '.join(facts)})" if facts else case]
        words += ["--note", self.experiment.note] if self.experiment.note else []
        return shlex.join(words)

    @property
    def hallucination(self) -> Trial | None:
        """What the figure of hallucinations shows: the first comparison of a case that is known; None if there is
        none.
        """
        return next((tested for tested in self.comparisons.values() if tested.case in self.known_cases), None)

    @cached_property
    def networks(self) -> dict[str, str]:
        """The method of each figure of networks, by the figure's name."""
        drawn = [name for name, one in self.experiment.trained_methods.items() if isinstance(one, CycleGANMethod)]
        return number_names("network", drawn)

    @cached_property
    def metric_figures(self) -> dict[str, str]:
        """The word that each figure of metrics has beside its table, by name: none for what matters most, else its
        protocol.
        """
        cases = self.superresolved_cases
        protocols = {"no_reference"} | {p for case in cases for p in self.protocols_of(case) if p != "images"}
        protocols |= {"truth"} if self.having("truth", cases) else set()
        return {"metrics": ""} | {f"metrics_{protocol}": f"--protocol {protocol}" for protocol in sorted(protocols)}

    @property
    def sampled_models(self) -> dict[str, str]:
        """The trainings whose sample panels the report shows, by method: those of the first comparison."""
        training_set = self.comparisons["comparison"].training_set
        return {method: f"{method}/{training_set}" for method in self.trained_methods}

    @property
    def tables(self) -> list[str]:
        """The files of all tables that are results, those for a paper too."""
        names = [f"{name}.csv" for name in ("volumes", "metrics", "summary", "paired", *sorted(self.validations))]
        names += [f"{name}.{ending}" for name in TYPESET for ending in ("tex", "md")]
        names += [f"{name}.csv" for name in (*self.domains, *self.scanners, "tiling")] if self.trainings else []
        names += ["efficiency.csv"] if self.networks_differ else []
        names += ["search.csv"] if self.trials else []
        names += ["choice.csv"] if self.candidates > 1 and self.trainings else []
        names += [f"conditions/{name}/{table}" for name in self.conditions for table in ("metrics.csv", "summary.csv")]
        names += [f"conditions/{name}/metrics.{ending}" for name in self.conditions for ending in ("tex", "md")]
        return [f"<results>/tables/{name}" for name in names]

    @property
    def validations(self) -> set[str]:
        """Tables and figures of the validations that are asked for: the lungs that they measure are made for them
        alone.
        """
        asked = self.experiment.evaluate
        found = {"validation": asked.validate_simulation, "metrics_validation": asked.validate_metrics}
        return {name for name, wanted in found.items() if wanted}

    # The report

    @property
    def viewed_comparisons(self) -> list[str]:
        """Names of the comparisons that can be looked into in the report."""
        return list(self.comparisons)[:VIEWED]

    def volumes_viewed(self, name: str) -> dict[str, str]:
        """The volumes of a comparison, without folder of results and ending, by what the command calls them."""
        tested = self.comparisons[name]
        methods = {f"method/{m}": f"superresolved/{m}/{self._folder_of(m, tested)}" for m in self.experiment.methods}
        truth = {"truth": f"volumes/{tested.case}/truth"} if self.having("truth", [tested.case]) else {}
        spread = {}
        for method in list(self.means)[:1]:  # of several means the first: each draw makes the report larger
            stem = f"superresolved/{method}/{self._folder_of(method, tested)}"
            kept = self.kept_with_mean[:SHOWN_DRAWS]
            spread |= {f"draw/Draw {number}": f"{stem}_{draw}" for number, draw in enumerate(kept, start=1)}
            spread |= {f"sd/{SPREAD}": f"{stem}_sd"}
        return {"clinical": f"volumes/{tested.case}/clinical"} | methods | truth | spread

    @property
    def view_words(self) -> str:
        """The comparisons that can be looked into, as words of the report's command."""
        words = []
        for name in self.viewed_comparisons:
            words += ["--view", f"{self.results}/figures/{name}.run.json"]
            words += [f"{kind}={self.results}/{volume}.ome.zarr" for kind, volume in self.volumes_viewed(name).items()]
        return shlex.join(words)

    @property
    def calibrated_cases(self) -> list[str]:
        """The training cases in the figure of calibrations."""
        return self.having("micro", self.training_cases)[:CALIBRATED]


def number_names(stem: str, names: Iterable[str]) -> dict[str, str]:
    """The figure or table of each of `names`, without repetition: `stem` for the first, `stem_<name>` for the
    others.
    """
    return {f"{stem}_{name}" if n else stem: name for n, name in enumerate(dict.fromkeys(names))}


def read_plan(given: Mapping[str, Any], files: Iterable[Path]) -> Plan:
    """The plan of an experiment: of its settings as they are given, and of its cases, from a sheet or simulated.

    files: where the settings come from, the last one first, to name in an error.

    Raises
    ------
    UserError
        A setting or a row of the sheet is wrong, or they do not go together.
    """
    experiment = load(given, list(dict.fromkeys(files)))
    results = f"results/{experiment.experiment}"
    if experiment.cases.sheet is None:
        tested = "leave_one_out" in experiment.protocols
        cases = simulated_cases(experiment.simulate, f"{results}/simulated", tested)
    else:
        cases = read_sheet(experiment.cases, experiment.scan.micro)
    if experiment.scan.micro:
        cases = with_scans(cases, f"{results}/scanned")
    return Plan(with_trials(experiment), {case.case: case for case in cases})
