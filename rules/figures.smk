# The paper's figures, and those that let a user judge a run.


rule draw_comparison:
    """Set the clinical CT, each method's super-resolved CT and the truth side by side (Fig. 2 of the paper)."""
    input:
        clinical=lambda wildcards: PLAN.volumes("clinical", [PLAN.comparisons[wildcards.comparison].case]),
        superresolved=lambda wildcards: PLAN.list_compared("superresolved", PLAN.comparisons[wildcards.comparison]),
        truth=lambda wildcards: PLAN.volumes("truth", [PLAN.comparisons[wildcards.comparison].case]),
    output:
        **drawn("{comparison}", "comparison", "Results", "{comparison}"),
    log:
        "<logs>/figures/{comparison}.log",
    wildcard_constraints:
        comparison=any_of(PLAN.comparisons),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(4000),
        runtime=more_each_time(30),
    params:
        panels=by_method("superresolved"),
        order=list(METHODS),
        truth=optional("truth"),
        words=lambda wildcards: PLAN.comparison_words(wildcards.comparison),
        settings=flags(EXPERIMENT.figures),
        stem=stem,
        code=step_version("figures.comparison"),
    shell:
        "microsr figures comparison --clinical {input.clinical} --superresolved {params.panels} {params.truth}"
        " {params.words} --output {params.stem} {params.settings} --log {log}"


rule draw_network:
    """Draw networks and losses as they are configured (Fig. 1 of the paper)."""
    output:
        **drawn("{network}", "network", "Training", "{network}"),
    log:
        "<logs>/figures/{network}.log",
    wildcard_constraints:
        network=any_of(PLAN.networks),
    conda:
        ENVIRONMENT
    params:
        method=lambda wildcards: PLAN.networks[wildcards.network],
        sizes=f"{EXPERIMENT.patches.clinical_size} {EXPERIMENT.patches.micro_size}",
        settings=lambda wildcards: PLAN.network_flags(PLAN.networks[wildcards.network]),
        stem=stem,
        code=step_version("figures.network"),
    shell:
        "microsr figures network --patches {params.sizes} --title {params.method}"
        " --output {params.stem} {params.settings} --log {log}"


rule draw_losses:
    """Draw each loss of each training over its steps."""
    input:
        histories=[f"<results>/models/{m}/{s}/history.csv" for m, s in PLAN.trainings],
    output:
        **drawn("losses", "losses", "Training", "losses"),
    log:
        "<logs>/figures/losses.log",
    conda:
        ENVIRONMENT
    params:
        histories=[f"{m}/{s}={RESULTS}/models/{m}/{s}/history.csv" for m, s in PLAN.trainings],
        stem=stem,
        code=step_version("figures.losses"),
    shell:
        "microsr figures losses --history {params.histories} --output {params.stem} --log {log}"


rule draw_patches:
    """Show where in a volume its training patches were taken."""
    input:
        volume="<results>/volumes/{case}/{modality}.ome.zarr",
        index="<results>/patches/{case}/{modality}.csv",
    output:
        **drawn("patches_{case}_{modality}", "patches", "Data", "patches of {case}, {modality}"),
    log:
        "<logs>/figures/patches_{case}_{modality}.log",
    conda:
        ENVIRONMENT
    params:
        stem=stem,
        code=step_version("figures.patches"),
    shell:
        "microsr figures patches --volume {input.volume} --index {input.index} --output {params.stem} --log {log}"


rule draw_domain:
    """Draw clinical patches beside average-pooled uCT patches: histograms and spectra."""
    input:
        table="<results>/tables/{domain}.csv",
    output:
        **drawn("{domain}", "domain", "Data", lambda wildcards: f"domain check, {PLAN.domains[wildcards.domain]}"),
    log:
        "<logs>/figures/{domain}.log",
    wildcard_constraints:
        domain=any_of(PLAN.domains),
    conda:
        ENVIRONMENT
    params:
        stem=stem,
        code=step_version("figures.domain"),
    shell:
        "microsr figures domain --table {input.table} --output {params.stem} --log {log}"


