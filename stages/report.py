"""Tell on one page what went in, what was learned, what it is worth, and how to use it.

Titles are not among the sections read: a new one makes Snakemake rerun nothing. They are among the
inputs, so that the page gets them whenever the stage is asked for, as by `--forcerun report`.
"""

from pathlib import Path

from ssl_pipeline.atomic import sha256_json, write_text
from ssl_pipeline.evaluation.looks import read_looks
from ssl_pipeline.report.page import Source, write_page
from ssl_pipeline.report.text import text
from stages.contract import Made, manifest_hash
from stages.need import RECORDS, Known, Need, Place, assumed, counted
from stages.study import Study

PAGE_BYTES, TASK_BYTES = 350_000, 100_000
BASE_BYTES = 350e6
READS = ("name", "tasks", "evaluate.encoders")
AFTER = ("inventory", "preprocess", "pretrain")
VERSION = 2
MAKES = ("report.html", "report.md")


def inputs(study: Study) -> dict[str, str]:
    """What every stage before it made, and the titles."""
    hashes = {name: manifest_hash(study, name) for name in ("inventory", "preprocess")}
    if study.pretrains:
        hashes["pretrain"] = manifest_hash(study, "pretrain")
    for task in study.tasks:
        for name in study.judged_by(task):
            hashes[f"{name} {task}"] = manifest_hash(study, name, task=task)
            hashes[f"looks {name} {task}"] = sha256_json(
                read_looks(study.stage_folder(name, {"task": task}))
            )
    titles = [study.title, *(config.title for config in study.tasks.values())]
    return {**hashes, "titles": sha256_json(titles)}


def need(study: Study, known: Known, on: Place) -> Need:
    """One page, its pictures inside."""
    return Need(
        disk=assumed(PAGE_BYTES + TASK_BYTES * len(study.tasks), "a page with its pictures"),
        files=counted(RECORDS + len(MAKES), "the page, and its tables as text"),
        memory=assumed(BASE_BYTES, "pictures are made one by one"),
        seconds=assumed(10.0, "10 s a page"),
    )


def run(study: Study, out: Path) -> Made:
    """Write the page, and its tables as text."""
    page, tables = (out / name for name in MAKES)
    source = Source(
        folder=study.folder,
        name=study.name,
        title=study.title,
        tasks=study.tasks,
        config=study.public,
        label_file=study.origins.label,
        encoder=study.encoder if study.pretrains else None,
    )
    write_page(source, page)
    write_text(tables, text(source))
    return Made([page, tables], f"the page is {page}")
