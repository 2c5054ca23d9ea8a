# Raw volumes in: what there is, and what is stored of it.


rule sample:
    input:
        study=flow.study_file("sample"),
    output:
        **flow.outputs("sample"),
    log:
        flow.log("sample"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        **flow.needs("sample"),
    params:
        reads=flow.reads("sample"),
    shell:
        flow.command("sample")


rule inventory:
    input:
        flow.made("sample") if flow.study.sample.packages else [],
        study=flow.study_file("inventory"),
    output:
        **flow.outputs("inventory"),
    log:
        flow.log("inventory"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        **flow.needs("inventory"),
    params:
        reads=flow.reads("inventory"),
        listing=flow.listing(),
    shell:
        flow.command("inventory")


rule preprocess:
    input:
        flow.made("sample") if flow.study.sample.packages else [],
        flow.made("inventory"),
        study=flow.study_file("preprocess"),
    output:
        **flow.outputs("preprocess"),
    log:
        flow.log("preprocess"),
    conda:
        "../envs/pipeline.yaml"
    threads: flow.threads("preprocess")
    resources:
        **flow.needs("preprocess"),
        where=flow.where,
    params:
        reads=flow.reads("preprocess"),
    shell:
        flow.command("preprocess")
