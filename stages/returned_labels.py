"""Labels that readers have finished, for the inventory to read back."""

from collections.abc import Iterator

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.io.atomic import sha256_file, sha256_json
from ssl_pipeline.review.next_labels.work_folder import finished_labels, read_readers
from ssl_pipeline.volumes.readers import strip_suffix
from ssl_pipeline.volumes.returned_labels import ReturnedLabel
from stages.core import layout
from stages.core.study import Study


def returned_labels(study: Study) -> list[ReturnedLabel]:
    """All labels that came back. Raises UserError where it is not known what one is for."""
    return [label for name in study.tasks for label in _finished(study, name)]


def returned_labels_hash(study: Study) -> str:
    """Hash of them and of what they hold, which the Snakefile uses too; empty where none is."""
    found = [
        [each.scan, each.name, each.kind, each.reader, sorted(each.classes), sha256_file(each.path)]
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
    readers = read_readers(folder)
    for path in files:
        scan = strip_suffix(path.name)
        classes = _classes(study, name)
        yield ReturnedLabel(scan, name, path, "finished", readers.get(scan, ""), classes)


def _label_name(task: Task) -> str:
    """The label that the task learns; empty where it learns from targets."""
    truth = task.truth_names()[0]
    return truth.name if truth.kind == "label" else ""


def _classes(study: Study, name: str) -> frozenset[int]:
    """All values of a label that tasks of the study read."""
    tasks = (task for task in study.tasks.values() if _label_name(task) == name)
    return frozenset(value for task in tasks for value in task.class_values)
