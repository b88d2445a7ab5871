# Clinical CT (and what is treated as such) to uCT scale, by every method alike: by one job a volume, or by several.

PARTS = EXPERIMENT.compute.parts
ONE_IMAGE = any_of(method for method in [*METHODS, *REFERENCES] if method not in PLAN.means)
BESIDE_MEAN = ["sd", "solid"]
KEPT_OF_CASES = [*BESIDE_MEAN, *PLAN.kept_with_mean]
AGAIN = any_of(scan for scan in PLAN.scans if scan not in CASES)

if PARTS == 1:

    rule superresolve:
        """Magnify the chosen slices of a clinical CT in-plane, with a trained generator or by interpolation."""
        input:
            volume=lambda wildcards: PLAN.scan_volume(wildcards.method, wildcards.scan),
            model=lambda wildcards: PLAN.generator(wildcards.method, wildcards.training_set),
            known=lambda wildcards: PLAN.known_volume(wildcards.method, wildcards.scan),
        output:
            volume=directory("<results>/superresolved/{method}/{training_set}/{scan}.ome.zarr"),
            run="<results>/superresolved/{method}/{training_set}/{scan}.run.json",
        log:
            "<logs>/superresolve/{method}/{training_set}/{scan}.log",
        benchmark:
            "<benchmarks>/superresolve/{method}/{training_set}/{scan}.tsv"
        wildcard_constraints:
            method=ONE_IMAGE,
        conda:
            NETWORK_ENVIRONMENT
        threads: EXPERIMENT.compute.threads
        resources:
            mem_mb=more_each_time(3000),
            runtime=growing(60, per_gigabyte=1000),
            gpu=GPU,
        params:
            upsampler=upsampler,
            settings=lambda wildcards: PLAN.superresolve_flags(wildcards.scan, wildcards.method),
            compute=compute_flags(without=OF_TRAINING),
            code=code_version("superresolve"),
        shell:
            "microsr superresolve {input.volume} {params.upsampler} --output {output.volume}"
            " {params.settings} {params.compute} --log {log}"

    use rule superresolve as superresolve_draws with:
        output:
            **with_draws("<results>/superresolved/{method}/{training_set}/{scan}", KEPT_OF_CASES),
        wildcard_constraints:
            method=any_of(PLAN.means),
            scan=any_of(CASES),

    use rule superresolve_draws as superresolve_draws_again with:
        output:
            **with_draws("<results>/superresolved/{method}/{training_set}/{scan}", BESIDE_MEAN),
        wildcard_constraints:
            method=any_of(PLAN.means),
            scan=AGAIN,

