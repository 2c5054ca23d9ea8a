"""Labels that come back: those that readers finished, and predictions that they accepted."""

from collections.abc import Iterator

from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.io.atomic import sha256_file, sha256_json
from ssl_pipeline.review.next_labels.work_folder import finished_labels, read_readers
from ssl_pipeline.review.predictions import segmented_rows
from ssl_pipeline.volumes.readers import strip_suffix
from ssl_pipeline.volumes.returned_labels import ReturnedLabel
from ssl_pipeline.volumes.review import prediction_item
from stages.core import layout
from stages.core.study import Study
from stages.reviewed import predictions_folder, readers_decisions


def returned_labels(study: Study) -> list[ReturnedLabel]:
    """All labels that came back. Raises UserError where it is not known what one is for."""
    finished = [label for name in study.tasks for label in _finished(study, name)]
    return [*finished, *_accepted_predictions(study)]


def returned_labels_hash(study: Study) -> str:
    """Hash of them and of what they hold, which the Snakefile uses too; empty where none is."""
    found = [
        [
            *(each.scan, each.name, each.kind, each.reader, sorted(each.classes)),
            *(each.content_sha256, sha256_file(each.path) if each.path.is_file() else ""),
        ]
        for each in returned_labels(study)
    ]
    return sha256_json(found) if found else ""


def _finished(study: Study, task: str) -> Iterator[ReturnedLabel]:
    """The finished labels of a task, whose scans `ssl-pipeline next` has listed or not."""
    folder = layout.work_folder(study, task)
    files = finished_labels(folder)
    name = _label_name(study.tasks[task])
    if files and not name:
        raise UserError(
            f"{files[0].parent} has labels, and task {task} reads none: move them to the folder of"
            " a task that does."
        )
    readers, classes = read_readers(folder), _classes(study, name)
    for path in files:
        scan = strip_suffix(path.name)
        yield ReturnedLabel(scan, name, path, "finished", readers.get(scan, ""), classes)


def _accepted_predictions(study: Study) -> Iterator[ReturnedLabel]:
    """The predictions that readers accepted, where the study wants them as labels."""
    folder = predictions_folder(study)
    label = study.review.predictions.label if study.review and study.review.predictions else None
    if folder is None or label is None:
        return
    decisions = readers_decisions(study).predictions.items()
    # A planted item is of no scan, and has no hyphen.
    accepted = {item: each for item, each in decisions if each.verdict == "accept" and "-" in item}
    classes = _classes(study, label)
    if not classes:
        names = filter(None, map(_label_name, study.tasks.values()))
        raise UserError(
            f"review.predictions.label is {label!r}, which no task reads; "
            f"{suggest_name(label, names)}"
        )
    if not accepted:
        return
    code = study.pseudonyms.code
    # Items of one prediction end alike, whichever scan it is for.
    files = {
        prediction_item("", row["label_map_sha256"], code): folder / row["label_map"]
        for row in segmented_rows(folder)
    }
    for item, decision in accepted.items():
        scan = item.partition("-")[0]
        path = files.get(item.removeprefix(scan), folder / item)  # of no row: it is gone
        yield ReturnedLabel(
            scan, label, path, "prediction", decision.reader, classes, decision.sha256
        )


def _label_name(task: Task) -> str:
    """The label that the task learns; empty where it learns from targets."""
    truth = task.truth_names()[0]
    return truth.name if truth.kind == "label" else ""


def _classes(study: Study, name: str) -> frozenset[int]:
    """All values of a label that tasks of the study read."""
    tasks = (task for task in study.tasks.values() if _label_name(task) == name)
    return frozenset(value for task in tasks for value in task.class_values)
