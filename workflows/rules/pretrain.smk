# The encoder.


rule pretrain:
    input:
        flow.made("preprocess"),
    output:
        **flow.outputs("pretrain"),
    log:
        flow.log("pretrain"),
    conda:
        "../envs/pipeline.yaml"
    threads: flow.threads("pretrain")
    resources:
        where=flow.where,
        **flow.needs("pretrain"),
    params:
        reads=flow.reads("pretrain"),
    shell:
        flow.command("pretrain")
