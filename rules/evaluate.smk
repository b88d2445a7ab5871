# Metrics of the super-resolved CT.


rule evaluate:
    """Compare a super-resolved CT with its input, with uCT texture and, where there is one, with the truth."""
    input:
        superresolved="<results>/superresolved/{method}/{training_set}/{case}.ome.zarr",
        clinical="<results>/volumes/{case}/clinical.ome.zarr",
        truth=truth,
        micro=reference_micro,
    output:
        table=ensure("<results>/tables/metrics/{method}/{training_set}/{case}.csv", non_empty=True),
    log:
        "<logs>/evaluate/{method}/{training_set}/{case}.log",
    benchmark:
        "<benchmarks>/evaluate/{method}/{training_set}/{case}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=4000,
        runtime=2 * 60,
    params:
        truth=lambda wildcards, input: f"--truth {input.truth}" if input.truth else "",
        settings=flags(EXPERIMENT.evaluate),
        code=code_version("evaluate"),
    shell:
        "microsr evaluate metrics --case {wildcards.case} --method {wildcards.method}"
        " --training_set {wildcards.training_set} --superresolved {input.superresolved}"
        " --clinical {input.clinical} {params.truth} --micro {input.micro} --output {output.table}"
        " {params.settings} --log {log}"


rule collect_metrics:
    """Put the metrics of every case, method and training set into one table."""
    input:
        tables=[f"<results>/tables/metrics/{m}/{s}/{case}.csv" for m, s, case in SUPERRESOLVED],
    output:
        table=report(
            ensure("<results>/tables/metrics.csv", non_empty=True),
            caption="../report/metrics_table.rst",
            category="Results",
            labels={"what": "metrics, table"},
        ),
    log:
        "<logs>/evaluate/collect.log",
    conda:
        ENVIRONMENT
    params:
        code=code_version("evaluate"),
    shell:
        "microsr evaluate collect --inputs {input.tables} --output {output.table} --log {log}"
