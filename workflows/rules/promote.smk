# Whether the encoder replaces the champion of a registry: `snakemake --profile local promote --config study=...`.


rule promote:
    input:
        flow.manifest("preprocess"),
        flow.encoder_manifest(),
        flow.evaluation_manifests(),
    output:
        **flow.outputs("promote"),
    log:
        flow.log_file("promote"),
    conda:
        "../envs/pipeline.yaml"
    threads: flow.threads("promote")
    resources:
        **flow.resources("promote"),
        run_on=flow.run_on,
    params:
        config_hash=flow.config_hash("promote"),
        which=flow.which("promote"),
        encoders=flow.external_encoders_hash(),
    shell:
        flow.command("promote")
