# Clinical CT (and what is treated as such) to uCT scale, by every method alike.


rule superresolve:
    """Magnify the chosen slices of a clinical CT eight times in-plane, with a trained generator or by interpolation."""
    input:
        volume=lambda wildcards: "<results>/volumes/{}/{}.ome.zarr".format(*INPUTS[wildcards.scan]),
        model=generator,
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
        mem_mb=4000,
        runtime=8 * 60,
        gpu=GPU,
    params:
        upsampler=upsampler,
        settings=slices_to_superresolve,
        compute=compute_flags(),
        code=code_version("superresolve"),
    shell:
        "microsr superresolve --input {input.volume} {params.upsampler} --output {output.volume}"
        " {params.settings} {params.compute} --log {log}"
