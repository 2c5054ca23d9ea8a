# From raw scans to a list of scans with splits and a store of preprocessed volumes.


rule download:
    output:
        **flow.outputs("download"),
    log:
        flow.log_file("download"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        **flow.resources("download"),
    params:
        config_hash=flow.config_hash("download"),
        which=flow.which("download"),
    shell:
        flow.command("download")


rule inventory:
    input:
        flow.manifest("download") if flow.study.download.packages else [],
    output:
        **flow.outputs("inventory"),
    log:
        flow.log_file("inventory"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        **flow.resources("inventory"),
    params:
        config_hash=flow.config_hash("inventory"),
        which=flow.which("inventory"),
        raw_listing=flow.raw_listing_hash(),
        decisions=flow.decisions_hash(),
        returned_labels=flow.returned_labels_hash(),
    shell:
        flow.command("inventory")


rule inventory_page:
    input:
        flow.manifest("inventory"),
    output:
        **flow.outputs("inventory_page"),
    log:
        flow.log_file("inventory_page"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        **flow.resources("inventory_page"),
    params:
        config_hash=flow.config_hash("inventory_page"),
        which=flow.which("inventory_page"),
    shell:
        flow.command("inventory_page")


rule reviewed:
    input:
        flow.manifest("inventory"),
    output:
        **flow.outputs("reviewed"),
    log:
        flow.log_file("reviewed"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        **flow.resources("reviewed"),
    params:
        config_hash=flow.config_hash("reviewed"),
        which=flow.which("reviewed"),
        log=flow.review_log_hash(),
    shell:
        flow.command("reviewed")


rule preprocess:
    input:
        flow.manifest("download") if flow.study.download.packages else [],
        flow.manifest("inventory"),
        flow.review_manifest(),
    output:
        **flow.outputs("preprocess"),
    log:
        flow.log_file("preprocess"),
    conda:
        "../envs/pipeline.yaml"
    threads: flow.threads("preprocess")
    resources:
        **flow.resources("preprocess"),
        run_on=flow.run_on,
    params:
        config_hash=flow.config_hash("preprocess"),
        which=flow.which("preprocess"),
    shell:
        flow.command("preprocess")
