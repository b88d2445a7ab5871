# The paper's figures, and those that let a user judge a run.


rule draw_comparison:
    """Set the clinical CT, each method's super-resolved CT and the truth side by side (Fig. 2 of the paper)."""
    input:
        clinical=compared("clinical"),
        superresolved=compared_methods,
        truth=compared("truth"),
    output:
        png=report(
            "<results>/figures/{comparison}.png",
            caption="../report/comparison.rst",
            category="Results",
            labels={"what": "{comparison}"},
        ),
        pdf="<results>/figures/{comparison}.pdf",
        run="<results>/figures/{comparison}.run.json",
    log:
        "<logs>/figures/{comparison}.log",
    wildcard_constraints:
        comparison=any_of(COMPARISONS),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(4000),
        runtime=more_each_time(30),
    params:
        panels=panels,
        order=list(METHODS),
        truth=lambda wildcards, input: f"--truth {input.truth}" if input.truth else "",
        words=comparison_words,
        settings=flags(EXPERIMENT.figures),
        stem=stem,
        code=figure_code("comparison"),
    shell:
        "microsr figures comparison --clinical {input.clinical} --superresolved {params.panels} {params.truth}"
        " {params.words} --output {params.stem} {params.settings} --log {log}"


rule draw_network:
    """Draw networks and losses as they are configured (Fig. 1 of the paper)."""
    output:
        png=report(
            "<results>/figures/{network}.png",
            caption="../report/network.rst",
            category="Training",
            labels={"what": "{network}"},
        ),
        pdf="<results>/figures/{network}.pdf",
        run="<results>/figures/{network}.run.json",
    log:
        "<logs>/figures/{network}.log",
    wildcard_constraints:
        network=any_of(NETWORKS),
    conda:
        ENVIRONMENT
    params:
        method=lambda wildcards: NETWORKS[wildcards.network],
        sizes=f"{EXPERIMENT.patches.clinical_size} {EXPERIMENT.patches.micro_size}",
        settings=lambda wildcards: network_flags(NETWORKS[wildcards.network]),
        stem=stem,
        code=figure_code("network"),
    shell:
        "microsr figures network --patches {params.sizes} --title {params.method}"
        " --output {params.stem} {params.settings} --log {log}"


rule draw_losses:
    """Draw each loss of each training over its steps."""
    input:
        histories=[f"<results>/models/{m}/{s}/history.csv" for m, s in TRAININGS],
    output:
        png=report(
            "<results>/figures/losses.png",
            caption="../report/losses.rst",
            category="Training",
            labels={"what": "losses"},
        ),
        pdf="<results>/figures/losses.pdf",
        run="<results>/figures/losses.run.json",
    log:
        "<logs>/figures/losses.log",
    conda:
        ENVIRONMENT
    params:
        histories=[f"{m}/{s}={RESULTS}/models/{m}/{s}/history.csv" for m, s in TRAININGS],
        stem=stem,
        code=figure_code("losses"),
    shell:
        "microsr figures losses --history {params.histories} --output {params.stem} --log {log}"


rule draw_patches:
    """Show where in a volume its training patches were taken."""
    input:
        volume="<results>/volumes/{case}/{modality}.ome.zarr",
        index="<results>/patches/{case}/{modality}.csv",
    output:
        png=report(
            "<results>/figures/patches_{case}_{modality}.png",
            caption="../report/patches.rst",
            category="Data",
            labels={"what": "patches of {case}, {modality}"},
        ),
        pdf="<results>/figures/patches_{case}_{modality}.pdf",
        run="<results>/figures/patches_{case}_{modality}.run.json",
    log:
        "<logs>/figures/patches_{case}_{modality}.log",
    conda:
        ENVIRONMENT
    params:
        stem=stem,
        code=figure_code("patches"),
    shell:
        "microsr figures patches --volume {input.volume} --index {input.index} --output {params.stem} --log {log}"


rule draw_domain:
    """Draw clinical patches beside average-pooled uCT patches: histograms and spectra."""
    input:
        table="<results>/tables/{domain}.csv",
    output:
        png=report(
            "<results>/figures/{domain}.png",
            caption="../report/domain.rst",
            category="Data",
            labels=lambda wildcards: {"what": f"domain check, {DOMAINS[wildcards.domain]}"},
        ),
        pdf="<results>/figures/{domain}.pdf",
        run="<results>/figures/{domain}.run.json",
    log:
        "<logs>/figures/{domain}.log",
    wildcard_constraints:
        domain=any_of(DOMAINS),
    conda:
        ENVIRONMENT
    params:
        stem=stem,
        code=figure_code("domain"),
    shell:
        "microsr figures domain --table {input.table} --output {params.stem} --log {log}"


rule draw_bronchioles:
    """Draw the share of airways detected against their diameter, for every method."""
    input:
        crossings=[f"<results>/tables/metrics/{m}/{s}/{c}.images.bronchioles.csv" for m, s, c in KNOWN],
    output:
        png=report(
            "<results>/figures/bronchioles.png",
            caption="../report/bronchioles.rst",
            category="Results",
            labels={"what": "bronchiole resolution"},
        ),
        pdf="<results>/figures/bronchioles.pdf",
        run="<results>/figures/bronchioles.run.json",
    log:
        "<logs>/figures/bronchioles.log",
    conda:
        ENVIRONMENT
    params:
        crossings=lambda wildcards, input: [
            f"{method}/{base(training_set)}={path}" for (method, training_set, _), path in zip(KNOWN, input.crossings)
        ],
        stem=stem,
        code=figure_code("bronchioles"),
    shell:
        "microsr figures bronchioles --crossings {params.crossings} --output {params.stem} --log {log}"


