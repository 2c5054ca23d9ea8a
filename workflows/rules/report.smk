# One page that tells all of it.


rule report:
    input:
        flow.made("inventory"),
        flow.made("preprocess"),
        flow.encoder(),
        flow.judgements(),
        study=flow.study_file("report"),
    output:
        **flow.outputs("report"),
        page=report(
            flow.folder / "report" / "report.html",
            caption="../report/page.rst",
            category="Report",
        ),
    log:
        flow.log("report"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        **flow.needs("report"),
    params:
        reads=flow.reads("report"),
    shell:
        flow.command("report")
