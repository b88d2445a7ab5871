# Metrics of the super-resolved CT: one table a protocol, and all of them in one.


rule evaluate_images:
    """Compare a super-resolved CT with its input, with uCT texture and, where there is one, with the truth."""
    input:
        superresolved="<results>/superresolved/{method}/{training_set}/{case}.ome.zarr",
        clinical="<results>/volumes/{case}/clinical.ome.zarr",
        micro=lambda wildcards: PLAN.reference_micro(wildcards.case),
        truth=given("truth"),
        thick_truth=given("thick_truth"),
    output:
        table=ensure("<results>/tables/metrics/{method}/{training_set}/{case}.images.csv", non_empty=True),
        run="<results>/tables/metrics/{method}/{training_set}/{case}.images.run.json",
    log:
        "<logs>/evaluate/{method}/{training_set}/{case}.images.log",
    benchmark:
        "<benchmarks>/evaluate/{method}/{training_set}/{case}.images.tsv"
    wildcard_constraints:
        case=any_of(case for case in CASES if case not in PLAN.known_cases),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(3000),
        runtime=more_each_time(120),
    params:
        names=model_names,
        truth=lambda wildcards, input: file_words(input, "truth", "thick_truth"),
        settings=lambda wildcards: f"{PLAN.evaluation_flags} {PLAN.scanner_flags(wildcards.case)}",
        code=code_version("evaluate"),
    shell:
        "microsr evaluate metrics {params.names} --superresolved {input.superresolved} --clinical {input.clinical}"
        " {params.truth} --micro {input.micro} --output {output.table}"
        " {params.settings} --log {log}"


use rule evaluate_images as evaluate_known with:
    input:
        superresolved="<results>/superresolved/{method}/{training_set}/{case}.ome.zarr",
        clinical="<results>/volumes/{case}/clinical.ome.zarr",
        micro=lambda wildcards: PLAN.reference_micro(wildcards.case),
        truth="<results>/volumes/{case}/truth.ome.zarr",
        thick_truth=given("thick_truth"),
        labels="<results>/volumes/{case}/labels.ome.zarr",
        airways=lambda wildcards: CASES[wildcards.case].airways,
    output:
        table=ensure("<results>/tables/metrics/{method}/{training_set}/{case}.images.csv", non_empty=True),
        crossings="<results>/tables/metrics/{method}/{training_set}/{case}.images.bronchioles.csv",
        crossings_run="<results>/tables/metrics/{method}/{training_set}/{case}.images.bronchioles.run.json",
        run="<results>/tables/metrics/{method}/{training_set}/{case}.images.run.json",
        maps=directory("<results>/hallucinations/{method}/{training_set}/{case}.ome.zarr"),
        maps_run="<results>/hallucinations/{method}/{training_set}/{case}.run.json",
    wildcard_constraints:
        case=any_of(PLAN.known_cases),
    params:
        names=model_names,
        truth=lambda wildcards, input, output: (
            f"{file_words(input, 'truth', 'thick_truth', 'labels', 'airways')} --maps {output.maps}"
        ),
        settings=lambda wildcards: f"{PLAN.evaluation_flags} {PLAN.scanner_flags(wildcards.case)}",
        code=code_version("evaluate"),


for PROTOCOL in PROTOCOLS:

    rule:
        name:
            f"evaluate_{PROTOCOL}"
        input:
            unpack(lambda wildcards, protocol=PROTOCOL: PLAN.evaluation_files(protocol, Result(**wildcards))),
        output:
            **{
                f"{table}{name}": "<results>/tables/metrics/{method}/{training_set}/{case}."
                f"{PROTOCOL}.{table}{ending}"
                for table in PROTOCOLS[PROTOCOL].beside
                for name, ending in (("", ".csv"), ("_run", ".run.json"))
            },
            table=ensure(
                f"<results>/tables/metrics/{{method}}/{{training_set}}/{{case}}.{PROTOCOL}.csv", non_empty=True
            ),
            run=f"<results>/tables/metrics/{{method}}/{{training_set}}/{{case}}.{PROTOCOL}.run.json",
        log:
            f"<logs>/evaluate/{{method}}/{{training_set}}/{{case}}.{PROTOCOL}.log",
        benchmark:
            f"<benchmarks>/evaluate/{{method}}/{{training_set}}/{{case}}.{PROTOCOL}.tsv"
        conda:
            ENVIRONMENT
        resources:
            mem_mb=more_each_time(3000),
            runtime=more_each_time(60),
        params:
            protocol=PROTOCOL,
            names=model_names,
            files=optional(*PROTOCOLS[PROTOCOL].inputs),
            settings=PLAN.evaluation_flags if PROTOCOLS[PROTOCOL].settings else "",
            code=code_version(f"evaluate.{PROTOCOL}"),
        shell:
            "microsr evaluate {params.protocol} {params.names} {params.files} --output {output.table} {params.settings}"
            " --log {log}"


