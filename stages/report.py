"""Tell on one page what went in, what was learned, what it is worth, and how to use it.

The title is not among the sections read: a new one reruns nothing, and heads the page when that is
next made for another reason.
"""

from pathlib import Path

from ssl_pipeline.report.page import Source, write_page
from stages.contract import Made, manifest_hash
from stages.need import RECORDS, Known, Need, Place, assumed, counted
from stages.study import Study

PAGE_BYTES, TASK_BYTES = 350_000, 100_000
BASE_BYTES = 350e6
READS = ("name", "tasks")
VERSION = 1


def inputs(study: Study) -> dict[str, str]:
    """What every stage before it made."""
    hashes = {name: manifest_hash(study, name) for name in ("inventory", "preprocess", "pretrain")}
    for task, config in study.tasks.items():
        for name in config.JUDGED_BY:
            hashes[f"{name} {task}"] = manifest_hash(study, name, task=task)
    return hashes


def need(study: Study, known: Known, on: Place) -> Need:
    """One page, its pictures inside."""
    return Need(
        disk=assumed(PAGE_BYTES + TASK_BYTES * len(study.tasks), "a page with its pictures"),
        files=counted(RECORDS + 1, "the page"),
        memory=assumed(BASE_BYTES, "pictures are made one by one"),
        seconds=assumed(10.0, "10 s a page"),
    )


def run(study: Study, out: Path) -> Made:
    """Write the page."""
    path = out / "report.html"
    source = Source(
        folder=study.folder,
        name=study.name,
        title=study.title,
        tasks=study.tasks,
        config=study.model_dump(mode="json"),
    )
    write_page(source, path)
    return Made([path], f"the page is {path}")
