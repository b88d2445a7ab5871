# Simulated lungs with a known truth: the cases of an experiment that has no sheet, and the lung that every experiment
# has for its tissue labels.


rule simulate_training_case:
    """Make a lung, its clinical CT and the uCT of a specimen cut from it."""
    output:
        clinical=ensure("<results>/simulated/{case}/clinical.nii.gz", non_empty=True),
        dicom=directory("<results>/simulated/{case}/dicom"),
        micro=ensure("<results>/simulated/{case}/micro.nii.gz", non_empty=True),
        run="<results>/simulated/{case}/run.json",
    log:
        "<logs>/simulate/{case}.log",
    benchmark:
        "<benchmarks>/simulate/{case}.tsv"
    wildcard_constraints:
        case=any_of(set(PLAN.training_cases) - set(PLAN.known_by_simulation)),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(2500),
        runtime=more_each_time(30),
    params:
        seed=EXPERIMENT.seed,
        settings=lambda wildcards: PLAN.simulation_flags(wildcards.case),
        code=code_version("simulate"),
        folder=subpath(output.run, parent=True),
        split="train",
    shell:
        "microsr simulate --case {wildcards.case} --split {params.split} --seed {params.seed}"
        " --output {params.folder} {params.settings} --log {log}"


use rule simulate_training_case as simulate_test_case with:
    output:
        clinical=ensure("<results>/simulated/{case}/clinical.nii.gz", non_empty=True),
        dicom=directory("<results>/simulated/{case}/dicom"),
        micro=ensure("<results>/simulated/{case}/micro.nii.gz", non_empty=True),
        truth=ensure("<results>/simulated/{case}/truth.nii.gz", non_empty=True),
        thick_truth=ensure("<results>/simulated/{case}/thick_truth.nii.gz", non_empty=True),
        noise_free=ensure("<results>/simulated/{case}/noise_free.nii.gz", non_empty=True),
        labels=ensure("<results>/simulated/{case}/labels.nii.gz", non_empty=True),
        repeat=ensure("<results>/simulated/{case}/repeat.nii.gz", non_empty=True),
        airways=ensure("<results>/simulated/{case}/airways.csv", non_empty=True),
        run="<results>/simulated/{case}/run.json",
    wildcard_constraints:
        case=any_of(PLAN.known_by_simulation),
    params:
        seed=EXPERIMENT.seed,
        settings=lambda wildcards: PLAN.simulation_flags(wildcards.case),
        code=code_version("simulate"),
        folder=subpath(output.run, parent=True),
        split=lambda wildcards: PLAN.simulated_as(wildcards.case),


use rule simulate_training_case as cut_again with:
    output:
        micro=ensure("<results>/simulated/{case}/micro.nii.gz", non_empty=True),
        run="<results>/simulated/{case}/run.json",
    wildcard_constraints:
        case=any_of(case for cases in PLAN.further_specimens.values() for case in cases),
    params:
        seed=EXPERIMENT.seed,
        settings=lambda wildcards: (
            f"--lung {PLAN.scanned_lung(wildcards.case)} {PLAN.simulation_flags(wildcards.case)}"
        ),
        code=code_version("simulate"),
        folder=subpath(output.run, parent=True),
        split="train",


rule scan_again:
    """Scan the lung of a test case with another scanner; what is known of the lung stays."""
    output:
        clinical=ensure("<results>/simulated/{case}/clinical.nii.gz", non_empty=True),
        noise_free=ensure("<results>/simulated/{case}/noise_free.nii.gz", non_empty=True),
        run="<results>/simulated/{case}/run.json",
    log:
        "<logs>/simulate/{case}.log",
    benchmark:
        "<benchmarks>/simulate/{case}.tsv"
    wildcard_constraints:
        case=any_of(case for cases in PLAN.conditions.values() for case in cases),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(2500),
        runtime=more_each_time(30),
    params:
        lung=lambda wildcards: PLAN.scanned_lung(wildcards.case),
        seed=EXPERIMENT.seed,
        settings=lambda wildcards: PLAN.simulation_flags(wildcards.case),
        code=code_version("simulate"),
        folder=subpath(output.run, parent=True),
    shell:
        "microsr simulate --case {wildcards.case} --lung {params.lung} --split test --seed {params.seed}"
        " --output {params.folder} {params.settings} --log {log}"
