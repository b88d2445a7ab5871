# Features by which distributions are compared.


rule learn_features:
    """Train a small network to tell the simulated tissues apart; its last layer describes a window of lung."""
    input:
        truth=f"<results>/simulated/{LABELLED}/truth.nii.gz",
        labels=f"<results>/simulated/{LABELLED}/labels.nii.gz",
    output:
        features=ensure("<results>/features/features.pt", non_empty=True),
        run="<results>/features/features.run.json",
    log:
        "<logs>/features.log",
    benchmark:
        "<benchmarks>/features.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(4000),
        runtime=more_each_time(60),
    params:
        seed=EXPERIMENT.seed,
        steps=EXPERIMENT.evaluate.feature_steps,
        code=code_version("features"),
    shell:
        "microsr features --truth {input.truth} --labels {input.labels} --output {output.features}"
        " --seed {params.seed} --feature_steps {params.steps} --log {log}"
