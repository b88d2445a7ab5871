# The paper's figures, and those that let a user judge a run: a rule a kind of figure, all of one form.
for KIND, FIGURE in FIGURES.items():
    if ".png" in FIGURE.endings:

        rule:
            name:
                f"draw_{KIND}"
            input:
                unpack(drawing(KIND, lambda one: dict(one.files))),
            output:
                **drawn("{figure}", KIND, FIGURE.category, lambda wildcards: DRAWINGS.title(wildcards.figure)),
                **drawn_table(KIND),
            log:
                "<logs>/figures/{figure}.log",
            wildcard_constraints:
                figure=any_of(DRAWINGS.by_kind[KIND]),
            conda:
                NETWORK_ENVIRONMENT if FIGURE.networks else ENVIRONMENT
            resources:
                mem_mb=more_each_time(FIGURE.memory_mb),
                runtime=more_each_time(30),
            params:
                figure=KIND,
                files=drawn_files(KIND),
                names=drawing(KIND, lambda one: dict(one.names)),  # in their order, which Snakemake does not compare
                words=drawing(KIND, lambda one: one.words),
                stem=stem,
                code=step_version(f"figures.{KIND}"),
            shell:
                "microsr figures {params.figure} {params.files} --output {params.stem} {params.words} --log {log}"


rule typeset_table:
    """Set a table for a paper, as LaTeX and Markdown."""
    input:
        table=lambda wildcards: f"<results>/tables/{TYPESET[wildcards.table]}.csv",
    output:
        tex=report(
            ensure("<results>/tables/{table}.tex", non_empty=True),
            caption="../report/typeset.rst",
            category="Tables for a paper",
            labels={"what": "{table}, LaTeX"},
        ),
        md=report(
            ensure("<results>/tables/{table}.md", non_empty=True),
            caption="../report/typeset.rst",
            category="Tables for a paper",
            labels={"what": "{table}, Markdown"},
        ),
        tex_run="<results>/tables/{table}.tex.run.json",
        md_run="<results>/tables/{table}.md.run.json",
    log:
        "<logs>/figures/typeset_{table}.log",
    wildcard_constraints:
        table=any_of(TYPESET),
    conda:
        ENVIRONMENT
    params:
        kind="{table}",
        stem=stem,
        code=step_version("figures.typeset"),
    shell:
        "microsr figures typeset --kind {params.kind} --table {input.table} --output {params.stem} --log {log}"


use rule typeset_table as typeset_condition with:
    input:
        table="<results>/tables/conditions/{condition}/summary.csv",
    output:
        tex=ensure("<results>/tables/conditions/{condition}/metrics.tex", non_empty=True),
        md=ensure("<results>/tables/conditions/{condition}/metrics.md", non_empty=True),
        tex_run="<results>/tables/conditions/{condition}/metrics.tex.run.json",
        md_run="<results>/tables/conditions/{condition}/metrics.md.run.json",
    log:
        "<logs>/figures/typeset_{condition}.log",
    wildcard_constraints:
        condition=any_of(PLAN.conditions),
    params:
        kind="metrics",
        stem=stem,
        code=step_version("figures.typeset"),