else:

    rule superresolve_part:
        """Magnify one of several blocks of the chosen slices."""
        input:
            volume=lambda wildcards: PLAN.scan_volume(wildcards.method, wildcards.scan),
            model=lambda wildcards: PLAN.generator(wildcards.method, wildcards.training_set),
            known=lambda wildcards: PLAN.known_volume(wildcards.method, wildcards.scan),
        output:
            volume=temp(directory("<results>/superresolved/{method}/{training_set}/{scan}.part{part}.ome.zarr")),
            run=temp("<results>/superresolved/{method}/{training_set}/{scan}.part{part}.run.json"),
        log:
            "<logs>/superresolve/{method}/{training_set}/{scan}.part{part}.log",
        benchmark:
            "<benchmarks>/superresolve/{method}/{training_set}/{scan}.part{part}.tsv"
        wildcard_constraints:
            method=ONE_IMAGE,
            part=r"\d+",
        conda:
            NETWORK_ENVIRONMENT
        threads: EXPERIMENT.compute.threads
        resources:
            mem_mb=more_each_time(3000),
            runtime=growing(60, per_gigabyte=1000),
            gpu=GPU,
        params:
            upsampler=upsampler,
            settings=lambda wildcards: PLAN.superresolve_flags(wildcards.scan, wildcards.method),
            compute=compute_flags(without=OF_TRAINING),
            code=code_version("superresolve"),
        shell:
            "microsr superresolve {input.volume} {params.upsampler} --output {output.volume} --part {wildcards.part}"
            " {params.settings} {params.compute} --log {log}"

    use rule superresolve_part as superresolve_draws_part with:
        output:
            **with_draws("<results>/superresolved/{method}/{training_set}/{scan}.part{part}", KEPT_OF_CASES, temp),
        wildcard_constraints:
            method=any_of(PLAN.means),
            scan=any_of(CASES),
            part=r"\d+",

    use rule superresolve_draws_part as superresolve_draws_again_part with:
        output:
            **with_draws("<results>/superresolved/{method}/{training_set}/{scan}.part{part}", BESIDE_MEAN, temp),
        wildcard_constraints:
            method=any_of(PLAN.means),
            scan=AGAIN,
            part=r"\d+",

    rule gather:
        """Put the blocks of slices together: the volume that one job would have made."""
        input:
            parts=expand(
                "<results>/superresolved/{{method}}/{{training_set}}/{{scan}}.part{part}.ome.zarr",
                part=range(1, PARTS + 1),
            ),
            runs=expand(
                "<results>/superresolved/{{method}}/{{training_set}}/{{scan}}.part{part}.run.json",
                part=range(1, PARTS + 1),
            ),
        output:
            volume=directory("<results>/superresolved/{method}/{training_set}/{scan}.ome.zarr"),
            run="<results>/superresolved/{method}/{training_set}/{scan}.run.json",
        log:
            "<logs>/superresolve/{method}/{training_set}/{scan}.log",
        conda:
            NETWORK_ENVIRONMENT
        resources:
            mem_mb=more_each_time(1500),
            runtime=more_each_time(60),
        params:
            code=code_version("gather"),
        shell:
            "microsr gather {input.parts} --output {output.volume} --log {log}"

    use rule gather as gather_draws with:
        input:
            parts=expand(
                "<results>/superresolved/{{method}}/{{training_set}}/{{scan}}.part{part}_{{held}}.ome.zarr",
                part=range(1, PARTS + 1),
            ),
            runs=expand(
                "<results>/superresolved/{{method}}/{{training_set}}/{{scan}}.part{part}_{{held}}.run.json",
                part=range(1, PARTS + 1),
            ),
        output:
            volume=directory("<results>/superresolved/{method}/{training_set}/{scan}_{held}.ome.zarr"),
            run="<results>/superresolved/{method}/{training_set}/{scan}_{held}.run.json",
        log:
            "<logs>/superresolve/{method}/{training_set}/{scan}_{held}.log",
        wildcard_constraints:
            method=any_of(PLAN.means),
            held=any_of(KEPT_OF_CASES),


rule export:
    """Give a super-resolved volume in another format, for the programs that do not read OME-Zarr."""
    input:
        volume="<results>/superresolved/{method}/{training_set}/{scan}.ome.zarr",
    output:
        file="<results>/superresolved/{method}/{training_set}/{scan}{ending}",
        run="<results>/superresolved/{method}/{training_set}/{scan}{ending}.run.json",
    log:
        "<logs>/export/{method}/{training_set}/{scan}{ending}.log",
    wildcard_constraints:
        ending=any_of(ENDINGS.values()),
    conda:
        NETWORK_ENVIRONMENT
    resources:
        mem_mb=more_each_time(1500),
        runtime=growing(15, per_gigabyte=30),
    params:
        code=code_version("export"),
    shell:
        "microsr export {input.volume} --output {output.file} --log {log}"


use rule export as export_dicom with:
    output:
        file=directory("<results>/superresolved/{method}/{training_set}/{scan}_dicom"),
        run="<results>/superresolved/{method}/{training_set}/{scan}_dicom.run.json",
    log:
        "<logs>/export/{method}/{training_set}/{scan}_dicom.log",
