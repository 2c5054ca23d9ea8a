# The encoder.


rule pretrain:
    input:
        flow.made("preprocess"),
        flow.start(),
        study=flow.study_file("pretrain"),
    output:
        **flow.outputs("pretrain"),
    log:
        flow.log("pretrain"),
    conda:
        "../envs/pipeline.yaml"
    threads: flow.threads("pretrain")
    resources:
        **flow.needs("pretrain"),
        where=flow.where,
    params:
        reads=flow.reads("pretrain"),
    shell:
        flow.command("pretrain")
