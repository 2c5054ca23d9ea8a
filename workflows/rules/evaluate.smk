# Evaluation of the encoder on the tasks of the study.


rule probe:
    input:
        flow.manifest("preprocess"),
        flow.encoder_inputs(),
        study=flow.study_file("probe"),
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
    shell:
        flow.command("probe")


rule finetune:
    input:
        flow.manifest("preprocess"),
        flow.encoder_inputs(),
        study=flow.study_file("finetune"),
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
    shell:
        flow.command("finetune")


rule robustness:
    input:
        flow.manifest("preprocess"),
        flow.encoder_inputs(),
        finetune=flow.manifest_pattern("finetune"),
        study=flow.study_file("robustness"),
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
    shell:
        flow.command("robustness")
