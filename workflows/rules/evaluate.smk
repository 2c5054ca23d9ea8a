# What the encoder is worth, task by task.


rule probe:
    input:
        flow.made("preprocess"),
        flow.encoder(),
        study=flow.study_file("probe"),
    output:
        **flow.outputs("probe"),
    log:
        flow.log("probe"),
    conda:
        "../envs/pipeline.yaml"
    threads: flow.threads("probe")
    resources:
        **flow.needs("probe"),
        where=flow.where,
    params:
        reads=flow.reads("probe"),
    shell:
        flow.command("probe")


rule finetune:
    input:
        flow.made("preprocess"),
        flow.encoder(),
        study=flow.study_file("finetune"),
    output:
        **flow.outputs("finetune"),
    log:
        flow.log("finetune"),
    conda:
        "../envs/pipeline.yaml"
    threads: flow.threads("finetune")
    resources:
        **flow.needs("finetune"),
        where=flow.where,
    params:
        reads=flow.reads("finetune"),
    shell:
        flow.command("finetune")


rule robustness:
    input:
        flow.made("preprocess"),
        flow.encoder(),
        finetune=flow.pattern("finetune"),
        study=flow.study_file("robustness"),
    output:
        **flow.outputs("robustness"),
    log:
        flow.log("robustness"),
    conda:
        "../envs/pipeline.yaml"
    threads: flow.threads("robustness")
    resources:
        **flow.needs("robustness"),
        where=flow.where,
    params:
        reads=flow.reads("robustness"),
    shell:
        flow.command("robustness")
