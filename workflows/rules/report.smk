# The report: one HTML page of all results of the study.


rule report:
    input:
        flow.manifest("inventory"),
        flow.manifest("preprocess"),
        flow.encoder_inputs(),
        flow.evaluation_manifests(),
        study=flow.study_file("report"),
    output:
        **flow.outputs("report"),
        page=report(
            flow.folder / "report" / "report.html",
            caption="../report/page.rst",
            category="Report",
        ),
    log:
        flow.log_file("report"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        **flow.resources("report"),
    params:
        config_hash=flow.config_hash("report"),
    shell:
        flow.command("report")
