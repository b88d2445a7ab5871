# The simulated lung and scanner beside the literature.


rule validate_simulation:
    """Measure the simulated lung and scanner: MTF, noise, HU, alveoli, airways, each beside a published figure."""
    input:
        case=f"<results>/simulated/{LABELLED}/truth.nii.gz",
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
        mem_mb=4000,
        runtime=60,
    params:
        folder=subpath(input.case, parent=True),
        settings=SIMULATION,
        code=code_version("validate"),
    shell:
        "microsr validate --case-folders {params.folder} --output {output.table} --log {log}"