rule draw_bronchioles:
    """Draw the share of airways detected against their diameter, for every method."""
    input:
        crossings=[f"<results>/tables/metrics/{m}/{s}/{c}.images.bronchioles.csv" for m, s, c in PLAN.known_results],
    output:
        **drawn("bronchioles", "bronchioles", "Results", "bronchiole resolution"),
    log:
        "<logs>/figures/bronchioles.log",
    conda:
        ENVIRONMENT
    params:
        crossings=lambda wildcards, input: [
            f"{method}/{base(training_set)}={path}"
            for (method, training_set, _), path in zip(PLAN.known_results, input.crossings)
        ],
        stem=stem,
        code=step_version("figures.bronchioles"),
    shell:
        "microsr figures bronchioles --crossings {params.crossings} --output {params.stem} --log {log}"


rule draw_efficiency:
    """Draw quality against arithmetic and against time, for methods whose networks differ."""
    input:
        table="<results>/tables/metrics.csv",
        runs=[f"<results>/models/{m}/{s}/run.json" for m, s in PLAN.trainings],
    output:
        **drawn("efficiency", "efficiency", "Results", "quality against compute"),
        costs=report(
            ensure("<results>/tables/efficiency.csv", non_empty=True),
            caption="../report/efficiency_table.rst",
            category="Training",
            labels={"what": "arithmetic and speed, table"},
        ),
        costs_run="<results>/tables/efficiency.run.json",
    log:
        "<logs>/figures/efficiency.log",
    conda:
        ENVIRONMENT
    params:
        runs=[f"{m}/{base(s)}={RESULTS}/models/{m}/{s}/run.json" for m, s in PLAN.trainings],
        stem=stem,
        code=step_version("figures.efficiency"),
    shell:
        "microsr figures efficiency --table {input.table} --runs {params.runs} --costs {output.costs}"
        " --output {params.stem} --log {log}"


rule draw_hallucination:
    """Draw what each method got wrong: errors that the scanner could measure, and those that it could not."""
    input:
        clinical=lambda wildcards: PLAN.volumes("clinical", [PLAN.hallucination.case]),
        truth=lambda wildcards: PLAN.volumes("truth", [PLAN.hallucination.case]),
        superresolved=lambda wildcards: PLAN.list_compared("superresolved", PLAN.hallucination),
        maps=lambda wildcards: PLAN.list_compared("hallucinations", PLAN.hallucination),
    output:
        **drawn("hallucination", "hallucination", "Results", "hallucination maps"),
    log:
        "<logs>/figures/hallucination.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(4000),
        runtime=more_each_time(30),
    params:
        panels=by_method("superresolved"),
        maps=by_method("maps"),
        settings=flags(EXPERIMENT.figures),
        stem=stem,
        code=step_version("figures.hallucination"),
    shell:
        "microsr figures hallucination --clinical {input.clinical} --truth {input.truth}"
        " --superresolved {params.panels} --maps {params.maps} --output {params.stem} {params.settings} --log {log}"


rule draw_tiling:
    """Draw what differs when a slice is super-resolved in tiles: nothing to be seen, and what would be without a
    halo."""
    input:
        clinical=PLAN.volumes("clinical", [PLAN.comparisons["comparison"].case]),
        models=[f"<results>/models/{model}/generator.pt" for model in PLAN.sampled_models.values()],
    output:
        **drawn("tiling", "tiling", "Results", "tiles that cannot be seen"),
        table="<results>/tables/tiling.csv",
        table_run="<results>/tables/tiling.run.json",
    log:
        "<logs>/figures/tiling.log",
    conda:
        NETWORK_ENVIRONMENT
    resources:
        mem_mb=more_each_time(3000),
        runtime=more_each_time(30),
    params:
        models=by_method("models", PLAN.trained_methods),
        settings=flags(EXPERIMENT.figures, without=["insets"]),
        stem=stem,
        code=step_version("figures.tiling"),
    shell:
        "microsr figures tiling --clinical {input.clinical} --models {params.models} --output {params.stem}"
        " --table {output.table} {params.settings} --log {log}"


