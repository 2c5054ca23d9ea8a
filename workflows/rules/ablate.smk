# Which objective earns its FLOPs: `snakemake --profile local ablate --config study=...`.


wildcard_constraints:
    trial="[^/@]+",


rule flop_budget:
    input:
        flow.manifest("preprocess"),
        study=flow.study_file("flop_budget"),
    output:
        **flow.outputs("flop_budget"),
    log:
        flow.log_file("flop_budget"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        **flow.resources("flop_budget"),
    params:
        config_hash=flow.config_hash("flop_budget"),
    shell:
        flow.command("flop_budget")


rule pretrain_trial:
    input:
        flow.manifest("preprocess"),
        flow.manifest("flop_budget"),
        flow.init_weights(),
        study=flow.trial.study_file("pretrain"),
    output:
        **flow.trial.outputs("pretrain"),
    log:
        flow.trial.log_file("pretrain"),
    conda:
        "../envs/pipeline.yaml"
    threads: flow.threads("pretrain")
    resources:
        **flow.trial.resources("pretrain"),
        run_on=flow.run_on,
    params:
        config_hash=flow.trial.config_hash("pretrain"),
    shell:
        flow.trial.command("pretrain")


rule probe_trial:
    input:
        flow.manifest("preprocess"),
        flow.encoder_of_trial,
        study=flow.trial.study_file("probe"),
    output:
        **flow.trial.outputs("probe"),
    log:
        flow.trial.log_file("probe"),
    conda:
        "../envs/pipeline.yaml"
    threads: flow.threads("probe")
    resources:
        **flow.trial.resources("probe"),
        run_on=flow.run_on,
    params:
        config_hash=flow.trial.config_hash("probe"),
    shell:
        flow.trial.command("probe")


rule finetune_trial:
    input:
        flow.manifest("preprocess"),
        flow.encoder_of_trial,
        study=flow.trial.study_file("finetune"),
    output:
        **flow.trial.outputs("finetune"),
    log:
        flow.trial.log_file("finetune"),
    conda:
        "../envs/pipeline.yaml"
    threads: flow.threads("finetune")
    resources:
        **flow.trial.resources("finetune"),
        run_on=flow.run_on,
    params:
        config_hash=flow.trial.config_hash("finetune"),
    shell:
        flow.trial.command("finetune")


rule ablate:
    input:
        flow.manifest("flop_budget") if flow.study.ablate else [],
        flow.trial_manifests(),
        study=flow.study_file("ablate"),
    output:
        **flow.outputs("ablate"),
    log:
        flow.log_file("ablate"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        **flow.resources("ablate"),
    params:
        config_hash=flow.config_hash("ablate"),
    shell:
        flow.command("ablate")
