# Clinical CT of cases that have uCT alone, made by scanning it with the simulated clinical scanner (scan.micro).


rule scan_training_case:
    """Scan the uCT of a training case as a clinical scanner would."""
    input:
        micro=scan("micro"),
        mask=mask("micro"),
    output:
        clinical=ensure("<results>/scanned/{case}/clinical.nii.gz", non_empty=True),
        run="<results>/scanned/{case}/clinical.nii.gz.run.json",
    log:
        "<logs>/scan/{case}.log",
    benchmark:
        "<benchmarks>/scan/{case}.tsv"
    wildcard_constraints:
        case=any_of(set(PLAN.scanned_cases) & set(PLAN.training_cases)),
    priority: 10
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(1500),
        runtime=growing(15, per_gigabyte=30),
    params:
        seed=EXPERIMENT.seed,
        scan=lambda wildcards: PLAN.micro_scan_words(wildcards.case),
        code=code_version("scan"),
    shell:
        "microsr scan {params.scan} --case {wildcards.case} --seed {params.seed}"
        " --output {output.clinical} --log {log}"


rule scan_test_case:
    """The same of a case that is tested on, with what is known of it: the truth, thin and thick, and the scan before
    its noise.
    """
    input:
        micro=scan("micro"),
        mask=mask("micro"),
    output:
        clinical=ensure("<results>/scanned/{case}/clinical.nii.gz", non_empty=True),
        truth=ensure("<results>/scanned/{case}/truth.nii.gz", non_empty=True),
        thick_truth=ensure("<results>/scanned/{case}/thick_truth.nii.gz", non_empty=True),
        noise_free=ensure("<results>/scanned/{case}/noise_free.nii.gz", non_empty=True),
        runs=expand(
            "<results>/scanned/{{case}}/{name}.nii.gz.run.json",
            name=["clinical", "truth", "thick_truth", "noise_free"],
        ),
    log:
        "<logs>/scan/{case}.log",
    benchmark:
        "<benchmarks>/scan/{case}.tsv"
    wildcard_constraints:
        case=any_of(set(PLAN.scanned_cases) - set(PLAN.training_cases)),
    priority: 10
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(1500),
        runtime=growing(15, per_gigabyte=30),
    params:
        seed=EXPERIMENT.seed,
        scan=lambda wildcards: PLAN.micro_scan_words(wildcards.case),
        code=code_version("scan"),
    shell:
        "microsr scan {params.scan} --case {wildcards.case} --seed {params.seed} --output {output.clinical}"
        " --truth {output.truth} --thick_truth {output.thick_truth} --noise_free {output.noise_free} --log {log}"
