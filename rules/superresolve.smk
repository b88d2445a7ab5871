# Clinical CT (and what is treated as such) to uCT scale, by every method alike: by one job a volume, or by several.

PARTS = EXPERIMENT.compute.parts

if PARTS == 1:

    rule superresolve:
        """Magnify the chosen slices of a clinical CT eight times in-plane, with a trained generator or by
        interpolation."""
        input:
            volume=volume_to_superresolve,
            model=generator,
            known=known_volume,
        output:
            volume=directory("<results>/superresolved/{method}/{training_set}/{scan}.ome.zarr"),
            run="<results>/superresolved/{method}/{training_set}/{scan}.run.json",
        log:
            "<logs>/superresolve/{method}/{training_set}/{scan}.log",
        benchmark:
            "<benchmarks>/superresolve/{method}/{training_set}/{scan}.tsv"
        conda:
            NETWORK_ENVIRONMENT
        threads: EXPERIMENT.compute.threads
        resources:
            mem_mb=more_each_time(3000),
            runtime=growing(60, per_gigabyte=1000),
            gpu=GPU,
        params:
            upsampler=upsampler,
            settings=lambda wildcards: PLAN.superresolve_flags(wildcards.scan),
            compute=compute_flags(without=OF_TRAINING),
            code=code_version("superresolve"),
        shell:
            "microsr superresolve {input.volume} {params.upsampler} --output {output.volume}"
            " {params.settings} {params.compute} --log {log}"

else:

    rule superresolve_part:
        """Magnify one of several blocks of the chosen slices."""
        input:
            volume=volume_to_superresolve,
            model=generator,
            known=known_volume,
        output:
            volume=temp(directory("<results>/superresolved/{method}/{training_set}/{scan}.part{part}.ome.zarr")),
            run=temp("<results>/superresolved/{method}/{training_set}/{scan}.part{part}.run.json"),
        log:
            "<logs>/superresolve/{method}/{training_set}/{scan}.part{part}.log",
        benchmark:
            "<benchmarks>/superresolve/{method}/{training_set}/{scan}.part{part}.tsv"
        wildcard_constraints:
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
            settings=lambda wildcards: PLAN.superresolve_flags(wildcards.scan),
            compute=compute_flags(without=OF_TRAINING),
            code=code_version("superresolve"),
        shell:
            "microsr superresolve {input.volume} {params.upsampler} --output {output.volume} --part {wildcards.part}"
            " {params.settings} {params.compute} --log {log}"

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