rule draw_validation:
    """Draw the simulated lung and scanner beside the literature."""
    input:
        table="<results>/tables/validation.csv",
    output:
        **drawn("validation", "validation", "Data", "simulation beside the literature"),
    log:
        "<logs>/figures/validation.log",
    conda:
        ENVIRONMENT
    params:
        stem=stem,
        code=step_version("figures.validation"),
    shell:
        "microsr figures validation --table {input.table} --output {params.stem} --log {log}"


rule draw_metrics:
    """Draw the metrics of every method: those that matter most, or all of one protocol."""
    input:
        table="<results>/tables/metrics.csv",
    output:
        **drawn("{metrics}", "metrics", "Results", lambda wildcards: wildcards.metrics.replace("_", " ")),
    log:
        "<logs>/figures/{metrics}.log",
    wildcard_constraints:
        metrics=any_of(PLAN.metric_figures),
    conda:
        ENVIRONMENT
    params:
        protocol=lambda wildcards: PLAN.metric_figures[wildcards.metrics],
        split=PLAN.split,
        stem=stem,
        code=step_version("figures.metrics"),
    shell:
        "microsr figures metrics --table {input.table} {params.protocol} --split {params.split}"
        " --output {params.stem} --log {log}"


rule draw_volumes:
    """Draw pixels, slices and pixel size of every volume (Table 1 of the paper)."""
    input:
        table="<results>/tables/volumes.csv",
    output:
        **drawn("volumes", "volumes", "Data", "volumes (Table 1), figure"),
    log:
        "<logs>/figures/volumes.log",
    conda:
        ENVIRONMENT
    params:
        stem=stem,
        code=step_version("figures.volumes"),
    shell:
        "microsr figures volumes --table {input.table} --output {params.stem} --log {log}"


rule typeset_table:
    """Set a table for a paper, as LaTeX and Markdown."""
    input:
        table=lambda wildcards: f"<results>/tables/{TYPESET[wildcards.table]}.csv",
    output:
        tex=report(
            ensure("<results>/tables/{table}.tex", non_empty=True),
            caption="../report/typeset.rst",
            category="Tables for a paper",
            labels={"what": "{table}, LaTeX"},
        ),
        md=report(
            ensure("<results>/tables/{table}.md", non_empty=True),
            caption="../report/typeset.rst",
            category="Tables for a paper",
            labels={"what": "{table}, Markdown"},
        ),
        tex_run="<results>/tables/{table}.tex.run.json",
        md_run="<results>/tables/{table}.md.run.json",
    log:
        "<logs>/figures/typeset_{table}.log",
    wildcard_constraints:
        table=any_of(TYPESET),
    conda:
        ENVIRONMENT
    params:
        kind="{table}",
        stem=stem,
        code=step_version("figures.typeset"),
    shell:
        "microsr figures typeset --kind {params.kind} --table {input.table} --output {params.stem} --log {log}"


use rule typeset_table as typeset_condition with:
    input:
        table="<results>/tables/conditions/{condition}/summary.csv",
    output:
        tex=ensure("<results>/tables/conditions/{condition}/metrics.tex", non_empty=True),
        md=ensure("<results>/tables/conditions/{condition}/metrics.md", non_empty=True),
        tex_run="<results>/tables/conditions/{condition}/metrics.tex.run.json",
        md_run="<results>/tables/conditions/{condition}/metrics.md.run.json",
    log:
        "<logs>/figures/typeset_{condition}.log",
    wildcard_constraints:
        condition=any_of(PLAN.conditions),
    params:
        kind="metrics",
        stem=stem,
        code=step_version("figures.typeset"),
