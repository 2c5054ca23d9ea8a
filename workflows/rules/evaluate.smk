# Evaluation of the encoder on the tasks of the study.


rule probe:
    input:
        flow.manifest("preprocess"),
        flow.encoder_manifest(),
    output:
        **flow.outputs("probe"),
    log:
        flow.log_file("probe"),
    conda:
        "../envs/pipeline.yaml"
    threads: flow.threads("probe")
    resources:
        **flow.resources("probe"),
        run_on=flow.run_on,
    params:
        config_hash=flow.config_hash("probe"),
        which=flow.which("probe"),
        encoders=flow.external_encoders_hash(),
        features=flow.features_hash(),
    shell:
        flow.command("probe")


rule finetune:
    input:
        flow.manifest("preprocess"),
        flow.encoder_manifest(),
    output:
        **flow.outputs("finetune"),
    log:
        flow.log_file("finetune"),
    conda:
        "../envs/pipeline.yaml"
    threads: flow.threads("finetune")
    resources:
        **flow.resources("finetune"),
        run_on=flow.run_on,
    params:
        config_hash=flow.config_hash("finetune"),
        which=flow.which("finetune"),
        encoders=flow.external_encoders_hash(),
    shell:
        flow.command("finetune")


rule robustness:
    input:
        flow.manifest("preprocess"),
        flow.encoder_manifest(),
        finetune=flow.manifest_pattern("finetune"),
    output:
        **flow.outputs("robustness"),
    log:
        flow.log_file("robustness"),
    conda:
        "../envs/pipeline.yaml"
    threads: flow.threads("robustness")
    resources:
        **flow.resources("robustness"),
        run_on=flow.run_on,
    params:
        config_hash=flow.config_hash("robustness"),
        which=flow.which("robustness"),
        encoders=flow.external_encoders_hash(),
    shell:
        flow.command("robustness")
