# Volumes into the working format: HU, geometry and masks. They come first: a scan that cannot be used, of a test case
# too, stops the workflow before the training.


rule import_clinical:
    """Read a clinical CT in HU with its geometry, and find the lung, or what else is looked at."""
    input:
        scan=scan("clinical"),
        mask=mask("clinical"),
    output:
        volume=directory("<results>/volumes/{case}/clinical.ome.zarr"),
        run="<results>/volumes/{case}/clinical.run.json",
    log:
        "<logs>/volumes/{case}/clinical.log",
    benchmark:
        "<benchmarks>/volumes/{case}/clinical.tsv"
    priority: 10
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(1500),
        runtime=growing(15, per_gigabyte=30),
    params:
        scan=lambda wildcards: PLAN.scan_flags(wildcards.case, "clinical"),
        mask=lambda wildcards: PLAN.mask_flags(wildcards.case, "clinical"),
        settings=flags(EXPERIMENT.volumes.clinical),
        shown=display_flags,
        code=code_version("volumes"),
    shell:
        "microsr volumes clinical --case {wildcards.case} {params.scan} {params.mask}"
        " --output {output.volume} {params.settings} {params.shown} --log {log}"


rule import_micro:
    """Read a uCT volume, calibrate it to the HU-like scale, match its pixel size and find the specimen."""
    input:
        scan=scan("micro"),
        like=lambda wildcards: PLAN.clinical_to_match(wildcards.case),
        mask=mask("micro"),
    output:
        volume=directory("<results>/volumes/{case}/micro.ome.zarr"),
        run="<results>/volumes/{case}/micro.run.json",
    log:
        "<logs>/volumes/{case}/micro.log",
    benchmark:
        "<benchmarks>/volumes/{case}/micro.tsv"
    priority: 10
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(1500),
        runtime=growing(15, per_gigabyte=30),
    params:
        scan=lambda wildcards: PLAN.scan_flags(wildcards.case, "micro"),
        like=optional("like"),
        mask=lambda wildcards: PLAN.mask_flags(wildcards.case, "micro"),
        settings=f"--scale {EXPERIMENT.scale} {flags(EXPERIMENT.volumes.micro)}",
        shown=display_flags,
        code=code_version("volumes"),
    shell:
        "microsr volumes micro --case {wildcards.case} {params.scan} {params.like} {params.mask}"
        " --output {output.volume} {params.settings} {params.shown} --log {log}"


use rule import_clinical as import_repeat with:
    input:
        scan=scan("repeat"),
        mask=mask("clinical"),
    output:
        volume=directory("<results>/volumes/{case}/repeat.ome.zarr"),
        run="<results>/volumes/{case}/repeat.run.json",
    log:
        "<logs>/volumes/{case}/repeat.log",
    benchmark:
        "<benchmarks>/volumes/{case}/repeat.tsv"
    params:
        scan=lambda wildcards: PLAN.scan_flags(wildcards.case, "repeat"),
        mask=lambda wildcards: PLAN.mask_flags(wildcards.case, "clinical"),
        settings=flags(EXPERIMENT.volumes.clinical),
        shown=display_flags,
        code=code_version("volumes"),


use rule import_clinical as import_noise_free with:
    input:
        scan=scan("noise_free"),
        mask=mask("clinical"),
    output:
        volume=directory("<results>/volumes/{case}/noise_free.ome.zarr"),
        run="<results>/volumes/{case}/noise_free.run.json",
    log:
        "<logs>/volumes/{case}/noise_free.log",
    benchmark:
        "<benchmarks>/volumes/{case}/noise_free.tsv"
    params:
        scan=lambda wildcards: PLAN.scan_flags(wildcards.case, "noise_free"),
        mask=lambda wildcards: PLAN.mask_flags(wildcards.case, "clinical"),
        settings=flags(EXPERIMENT.volumes.clinical),
        shown=display_flags,
        code=code_version("volumes"),


