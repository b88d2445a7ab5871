# Training of the methods.


rule train:
    """Train a method on its patches; its clinical-to-uCT generator is kept.

    The state of an unfinished training lies in .state, which Snakemake does not know of and so never deletes: a retry,
    or the same command after a kill, goes on where the last one stopped. The checks of domain and scanner come first,
    so that their warnings are read before the hours are spent; a new check does not train anew, unless the old table
    was deleted, or the method learns from the noise in it.
    Beside each file of patches the command reads its record, for the pixel size that the model is made for; it comes
    from the same job, and is no input here since Snakemake's time grows with their number.
    """
    input:
        clinical=patches("clinical"),
        micro=patches("micro"),
        scans=patches("scans"),
        scan_table=patches("scan_table"),
        scanner_table=patches("scanner_table"),
        checks=ancient(
            lambda wildcards: [
                table(wildcards.training_set)
                for table in (PLAN.domain_table, PLAN.scanner_table)
                if table(wildcards.training_set) not in PLAN.training_files(**wildcards, held="scanner_table")
            ]
        ),
    output:
        generator=ensure(PLAN.trained_models, non_empty=True),
        history=ensure("<results>/models/{method}/{training_set}/history.csv", non_empty=True),
        run="<results>/models/{method}/{training_set}/run.json",
    log:
        "<logs>/train/{method}/{training_set}.log",
    benchmark:
        "<benchmarks>/train/{method}/{training_set}.tsv"
    # Only by the process that submits: in a Slurm job, with the same memory and time left, it would be in vain.
    retries: EXPERIMENT.compute.retries if workflow.is_main_process else 0
    conda:
        NETWORK_ENVIRONMENT
    threads: EXPERIMENT.compute.threads * DEVICES
    resources:
        mem_mb=growing(5000 * DEVICES, per_gigabyte=1000 * DEVICES),
        runtime=24 * 60,  # of each attempt, as each goes on where the last one stopped
        gpu=GPU * DEVICES * NODES,
        # Which attempt this is: no parameter, so that it re-runs nothing.
        attempt=lambda wildcards, attempt: attempt,
        # One task a node, which the launcher starts by itself: to the Slurm executor, an MPI job.
        nodes=NODES if NODES > 1 else None,
        tasks=NODES if NODES > 1 else None,
        mpi="srun" if NODES > 1 else None,
    params:
        patches=optional("clinical", "micro", "scans", "scan_table", "scanner_table"),
        seed=lambda wildcards: PLAN.seed_of(wildcards.training_set),
        window="{} {}".format(*EXPERIMENT.window_hu),
        settings=lambda wildcards: PLAN.training_flags(wildcards.method),
        # Of the experiment's number of threads, though the job may have fewer, as many as Snakemake was given cores:
        # the weights depend on it in the last digits, and they must not depend on the machine's. Both functions ask
        # for `threads` so that Snakemake does not compare what they give.
        compute=lambda wildcards, threads: flags(EXPERIMENT.compute),
        launcher=lambda wildcards, threads: launcher(EXPERIMENT.compute),
        code=code_version("train"),
        folder=subpath(output.history, parent=True),
        state=f"{RESULTS}/.state/{{method}}/{{training_set}}",
    shell:
        "{params.launcher}microsr train {params.patches}"
        " --output {params.folder} --state {params.state}"
        " --seed {params.seed} --window_hu {params.window} {params.settings} {params.compute}"
        " --attempt {resources.attempt} --log {log}"


if PLAN.candidates > 1:

    rule choose_model:
        """Choose among the models kept of a training, by what they make of the validation cases."""
        input:
            candidates=PLAN.trained_models,
            volumes=[
                volume
                for case in PLAN.choosing_cases
                for volumes in PLAN.choosing_volumes(case).values()
                for volume in volumes
            ],
        output:
            generator=ensure("<results>/models/{method}/{training_set}/generator.pt", non_empty=True),
            generator_run="<results>/models/{method}/{training_set}/generator.run.json",
            table=ensure("<results>/models/{method}/{training_set}/choice.csv", non_empty=True),
            run="<results>/models/{method}/{training_set}/choice.run.json",
        log:
            "<logs>/choose/{method}/{training_set}.log",
        benchmark:
            "<benchmarks>/choose/{method}/{training_set}.tsv"
        conda:
            NETWORK_ENVIRONMENT
        threads: EXPERIMENT.compute.threads
        resources:
            mem_mb=more_each_time(3000),
            runtime=more_each_time(120),
            gpu=GPU,
        params:
            names=lambda wildcards: PLAN.model_words(wildcards.method, wildcards.training_set),
            cases=PLAN.choosing_words(),
            settings=f"{PLAN.evaluation_flags} {flags(EXPERIMENT.scanner_of())} "
            + flags(EXPERIMENT.superresolve, without=["formats", "draws"]),
            compute=compute_flags(without=OF_TRAINING),
            code=code_version("evaluate.choose"),
        shell:
            "microsr evaluate choose {params.names} --candidates {input.candidates} {params.cases}"
            " --output {output.generator} --table {output.table} {params.settings} {params.compute} --log {log}"

    rule tabulate_choices:
        """Put what each candidate of each training gave into one table."""
        input:
            tables=[f"<results>/models/{m}/{s}/choice.csv" for m, s in PLAN.trainings],
        output:
            table=report(
                "<results>/tables/choice.csv",
                caption="../report/choice.rst",
                category="Training",
                labels={"what": "models to choose from, table"},
            ),
            run="<results>/tables/choice.run.json",
        log:
            "<logs>/choose/table.log",
        conda:
            ENVIRONMENT
        params:
            code=code_version("evaluate.choices"),
        shell:
            "microsr evaluate choices --inputs {input.tables} --output {output.table} --log {log}"
