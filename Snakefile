# The whole workflow, from raw scans to an evaluated encoder and its report.
# `snakemake --profile local --config study=workflows/studies/demo.yaml`, or `--profile slurm` on a cluster.
from pathlib import Path

from snakemake.utils import min_version
from stages.core.workflow import Workflow

min_version("9.0")

flow = Workflow(config, workflow)


wildcard_constraints:
    **flow.wildcard_patterns,


include: "workflows/rules/data.smk"
include: "workflows/rules/pretrain.smk"
include: "workflows/rules/evaluate.smk"
include: "workflows/rules/promote.smk"
include: "workflows/rules/trials.smk"
include: "workflows/rules/report.smk"


rule all:
    default_target: True
    input:
        flow.manifest("inventory_page"),
        flow.manifest("report"),
    localrule: True


onsuccess:
    flow.print_report_location()


onerror:
    flow.print_remedy()
