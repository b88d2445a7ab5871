# Training patches, and whether the two modalities look alike.


rule extract_patches:
    """Cut training patches from inside the lung of a clinical CT, or from inside the specimen of a uCT."""
    input:
        volume="<results>/volumes/{case}/{modality}.ome.zarr",
    output:
        patches=ensure("<results>/patches/{case}/{modality}.npy", non_empty=True),
        index=ensure("<results>/patches/{case}/{modality}.csv", non_empty=True),
        run="<results>/patches/{case}/{modality}.run.json",
    log:
        "<logs>/patches/{case}/{modality}.log",
    benchmark:
        "<benchmarks>/patches/{case}/{modality}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(2000),
        runtime=more_each_time(60),
    params:
        seed=EXPERIMENT.seed,
        settings=flags(EXPERIMENT.patches),
        code=code_version("patches"),
    shell:
        "microsr patches --case {wildcards.case} --modality {wildcards.modality} --volume {input.volume}"
        " --seed {params.seed} --output {output.patches} --index {output.index} {params.settings} --log {log}"


rule scan_patches:
    """Scan the uCT patches as the clinical scanner would, for methods that learn from pairs."""
    input:
        volume="<results>/volumes/{case}/micro.ome.zarr",
        index="<results>/patches/{case}/micro.csv",
        clinical=PLAN.spacing_volumes,
    output:
        scans=ensure("<results>/patches/{case}/micro_scans.npy", non_empty=True),
        table=ensure("<results>/patches/{case}/micro_scans.csv", non_empty=True),
        run="<results>/patches/{case}/micro_scans.run.json",
    log:
        "<logs>/patches/{case}/micro_scans.log",
    benchmark:
        "<benchmarks>/patches/{case}/micro_scans.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(2000),
        runtime=more_each_time(60),
    params:
        seed=EXPERIMENT.seed,
        settings=PLAN.pairs_flags,
        clinical=optional("clinical"),
        code=code_version("pairs"),
    shell:
        "microsr pairs --case {wildcards.case} --volume {input.volume} --index {input.index} --seed {params.seed}"
        " --output {output.scans} --table {output.table} {params.settings} {params.clinical} --log {log}"


rule measure_scanner:
    """Measure noise, streaks and slice profile of the clinical CTs, and warn where the settings say something else."""
    input:
        clinical=lambda wildcards: PLAN.volumes("clinical", PLAN.training_sets[PLAN.scanners[wildcards.scanner]]),
    output:
        table=report(
            ensure("<results>/tables/{scanner}.csv", non_empty=True),
            caption="../report/scanner_table.rst",
            category="Data",
            labels=lambda wildcards: {"what": f"scanner, {PLAN.scanners[wildcards.scanner]}, table"},
        ),
        run="<results>/tables/{scanner}.run.json",
    log:
        "<logs>/{scanner}.log",
    wildcard_constraints:
        scanner=any_of(PLAN.scanners),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(2000),
        runtime=more_each_time(30),
    params:
        settings=PLAN.measured_flags,
        code=code_version("scanner"),
    shell:
        "microsr scanner {input.clinical} --output {output.table} {params.settings} --log {log}"


rule check_domain:
    """Compare clinical patches with average-pooled uCT patches, and warn if a network would learn the difference."""
    input:
        clinical=lambda wildcards: PLAN.patches("clinical", PLAN.domains[wildcards.domain]),
        micro=lambda wildcards: PLAN.patches("micro", PLAN.domains[wildcards.domain]),
    output:
        table=report(
            ensure("<results>/tables/{domain}.csv", non_empty=True),
            caption="../report/domain_table.rst",
            category="Data",
            labels=lambda wildcards: {"what": f"domain check, {PLAN.domains[wildcards.domain]}, table"},
        ),
        run="<results>/tables/{domain}.run.json",
    log:
        "<logs>/{domain}.log",
    wildcard_constraints:
        domain=any_of(PLAN.domains),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(2000),
        runtime=more_each_time(30),
    params:
        settings=PLAN.domain_flags,
        code=code_version("domain"),
    shell:
        "microsr domain --clinical {input.clinical} --micro {input.micro} --output {output.table} {params.settings}"
        " --log {log}"
