"""Figures, each a module that offers `microsr.figures.figure.Figure`, by the word behind `microsr figures`.

The module is loaded when the figure is drawn. What a figure is drawn from, and how often, is said by
`workflow.drawings`: of one that is drawn once, from a table of the experiment, its line here says all.
"""

from typing import NamedTuple


class Entry(NamedTuple):
    """A figure: its module, what `--help` says of it, and what the workflow has to know."""

    module: str
    help: str
    category: str = "Results"
    """Where Snakemake's report has it: Data, Training, Results."""
    title: str = ""
    """What Snakemake's report calls it; none: its name, or what `workflow.drawings` says of each that there are."""
    table: str = ""
    """results/<experiment>/tables/<table>.csv, which it is drawn from, once; none: see `workflow.drawings`."""
    writes: str = ""
    """The flag of a table that it writes beside the figure: tables/<figure>.csv."""
    endings: tuple[str, ...] = (".png", ".pdf")
    """What is added to `--output`."""
    memory_mb: int = 2000
    """Memory that a job asks for."""
    networks: bool = False
    """Whether it super-resolves, for which `envs/gpu.yaml` is where `compute.device` is cuda."""


FIGURES: dict[str, Entry] = {
    "comparison": Entry(
        "microsr.figures.pictures.comparison",
        help="clinical CT, each method's super-resolved CT and the truth (the paper's Fig. 2)",
        memory_mb=4000,
    ),
    "network": Entry(
        "microsr.figures.network",
        help="networks and losses as configured (the paper's Fig. 1)",
        category="Training",
    ),
    "losses": Entry("microsr.figures.charts.losses", help="loss curves", category="Training"),
    "patches": Entry("microsr.figures.pictures.patches", help="where patches were taken", category="Data"),
    "domain": Entry(
        "microsr.figures.charts.domain", help="clinical patches beside average-pooled uCT patches", category="Data"
    ),
    "scanner": Entry(
        "microsr.figures.charts.scanner", help="noise, streaks and slice profile of the clinical CTs", category="Data"
    ),
    "metrics": Entry("microsr.figures.charts.metrics", help="metrics of all methods"),
    "validation": Entry(
        "microsr.figures.charts.validation",
        help="the simulated lung and scanner beside the literature",
        category="Data",
        title="simulation beside the literature",
    ),
    "metrics_validation": Entry(
        "microsr.figures.charts.metrics_validation",
        help="the metrics on images whose faults are known",
        title="what each metric sees",
    ),
    "volumes": Entry(
        "microsr.figures.charts.volumes",
        help="pixels, slices and pixel size of every volume (the paper's Table 1)",
        category="Data",
        table="volumes",
        title="volumes (Table 1), figure",
    ),
    "typeset": Entry(
        "microsr.figures.typeset", help="a table for a paper, as LaTeX and Markdown", endings=(".tex", ".md")
    ),
    "bronchioles": Entry(
        "microsr.figures.charts.bronchioles",
        help="share of airways detected against their diameter",
        title="bronchiole resolution",
    ),
    "efficiency": Entry(
        "microsr.figures.charts.efficiency",
        help="quality against arithmetic and time",
        writes="costs",
        title="quality against compute",
    ),
    "hallucination": Entry(
        "microsr.figures.pictures.hallucination",
        help="errors that the scanner could measure and those that it could not",
        memory_mb=4000,
        title="hallucination maps",
    ),
    "uncertainty": Entry(
        "microsr.figures.pictures.uncertainty",
        help="draws of a scan, and their mean, SD and P(solid), beside the truth",
        memory_mb=4000,
        title="draws and their uncertainty",
    ),
    "reliability": Entry(
        "microsr.figures.charts.reliability",
        help="whether the spread of draws can be believed: coverage, ranks, P(solid)",
        title="whether the spread of draws can be believed",
    ),
    "tiling": Entry(
        "microsr.figures.pictures.tiling",
        help="a slice super-resolved in tiles beside the same in one piece",
        writes="table",
        memory_mb=3000,
        networks=True,
        title="tiles that cannot be seen",
    ),
}
