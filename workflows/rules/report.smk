# The report: one HTML page of all results of the study.


rule report:
    input:
        flow.manifest("inventory"),
        flow.review_manifest(),
        flow.manifest("preprocess"),
        flow.encoder_manifest(),
        flow.evaluation_manifests(),
        flow.finished_scaling(),
        flow.promotion_manifest(),
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
        which=flow.which("report"),
        encoders=flow.external_encoders_hash(),
    shell:
        flow.command("report")
