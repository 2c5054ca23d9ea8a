# Pretraining of the encoder.


rule pretrain:
    input:
        flow.manifest("preprocess"),
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
        which=flow.which("pretrain"),
        init_weights=flow.init_weights_hash(),
    shell:
        flow.command("pretrain")
