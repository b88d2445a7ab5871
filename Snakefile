# Micro-CT-level super-resolution of clinical lung CT (Zheng et al. 2020).
#
#   snakemake --cores all                                                the default experiment, config.yaml
#   snakemake --cores all --configfile experiments/paper.yaml            another one, laid over config.yaml
#   snakemake --cores all figures --configfile experiments/paper.yaml    its figures and tables only
from snakemake.utils import min_version

min_version("9.20")


configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/run.smk"
include: "rules/simulate.smk"
include: "rules/validate.smk"
include: "rules/scan.smk"
include: "rules/volumes.smk"
include: "rules/patches.smk"
include: "rules/train.smk"
include: "rules/superresolve.smk"
include: "rules/features.smk"
include: "rules/evaluate.smk"
include: "rules/figures.smk"
include: "rules/report.smk"


onstart:
    start()


onsuccess:
    tell_the_end()


onerror:
    tell_what_failed()


localrules:
    all,
    figures,
    search,
    clean_state,


rule all:
    """The report, figures, tables and trained models."""
    default_target: True
    input:
        REPORT,
        DRAWINGS.files,
        PLAN.tables,
        PLAN.models,
        PLAN.exports,


rule figures:
    """Figures and tables."""
    input:
        DRAWINGS.files,
        PLAN.tables,


rule search:
    """The table of a search alone: no figure of each trial, no report."""
    input:
        "<results>/tables/search.csv" if PLAN.trials else [],


rule clean_state:
    """Delete the state of unfinished trainings; finished models stay."""
    log:
        "<logs>/clean_state.log",
    conda:
        ENVIRONMENT
    params:
        state=f"{RESULTS}/.state",
    shell:
        "rm -rf {params.state} 2> {log}"
