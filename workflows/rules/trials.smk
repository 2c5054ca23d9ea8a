# Which objective earns its FLOPs, and what more pretraining has bought:
# `snakemake --profile local ablate --config study=...`, or `scaling`.


rule flop_budget:
    input:
        flow.manifest("preprocess"),
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
        which=flow.which("flop_budget"),
    shell:
        flow.command("flop_budget")


use rule pretrain as pretrain_trial with:
    input:
        flow.manifest("preprocess"),
        flow.budget_of_trial,
    output:
        **flow.trial.outputs("pretrain"),
    log:
        flow.trial.log_file("pretrain"),
    resources:
        **flow.trial.resources("pretrain"),
        run_on=flow.run_on,
    params:
        config_hash=flow.trial.config_hash("pretrain"),
        which=flow.trial.which("pretrain"),
        init_weights=flow.init_weights_hash(),


use rule probe as probe_trial with:
    input:
        flow.manifest("preprocess"),
        flow.encoder_of_trial,
    output:
        **flow.trial.outputs("probe"),
    log:
        flow.trial.log_file("probe"),
    resources:
        **flow.trial.resources("probe"),
        run_on=flow.run_on,
    params:
        config_hash=flow.trial.config_hash("probe"),
        which=flow.trial.which("probe"),
        encoders=flow.external_encoders_hash(),


use rule finetune as finetune_trial with:
    input:
        flow.manifest("preprocess"),
        flow.encoder_of_trial,
    output:
        **flow.trial.outputs("finetune"),
    log:
        flow.trial.log_file("finetune"),
    resources:
        **flow.trial.resources("finetune"),
        run_on=flow.run_on,
    params:
        config_hash=flow.trial.config_hash("finetune"),
        which=flow.trial.which("finetune"),
        encoders=flow.external_encoders_hash(),


rule ablate:
    input:
        flow.manifest("flop_budget") if flow.study.ablate else [],
        flow.trial_manifests(flow.study.ablate),
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
        which=flow.which("ablate"),
    shell:
        flow.command("ablate")


rule scaling:
    input:
        flow.encoder_manifest(),
        flow.evaluation_manifests(),
        flow.trial_manifests(flow.study.scaling),
    output:
        **flow.outputs("scaling"),
    log:
        flow.log_file("scaling"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        **flow.resources("scaling"),
    params:
        config_hash=flow.config_hash("scaling"),
        which=flow.which("scaling"),
    shell:
        flow.command("scaling")
