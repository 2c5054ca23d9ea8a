# What the encoder is worth, task by task.


rule probe:
    input:
        flow.made("preprocess"),
        flow.made("pretrain"),
    output:
        **flow.outputs("probe"),
    params:
        reads=flow.reads("probe"),
    log:
        flow.log("probe"),
    threads: workflow.cores
    conda:
        "../envs/pipeline.yaml"
    shell:
        flow.command("probe")


rule finetune:
    input:
        flow.made("preprocess"),
        flow.made("pretrain"),
    output:
        **flow.outputs("finetune"),
    params:
        reads=flow.reads("finetune"),
    log:
        flow.log("finetune"),
    threads: workflow.cores
    conda:
        "../envs/pipeline.yaml"
    shell:
        flow.command("finetune")
