"""Write the report: one page of the dataset, pretraining, evaluations, and use of the encoder.

Titles are not among the settings read: a new one makes Snakemake rerun nothing. They are among the
inputs, so that the page gets them whenever the stage is asked for, as by `--forcerun report`.
"""

from pathlib import Path

from ssl_pipeline.io.atomic import sha256_json, write_text
from ssl_pipeline.report.data.report_data import ReportData
from ssl_pipeline.report.html_report import render_report
from ssl_pipeline.report.markdown_report import render_markdown_report
from ssl_pipeline.report.sections.task import task_sections
from ssl_pipeline.volumes.label_versions import describe_label_changes, read_label_versions
from stages.core.layout import REPORT_PAGE, REPORT_TABLES, label_versions
from stages.core.records import manifest_hash, up_to_date_record
from stages.core.resources import (
    RECORD_FILE_COUNT,
    DatasetSize,
    Hardware,
    ResourceEstimate,
    assumed,
    counted,
)
from stages.core.stage import StageResult, load_stages
from stages.core.stage_runs import StageRun, evaluation_runs
from stages.core.study import Study
from stages.evaluation_inputs import access_records

PAGE_BYTES, TASK_BYTES = 350_000, 100_000
BASE_BYTES = 350e6
TITLE = "Write the report, one page of all results"
CONFIG_KEYS = ("name", "tasks", "evaluate.encoders")
DEPENDS_ON = (
    *("inventory", "reviewed", "preprocess", "pretrain", "probe", "finetune", "robustness"),
    *("promote", "scaling"),
)
VERSION = 9
OUTPUTS = (REPORT_PAGE, REPORT_TABLES)
WILDCARDS: tuple[str, ...] = ()
USES_GPU, USES_WORKERS, DISTRIBUTED = False, False, False
SHARDED, PER_TRIAL = False, False


def is_needed(study: Study) -> bool:
    """Always."""
    return True


def inputs(study: Study) -> dict[str, str]:
    """Hashes of all stages before it, of test-set accesses and titles; which are out of date."""
    first = ("inventory", *(("reviewed",) if study.review else ()), "preprocess")
    hashes = {name: manifest_hash(study, name) for name in first}
    if study.has_pretraining:
        hashes["pretrain"] = manifest_hash(study, "pretrain")
    if study.promote:
        hashes["promote"] = manifest_hash(study, "promote")
    for run in evaluation_runs(study):
        name = " ".join([run.stage, *run.wildcards.values()])
        hashes[name] = manifest_hash(study, run.stage, **run.wildcards)
        hashes[f"test access {name}"] = sha256_json(access_records(run.out))
    scaling = StageRun(study, "scaling", {})
    if study.scaling and scaling.is_done:
        hashes["scaling"] = manifest_hash(study, "scaling")
    hashes["out of date"] = sha256_json(outdated_runs(study))
    titles = [study.title, *(config.title for config in study.tasks.values())]
    return {**hashes, "titles": sha256_json(titles)}


def outdated_runs(study: Study) -> tuple[str, ...]:
    """Runs whose outputs are of other settings, code or earlier stages than the present ones."""
    earlier = ("inventory", "preprocess", *(("pretrain",) if study.has_pretraining else ()))
    later = ("scaling",) if study.scaling else ()
    singles = (StageRun(study, name, {}) for name in (*earlier, *later))
    runs = [*singles, *evaluation_runs(study)]
    return tuple(
        run.name
        for run in runs
        if run.is_done and up_to_date_record(run.stage, study, run.wildcards) is None
    )


def estimate_resources(study: Study, dataset: DatasetSize, hardware: Hardware) -> ResourceEstimate:
    """One page, its images inside."""
    return ResourceEstimate(
        disk=assumed(PAGE_BYTES + TASK_BYTES * len(study.tasks), "a page with its images"),
        files=counted(RECORD_FILE_COUNT + len(OUTPUTS), "the page, and its tables as text"),
        memory=assumed(BASE_BYTES, "images are made one by one"),
        seconds=assumed(10.0, "10 s a page"),
    )


def run(study: Study, out: Path) -> StageResult:
    """Write the page, and its tables as text."""
    page, tables = (out / name for name in OUTPUTS)
    source = ReportData(
        folder=study.folder,
        name=study.name,
        title=study.title,
        tasks=study.tasks,
        config=study.redacted_config,
        label_file=study.pseudonyms.label_path,
        encoder=study.encoder if study.has_pretraining else None,
        stages=tuple(load_stages()),
        label_changes=describe_label_changes(read_label_versions(label_versions(study))),
        outdated=outdated_runs(study),
    )
    sections = task_sections(source)
    write_text(page, render_report(source, sections))
    write_text(tables, render_markdown_report(source, sections))
    return StageResult([page, tables], f"the page is {page}")