rule draw_efficiency:
    """Draw quality against arithmetic and against time, for methods whose networks differ."""
    input:
        table="<results>/tables/metrics.csv",
        runs=[f"<results>/models/{m}/{s}/run.json" for m, s in TRAININGS],
    output:
        png=report(
            "<results>/figures/efficiency.png",
            caption="../report/efficiency.rst",
            category="Results",
            labels={"what": "quality against compute"},
        ),
        pdf="<results>/figures/efficiency.pdf",
        run="<results>/figures/efficiency.run.json",
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
        runs=[f"{m}/{base(s)}={RESULTS}/models/{m}/{s}/run.json" for m, s in TRAININGS],
        stem=stem,
        code=figure_code("efficiency"),
    shell:
        "microsr figures efficiency --table {input.table} --runs {params.runs} --costs {output.costs}"
        " --output {params.stem} --log {log}"


rule draw_hallucination:
    """Draw what each method got wrong: errors that the scanner could measure, and those that it could not."""
    input:
        clinical=lambda wildcards: volumes("clinical", [HALLUCINATIONS["hallucination"][1]]),
        truth=lambda wildcards: volumes("truth", [HALLUCINATIONS["hallucination"][1]]),
        superresolved=hallucinated("superresolved"),
        maps=hallucinated("hallucinations"),
    output:
        png=report(
            "<results>/figures/hallucination.png",
            caption="../report/hallucination.rst",
            category="Results",
            labels={"what": "hallucination maps"},
        ),
        pdf="<results>/figures/hallucination.pdf",
        run="<results>/figures/hallucination.run.json",
    log:
        "<logs>/figures/hallucination.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(4000),
        runtime=more_each_time(30),
    params:
        panels=panels,
        maps=lambda wildcards, input: [f"{m}={volume}" for m, volume in zip(METHODS, input.maps)],
        settings=flags(EXPERIMENT.figures),
        stem=stem,
        code=figure_code("hallucination"),
    shell:
        "microsr figures hallucination --clinical {input.clinical} --truth {input.truth}"
        " --superresolved {params.panels} --maps {params.maps} --output {params.stem} {params.settings} --log {log}"


rule draw_tiling:
    """Draw what differs when a slice is super-resolved in tiles: nothing to be seen, and what would be without a halo."""
    input:
        clinical=lambda wildcards: volumes("clinical", [COMPARISONS["comparison"][1]]),
        models=models_compared,
    output:
        png=report(
            "<results>/figures/tiling.png",
            caption="../report/tiling.rst",
            category="Results",
            labels={"what": "tiles that cannot be seen"},
        ),
        pdf="<results>/figures/tiling.pdf",
        run="<results>/figures/tiling.run.json",
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
        models=lambda wildcards, input: [f"{m}={model}" for m, model in zip(TRAINED_METHODS, input.models)],
        settings=flags(EXPERIMENT.figures, without=["insets"]),
        stem=stem,
        code=figure_code("tiling"),
    shell:
        "microsr figures tiling --clinical {input.clinical} --models {params.models} --output {params.stem}"
        " --table {output.table} {params.settings} --log {log}"


rule draw_validation:
    """Draw the simulated lung and scanner beside the literature."""
    input:
        table="<results>/tables/validation.csv",
    output:
        png=report(
            "<results>/figures/validation.png",
            caption="../report/validation.rst",
            category="Data",
            labels={"what": "simulation beside the literature"},
        ),
        pdf="<results>/figures/validation.pdf",
        run="<results>/figures/validation.run.json",
    log:
        "<logs>/figures/validation.log",
    conda:
        ENVIRONMENT
    params:
        stem=stem,
        code=figure_code("validation"),
    shell:
        "microsr figures validation --table {input.table} --output {params.stem} --log {log}"


rule draw_metrics:
    """Draw the metrics of every method: those that matter most, or all of one protocol."""
    input:
        table="<results>/tables/metrics.csv",
    output:
        png=report(
            "<results>/figures/{metrics}.png",
            caption="../report/metrics.rst",
            category="Results",
            labels=lambda wildcards: {"what": wildcards.metrics.replace("_", " ")},
        ),
        pdf="<results>/figures/{metrics}.pdf",
        run="<results>/figures/{metrics}.run.json",
    log:
        "<logs>/figures/{metrics}.log",
    wildcard_constraints:
        metrics=any_of(METRIC_FIGURES),
    conda:
        ENVIRONMENT
    params:
        protocol=lambda wildcards: METRIC_FIGURES[wildcards.metrics],
        stem=stem,
        code=figure_code("metrics"),
    shell:
        "microsr figures metrics --table {input.table} {params.protocol} --output {params.stem} --log {log}"


rule draw_volumes:
    """Draw pixels, slices and pixel size of every volume (Table 1 of the paper)."""
    input:
        table="<results>/tables/volumes.csv",
    output:
        png=report(
            "<results>/figures/volumes.png",
            caption="../report/volumes.rst",
            category="Data",
            labels={"what": "volumes (Table 1), figure"},
        ),
        pdf="<results>/figures/volumes.pdf",
        run="<results>/figures/volumes.run.json",
    log:
        "<logs>/figures/volumes.log",
    conda:
        ENVIRONMENT
    params:
        stem=stem,
        code=figure_code("volumes"),
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
        stem=stem,
        code=step_version("figures.typeset"),
    shell:
        "microsr figures typeset --kind {wildcards.table} --table {input.table} --output {params.stem} --log {log}"
