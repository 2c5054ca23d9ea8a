# Pretraining of the encoder.


rule pretrain:
    input:
        flow.manifest("preprocess"),
        flow.init_weights(),
        study=flow.study_file("pretrain"),
    output:
        **flow.outputs("pretrain"),
    log:
        flow.log_file("pretrain"),
    conda:
        "../envs/pipeline.yaml"
    threads: flow.threads("pretrain")
    resources:
        **flow.resources("pretrain"),
        run_on=flow.run_on,
    params:
        config_hash=flow.config_hash("pretrain"),
    shell:
        flow.command("pretrain")
