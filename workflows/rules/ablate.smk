# Which objective is worth its operations: `snakemake --profile local ablate --config study=...`.


wildcard_constraints:
    trial="[^/@]+",


rule budget:
    input:
        flow.made("preprocess"),
        study=flow.study_file("budget"),
    output:
        **flow.outputs("budget"),
    log:
        flow.log("budget"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        **flow.needs("budget"),
    params:
        reads=flow.reads("budget"),
    shell:
        flow.command("budget")


rule pretrain_trial:
    input:
        flow.made("preprocess"),
        flow.made("budget"),
        flow.start(),
        study=flow.trial.study_file("pretrain"),
    output:
        **flow.trial.outputs("pretrain"),
    log:
        flow.trial.log("pretrain"),
    conda:
        "../envs/pipeline.yaml"
    threads: flow.threads("pretrain")
    resources:
        **flow.trial.needs("pretrain"),
        where=flow.where,
    params:
        reads=flow.trial.reads("pretrain"),
    shell:
        flow.trial.command("pretrain")


rule probe_trial:
    input:
        flow.made("preprocess"),
        flow.trained,
        study=flow.trial.study_file("probe"),
    output:
        **flow.trial.outputs("probe"),
    log:
        flow.trial.log("probe"),
    conda:
        "../envs/pipeline.yaml"
    threads: flow.threads("probe")
    resources:
        **flow.trial.needs("probe"),
        where=flow.where,
    params:
        reads=flow.trial.reads("probe"),
    shell:
        flow.trial.command("probe")


rule finetune_trial:
    input:
        flow.made("preprocess"),
        flow.trained,
        study=flow.trial.study_file("finetune"),
    output:
        **flow.trial.outputs("finetune"),
    log:
        flow.trial.log("finetune"),
    conda:
        "../envs/pipeline.yaml"
    threads: flow.threads("finetune")
    resources:
        **flow.trial.needs("finetune"),
        where=flow.where,
    params:
        reads=flow.trial.reads("finetune"),
    shell:
        flow.trial.command("finetune")


rule ablate:
    input:
        flow.made("budget") if flow.study.ablate else [],
        flow.ablation(),
        study=flow.study_file("ablate"),
    output:
        **flow.outputs("ablate"),
    log:
        flow.log("ablate"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        **flow.needs("ablate"),
    params:
        reads=flow.reads("ablate"),
    shell:
        flow.command("ablate")
