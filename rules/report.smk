# One HTML file of the experiment, and the two figures that are made for it.
from microsr.report.provenance import changed_settings, page_version

REPORT = "<results>/report.html"


rule draw_calibration:
    """Draw the histogram of each uCT before and after its calibration."""
    input:
        micro=PLAN.volumes("micro", PLAN.calibrated_cases),
        clinical=PLAN.volumes("clinical", PLAN.calibrated_cases),
    output:
        **drawn("calibration", "calibration", "Data", "calibration of the uCT"),
    log:
        "<logs>/report/calibration.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(2000),
        runtime=more_each_time(30),
    params:
        stem=stem,
        code=code_version("report.calibration"),
    shell:
        "microsr report calibration --micro {input.micro} --clinical {input.clinical}"
        " --output {params.stem} --log {log}"


rule draw_panels:
    """Draw what the trainings made of the same patches as they went on, before their states are deleted."""
    input:
        runs=[f"<results>/models/{model}/run.json" for model in PLAN.sampled_models.values()],
    output:
        **drawn("panels", "panels", "Training", "sample panels"),
    log:
        "<logs>/report/panels.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(2000),
        runtime=more_each_time(30),
    params:
        runs=[f"{method}={RESULTS}/models/{model}/run.json" for method, model in PLAN.sampled_models.items()],
        states=[f"{method}={RESULTS}/.state/{model}" for method, model in PLAN.sampled_models.items()],
        stem=stem,
        code=code_version("report.panels"),
    shell:
        "microsr report panels --runs {params.runs} --states {params.states} --output {params.stem} --log {log}"


rule write_report:
    """Put the comparison to look into, the tables and the figures into one HTML file."""
    input:
        views=[
            f"<results>/{volume}.ome.zarr"
            for name in PLAN.viewed_comparisons
            for volume in PLAN.volumes_viewed(name).values()
        ],
        records=[f"<results>/figures/{name}.run.json" for name in PLAN.viewed_comparisons],
        figures=[file for file in DRAWINGS.files if file.endswith(".png")],
        volumes="<results>/tables/volumes.csv",
        summary="<results>/tables/summary.csv",
    output:
        html=ensure(REPORT, non_empty=True),
        run=f"{REPORT}.run.json",
    log:
        "<logs>/report/page.log",
    benchmark:
        "<benchmarks>/report.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_time(3000),
        runtime=more_each_time(60),
    params:
        name=EXPERIMENT.experiment,
        note=f"--note {shlex.quote(EXPERIMENT.note)}" if EXPERIMENT.note else "",
        views=PLAN.view_words,
        more=len(PLAN.comparisons) - len(PLAN.viewed_comparisons),
        window="{:g} {:g}".format(*EXPERIMENT.figures.display_window_hu),
        settings=shlex.join(changed_settings(EXPERIMENT)),
        captions=os.path.relpath(WORKFLOW / "report"),
        code=f"{code_version('report')} {page_version()}",
    shell:
        "microsr report page --experiment {params.name} {params.note} {params.views} --more_views {params.more}"
        " --figures {input.figures} --volumes {input.volumes} --summary {input.summary} --captions {params.captions:q}"
        " --window {params.window} --settings {params.settings} --output {output.html} --log {log}"
