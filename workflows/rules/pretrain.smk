# The encoder.


rule pretrain:
    input:
        flow.made("preprocess"),
    output:
        **flow.outputs("pretrain"),
    params:
        reads=flow.reads("pretrain"),
    log:
        flow.log("pretrain"),
    threads: workflow.cores
    conda:
        "../envs/pipeline.yaml"
    shell:
        flow.command("pretrain")
