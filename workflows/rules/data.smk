# Raw volumes in: what there is, and what is stored of it.


rule sample:
    output:
        **flow.outputs("sample"),
    params:
        reads=flow.reads("sample"),
    log:
        flow.log("sample"),
    conda:
        "../envs/pipeline.yaml"
    shell:
        flow.command("sample")


rule inventory:
    input:
        flow.made("sample") if flow.study.sample.packages else [],
    output:
        **flow.outputs("inventory"),
    params:
        reads=flow.reads("inventory"),
        listing=flow.listing(),
    log:
        flow.log("inventory"),
    conda:
        "../envs/pipeline.yaml"
    shell:
        flow.command("inventory")


rule preprocess:
    input:
        flow.made("inventory"),
    output:
        **flow.outputs("preprocess"),
    params:
        reads=flow.reads("preprocess"),
    log:
        flow.log("preprocess"),
    threads: workflow.cores
    conda:
        "../envs/pipeline.yaml"
    shell:
        flow.command("preprocess")