rule import_truth:
    """Read the truth of a test case, HU at uCT scale on the clinical slices (thin, or over the slice profile), or its
    tissue labels.
    """
    input:
        scan=lambda wildcards: scan(wildcards.known)(wildcards),
    output:
        volume=directory("<results>/volumes/{case}/{known}.ome.zarr"),
        run="<results>/volumes/{case}/{known}.run.json",
    log:
        "<logs>/volumes/{case}/{known}.log",
    wildcard_constraints:
        known="truth|thick_truth|labels",
        case=any_of(case for case in CASES if case not in PLAN.registered_cases),
    priority: 10
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(1500),
        runtime=growing(15, per_gigabyte=30),
    params:
        scan=lambda wildcards: PLAN.scan_flags(wildcards.case, wildcards.known),
        shown=display_flags,
        code=code_version("volumes"),
    shell:
        "microsr volumes {wildcards.known} --case {wildcards.case} {params.scan}"
        " --output {output.volume} {params.shown} --log {log}"


rule bring_in_specimen:
    """Bring a specimen's uCT into its clinical CT by a registration made elsewhere: the truth of a real case."""
    input:
        micro="<results>/volumes/{case}/micro.ome.zarr",
        clinical="<results>/volumes/{case}/clinical.ome.zarr",
        transform=lambda wildcards: CASES[wildcards.case].micro_to_clinical,
    output:
        truth=directory("<results>/volumes/{case}/truth.ome.zarr"),
        truth_run="<results>/volumes/{case}/truth.run.json",
        thick_truth=directory("<results>/volumes/{case}/thick_truth.ome.zarr"),
        thick_truth_run="<results>/volumes/{case}/thick_truth.run.json",
    log:
        "<logs>/volumes/{case}/truth.log",
    benchmark:
        "<benchmarks>/volumes/{case}/truth.tsv"
    wildcard_constraints:
        case=any_of(PLAN.registered_cases),
    priority: 10
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(2000),
        runtime=more_each_time(120),
    params:
        settings=lambda wildcards: f"--scale {EXPERIMENT.scale} {PLAN.scanner_flags(wildcards.case)}",
        code=code_version("volumes.registered"),
    shell:
        "microsr volumes registered --case {wildcards.case} --micro {input.micro} --clinical {input.clinical}"
        " --micro_to_clinical {input.transform} --output {output.truth} --thick_output {output.thick_truth}"
        " {params.settings} --log {log}"


rule downsample_micro:
    """Average-pool a held-out uCT into a clinical-like volume: input of the protocol `downsampled`."""
    input:
        micro="<results>/volumes/{case}/micro.ome.zarr",
    output:
        volume=directory("<results>/volumes/{case}/downsampled.ome.zarr"),
        run="<results>/volumes/{case}/downsampled.run.json",
    log:
        "<logs>/volumes/{case}/downsampled.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(2000),
        runtime=more_each_time(60),
    params:
        scale=EXPERIMENT.scale,
        code=code_version("volumes.downsample"),
    shell:
        "microsr volumes downsample --micro {input.micro} --scale {params.scale} --output {output.volume} --log {log}"


rule tabulate_volumes:
    """Put what the volumes' own headers say into one table (Table 1 of the paper)."""
    input:
        volumes=[*PLAN.volumes("clinical", PLAN.used_cases), *PLAN.volumes("micro", PLAN.used_cases)],
    output:
        table=report(
            "<results>/tables/volumes.csv",
            caption="../report/volumes.rst",
            category="Data",
            labels={"what": "volumes (Table 1)"},
        ),
        run="<results>/tables/volumes.run.json",
    log:
        "<logs>/volumes/table.log",
    conda:
        ENVIRONMENT
    params:
        code=code_version("volumes"),
    shell:
        "microsr volumes table --volumes {input.volumes} --output {output.table} --log {log}"
