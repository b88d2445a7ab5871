"""What each figure of an experiment is drawn from, and what its command is told, by the kind of figure.

The rules ask it. In the names of files `<results>` stands for the experiment's folder, as in `workflow.plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

from microsr.config import flags
from microsr.core.registry.figures import FIGURES
from microsr.workflow.plan import SHOWN_DRAWS, Plan, base, number_names


class Drawing(NamedTuple):
    """What a figure is drawn from, and what its command is told."""

    files: Mapping[str, list[str]] = MappingProxyType({})
    """By the flag of the command; none of a flag: it is left out."""
    words: str = ""
    """Further words of the command."""
    names: Mapping[str, list[str]] = MappingProxyType({})
    """By flag, the name of each file, where the command takes NAME=PATH."""
    what: str = ""
    """What Snakemake's report calls it; nothing: as its line in `core.registry.figures` says, or its name."""


@dataclass(frozen=True)
class Drawings:
    """The figures of an experiment that is planned."""

    plan: Plan

    @cached_property
    def by_kind(self) -> dict[str, dict[str, Drawing]]:
        """What is drawn, by the kind of figure (`core.registry.figures`) and the figure's name.

        A kind with a `table` in its line is drawn from it, once; what others are drawn from stands here.
        """
        of_tables = {
            kind: {kind: Drawing({"table": [f"<results>/tables/{entry.table}.csv"]})} if entry.table else {}
            for kind, entry in FIGURES.items()
        }
        of_results = {
            "comparison": {name: self._draw_comparison(name) for name in self.plan.comparisons},
            "metrics": {name: self._draw_metrics(words) for name, words in self.plan.metric_figures.items()},
            "hallucination": self._draw_hallucination(),
            "validation": self._draw_validation("validation"),
            "metrics_validation": self._draw_validation("metrics_validation"),
            "bronchioles": self._draw_bronchioles(),
            "efficiency": self._draw_efficiency(),
            "uncertainty": self._draw_uncertainty(),
            "reliability": self._draw_reliability(),
        }
        return of_tables | of_results | (self._draw_trainings() if self.plan.trainings else {})

    def _draw_validation(self, name: str) -> dict[str, Drawing]:
        """A validation, where it is asked for."""
        asked = name in self.plan.validations
        return {name: Drawing({"table": [f"<results>/tables/{name}.csv"]})} if asked else {}

    def _draw_comparison(self, name: str) -> Drawing:
        tested = self.plan.comparisons[name]
        files = {"clinical": self.plan.volumes("clinical", [tested.case])}
        files |= {"superresolved": self.plan.list_compared("superresolved", tested)}
        files |= {"truth": self.plan.volumes("truth", [tested.case])}
        words = f"{self.plan.comparison_words(name)} {flags(self.plan.experiment.figures)}"
        return Drawing(files, words, {"superresolved": list(self.plan.experiment.methods)}, what=name)

    def _draw_metrics(self, words: str) -> Drawing:
        return Drawing({"table": ["<results>/tables/metrics.csv"]}, f"{words} --split {self.plan.split}".lstrip())

    def _draw_hallucination(self) -> dict[str, Drawing]:
        if not (tested := self.plan.hallucination):
            return {}
        files = {kind: self.plan.volumes(kind, [tested.case]) for kind in ("clinical", "truth")}
        files |= {"superresolved": self.plan.list_compared("superresolved", tested)}
        files |= {"maps": self.plan.list_compared("hallucinations", tested)}
        names = {kind: list(self.plan.experiment.methods) for kind in ("superresolved", "maps")}
        return {"hallucination": Drawing(files, flags(self.plan.experiment.figures), names)}

    def _draw_bronchioles(self) -> dict[str, Drawing]:
        if not self.plan.known_results:
            return {}
        tables = [f"<results>/tables/metrics/{m}/{s}/{c}.images.bronchioles.csv" for m, s, c in self.plan.known_results]
        names = [f"{method}/{base(training_set)}" for method, training_set, _ in self.plan.known_results]
        drawing = Drawing({"crossings": tables}, names={"crossings": names})
        return {"bronchioles": drawing}

    def _draw_efficiency(self) -> dict[str, Drawing]:
        if not self.plan.networks_differ:
            return {}
        runs = [f"<results>/models/{m}/{s}/run.json" for m, s in self.plan.trainings]
        names = {"runs": [f"{m}/{base(s)}" for m, s in self.plan.trainings]}
        files = {"table": ["<results>/tables/metrics.csv"], "runs": runs}
        return {"efficiency": Drawing(files, names=names)}

    def _draw_uncertainty(self) -> dict[str, Drawing]:
        """The draws of each method that is a mean, of the first comparison's case."""
        training_set, case = self.plan.comparisons["comparison"]
        found = {}
        for name, method in number_names("uncertainty", self.plan.means).items():
            stem = f"<results>/superresolved/{method}/{training_set}/{case}"
            files = {"clinical": self.plan.volumes("clinical", [case]), "mean": [f"{stem}.ome.zarr"]}
            files |= {held: [f"{stem}_{held}.ome.zarr"] for held in ("sd", "solid")}
            files |= {"draws": self.plan.draw_volumes(method, training_set, case, most=SHOWN_DRAWS)}
            files |= {"truth": self.plan.volumes("truth", [case])}
            found[name] = Drawing(files, flags(self.plan.experiment.figures))
        return found

    def _draw_reliability(self) -> dict[str, Drawing]:
        shown = self.plan.comparisons["comparison"].training_set
        judged = [
            result
            for result in self.plan.superresolutions
            if result.method in self.plan.means
            and base(result.training_set) == shown
            and self.plan.having("truth", [result.case])
            and self.plan.cases[result.case].condition is None
        ]
        if not judged:
            return {}
        tables = [f"<results>/tables/metrics/{m}/{s}/{c}.uncertainty.curves.csv" for m, s, c in judged]
        names = [f"{method}/{base(training_set)}" for method, training_set, _ in judged]
        return {"reliability": Drawing({"curves": tables}, names={"curves": names})}

    def _draw_trainings(self) -> dict[str, dict[str, Drawing]]:
        """What is drawn of trainings and of what they learn from."""
        sizes = f"--patches {self.plan.experiment.patches.clinical_size} {self.plan.experiment.patches.micro_size}"
        histories = [f"<results>/models/{m}/{s}/history.csv" for m, s in self.plan.trainings]
        models = [f"<results>/models/{model}/generator.pt" for model in self.plan.sampled_models.values()]
        shown = self.plan.comparisons["comparison"].case
        return {
            "network": {
                name: Drawing(words=f"{sizes} --title {method} {self.plan.network_flags(method)}", what=name)
                for name, method in self.plan.networks.items()
            },
            "losses": {
                "losses": Drawing(
                    {"history": histories}, names={"history": [f"{m}/{s}" for m, s in self.plan.trainings]}
                )
            },
            "tiling": {
                "tiling": Drawing(
                    {"clinical": self.plan.volumes("clinical", [shown]), "models": models},
                    flags(self.plan.experiment.figures, without=["insets"]),
                    {"models": list(self.plan.sampled_models)},
                )
            },
            "domain": {
                name: Drawing({"table": [f"<results>/tables/{name}.csv"]}, what=f"domain check, {training_set}")
                for name, training_set in self.plan.domains.items()
            },
            "scanner": {
                name: Drawing({"table": [f"<results>/tables/{name}.csv"]}, what=f"scanner, {training_set}")
                for name, training_set in self.plan.scanners.items()
            },
            "patches": {
                f"patches_{case}_{modality}": Drawing(
                    {
                        "volume": [f"<results>/volumes/{case}/{modality}.ome.zarr"],
                        "index": [f"<results>/patches/{case}/{modality}.csv"],
                    },
                    flags(self.plan.experiment.figures, without=["slice", "insets"]),
                    what=f"patches of {case}, {modality}",
                )
                for modality in ("clinical", "micro")
                for case in self.plan.having(modality, self.plan.training_cases)
            },
        }

    def title(self, name: str) -> str:
        """What Snakemake's report calls a figure."""
        kind, drawing = next((kind, found[name]) for kind, found in self.by_kind.items() if name in found)
        return drawing.what or FIGURES[kind].title or name.replace("_", " ")

    @property
    def names(self) -> list[str]:
        """Names of all figures, without folder and ending."""
        names = [name for drawings in self.by_kind.values() for name in drawings]
        return [*names, "calibration", *(["panels"] if self.plan.trainings else [])]

    @cached_property
    def files(self) -> list[str]:
        """The files of all figures."""
        return [f"<results>/figures/{name}.{ending}" for name in self.names for ending in ("png", "pdf")]
