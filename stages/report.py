"""Tell on one page what went in, what was learned, what it is worth, and how to use it.

The title is not among the sections read: a new one reruns nothing, and heads the page when that is
next made for another reason.
"""

from pathlib import Path

from ssl_pipeline.report.page import Source, write_page
from stages.contract import Made, manifest_hash
from stages.study import Study

READS = ("name", "tasks")
AFTER = ("inventory", "preprocess", "pretrain")
VERSION = 1
MAKES = ("report.html",)


def inputs(study: Study) -> dict[str, str]:
    """What every stage before it made."""
    hashes = {name: manifest_hash(study, name) for name in ("inventory", "preprocess", "pretrain")}
    for task, config in study.tasks.items():
        for name in config.JUDGED_BY:
            hashes[f"{name} {task}"] = manifest_hash(study, name, task=task)
    return hashes


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
