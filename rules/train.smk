# Training of the modified CycleGAN.


rule train:
    """Train generators and discriminators on unpaired patches; the clinical-to-uCT generator is kept.

    The state of an unfinished training lies in .state, which Snakemake does not know of and so never deletes: a retry,
    or the same command after a kill, goes on where the last one stopped. The domain check comes first, so that its
    warning is read before the hours are spent; a new check does not train anew, unless the old table was deleted.
    """
    input:
        clinical=patches("clinical"),
        micro=patches("micro"),
        domain=ancient(domain_table),
    output:
        generator=ensure("<results>/models/{method}/{training_set}/generator.pt", non_empty=True),
        history=ensure("<results>/models/{method}/{training_set}/history.csv", non_empty=True),
        run="<results>/models/{method}/{training_set}/run.json",
    log:
        "<logs>/train/{method}/{training_set}.log",
    benchmark:
        "<benchmarks>/train/{method}/{training_set}.tsv"
    retries: 2
    conda:
        NETWORK_ENVIRONMENT
    threads: EXPERIMENT.compute.threads
    resources:
        mem_mb=megabytes(1, least=5000),
        runtime=lambda wildcards, attempt: attempt * 24 * 60,
        gpu=GPU,
    params:
        seed=lambda wildcards: seed_of(wildcards.training_set),
        window=WINDOW,
        settings=lambda wildcards: training_flags(wildcards.method),
        compute=compute_flags,
        code=code_version("train"),
        folder=subpath(output.generator, parent=True),
        state=f"{RESULTS}/.state/{{method}}/{{training_set}}",
    shell:
        "microsr train --clinical {input.clinical} --micro {input.micro}"
        " --output {params.folder} --state {params.state}"
        " --seed {params.seed} --window_hu {params.window} {params.settings} {params.compute} --log {log}"
