# The simulated lung and scanner beside the literature, and the metrics on images whose faults are known.


rule validate_simulation:
    """Measure the simulated lung and scanner: MTF, noise, HU, alveoli, airways, each beside a published figure."""
    input:
        clinical=f"<results>/simulated/{LABELLED}/clinical.nii.gz",
        repeat=f"<results>/simulated/{LABELLED}/repeat.nii.gz",
        truth=f"<results>/simulated/{LABELLED}/truth.nii.gz",
        labels=f"<results>/simulated/{LABELLED}/labels.nii.gz",
        airways=f"<results>/simulated/{LABELLED}/airways.csv",
        kernel_pair=[str(Path(EXPERIMENT.cases.data_root) / file) for file in EXPERIMENT.evaluate.kernel_pair],
    output:
        table=report(
            ensure("<results>/tables/validation.csv", non_empty=True),
            caption="../report/validation_table.rst",
            category="Data",
            labels={"what": "simulation beside the literature, table"},
        ),
        run="<results>/tables/validation.run.json",
    log:
        "<logs>/validate.log",
    benchmark:
        "<benchmarks>/validate.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(4000),
        runtime=more_each_time(60),
    params:
        folder=subpath(input.truth, parent=True),
        kernel_pair=lambda wildcards, input: (
            f"--kernel_pair {shlex.join(input.kernel_pair)}" if input.kernel_pair else ""
        ),
        settings=PLAN.scanner_flags(LABELLED),
        code=code_version("validate"),
    shell:
        "microsr validate --case-folders {params.folder} {params.kernel_pair} --output {output.table}"
        " {params.settings} --log {log}"


rule validate_metrics:
    """Show the metrics images whose faults are known, of small lungs that are simulated for it."""
    output:
        table=report(
            ensure("<results>/tables/metrics_validation.csv", non_empty=True),
            caption="../report/metrics_validation_table.rst",
            category="Results",
            labels={"what": "what each metric sees, table"},
        ),
        run="<results>/tables/metrics_validation.run.json",
    log:
        "<logs>/evaluate/validate.log",
    benchmark:
        "<benchmarks>/evaluate/validate.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(3000),
        runtime=more_each_time(30),
    params:
        seeds=f"{EXPERIMENT.seed} {EXPERIMENT.seed + 1}",
        settings=f"{PLAN.evaluation_flags} {flags(EXPERIMENT.scanner_of())}",
        code=code_version("evaluate.validate"),
    shell:
        "microsr evaluate validate --seeds {params.seeds} --output {output.table} {params.settings} --log {log}"