rule collect_metrics:
    """Put the metrics of every case, method and training set into one table."""
    input:
        tables=PLAN.metric_tables(),
    output:
        table=report(
            ensure("<results>/tables/metrics.csv", non_empty=True),
            caption="../report/metrics_table.rst",
            category="Results",
            labels={"what": "metrics, table"},
        ),
        run="<results>/tables/metrics.run.json",
    log:
        "<logs>/evaluate/collect.log",
    conda:
        ENVIRONMENT
    params:
        code=code_version("evaluate.collect"),
    shell:
        "microsr evaluate collect --inputs {input.tables} --output {output.table} --log {log}"


rule summarise_metrics:
    """Give the mean of each metric over cases and trainings with its interval, and the differences of the methods."""
    input:
        table="<results>/tables/metrics.csv",
    output:
        table=report(
            ensure("<results>/tables/summary.csv", non_empty=True),
            caption="../report/summary.rst",
            category="Results",
            labels={"what": "metrics, means and intervals"},
        ),
        run="<results>/tables/summary.run.json",
        paired="<results>/tables/paired.csv",
        paired_run="<results>/tables/paired.run.json",
    log:
        "<logs>/evaluate/summarise.log",
    conda:
        ENVIRONMENT
    params:
        split=PLAN.split,
        code=code_version("evaluate.summarise"),
    shell:
        "microsr evaluate summarise --table {input.table} --split {params.split} --output {output.table}"
        " --paired {output.paired} --log {log}"


use rule collect_metrics as collect_condition with:
    input:
        tables=lambda wildcards: PLAN.metric_tables(wildcards.condition),
    output:
        table=ensure("<results>/tables/conditions/{condition}/metrics.csv", non_empty=True),
        run="<results>/tables/conditions/{condition}/metrics.run.json",
    log:
        "<logs>/evaluate/{condition}.collect.log",
    wildcard_constraints:
        condition=any_of(PLAN.conditions),


use rule summarise_metrics as summarise_condition with:
    input:
        table="<results>/tables/conditions/{condition}/metrics.csv",
    output:
        table=ensure("<results>/tables/conditions/{condition}/summary.csv", non_empty=True),
        run="<results>/tables/conditions/{condition}/summary.run.json",
        paired="<results>/tables/conditions/{condition}/paired.csv",
        paired_run="<results>/tables/conditions/{condition}/paired.run.json",
    log:
        "<logs>/evaluate/{condition}.summarise.log",
    wildcard_constraints:
        condition=any_of(PLAN.conditions),


rule tabulate_search:
    """Rank the trials of each method by what they gave on the validation cases."""
    input:
        table="<results>/tables/metrics.csv",
    output:
        table=report(
            ensure("<results>/tables/search.csv", non_empty=True),
            caption="../report/search.rst",
            category="Results",
            labels={"what": "search, trials and what is chosen"},
        ),
        run="<results>/tables/search.run.json",
    log:
        "<logs>/evaluate/search.log",
    conda:
        ENVIRONMENT
    params:
        trials=lambda wildcards: PLAN.search_words,  # no text: it has braces
        code=code_version("evaluate.search"),
    shell:
        "microsr evaluate search --table {input.table} {params.trials} --output {output.table} --log {log}"
