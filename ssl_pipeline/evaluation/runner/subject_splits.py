"""Subject splits of a task: labelled and scored subjects, and the order of labelling.

Everything is by subject: two scans of one person on both sides of a split would let an encoder, or
nearest neighbours, recognise the person instead of the class. A data set without subjects is
refused, for a split by file only looks like one by subject.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.store.catalog import ScanRow
from ssl_pipeline.views.rng import generator


@dataclass(frozen=True)
class SubjectSplit(Generic[ScanRow]):
    """The scans of a task whose subjects are labelled (train) or scored (test)."""

    entries: tuple[ScanRow, ...]  # of both, in the table's order
    train_subjects: tuple[str, ...]  # in the table's order
    test_subjects: tuple[str, ...]  # in that order; those of `evaluate.split`
    excluded: tuple[ScanRow, ...]  # scans of the task's roots without a label for this task
    predicted_subjects: frozenset[str]  # of train, by whom nothing is chosen: a label was predicted

    @property
    def test_entries(self) -> list[ScanRow]:
        """The scored scans."""
        return [entry for entry in self.entries if entry.split != "train"]


def split_subjects(
    task: Task, scans: Sequence[ScanRow], split: Literal["val", "test"]
) -> SubjectSplit[ScanRow]:
    """Find the task's subjects among the rows of the catalog or of the inventory.

    Raises UserError where a comparison by subject is not possible.
    """
    usable = task.usable_entries(scans)
    known = {entry.id for entry in usable}
    of_splits = [entry for entry in task.entries(scans) if entry.split in ("train", split)]
    usable = task.filter_scans(usable)
    without_subject = sorted({entry.root for entry in usable if not entry.subject})
    if without_subject:
        raise UserError(
            f"Task {task.title!r}: root {without_subject[0]!r} has scans without a subject, and a "
            "split by file would leak: give the root a subject rule, or the table a subject column."
        )
    subjects = {
        name: dict.fromkeys(entry.subject for entry in usable if entry.split == name)
        for name in ("train", split)
    }
    both = sorted(subjects["train"].keys() & subjects[split].keys())
    if both:
        raise UserError(
            f"Task {task.title!r}: subject {both[0]!r} is in train and in {split}: "
            "put all scans of a subject into one split."
        )
    for name, what in (("train", "learn from"), (split, "score")):
        if not subjects[name]:
            raise UserError(
                f"Task {task.title!r}: no labelled scan of split {name} to {what}: "
                "change data.splits, or train_on or score_on of the task, or label scans of that "
                "split."
            )
    found = SubjectSplit(
        tuple(entry for entry in usable if entry.split in subjects),
        tuple(subjects["train"]),
        tuple(subjects[split]),
        tuple(entry for entry in of_splits if entry.id not in known),
        frozenset(entry.subject for entry in usable if task.has_predicted_truth(entry)),
    )
    _check_external_predictions(task, found.test_entries)
    return found


def calibration_entries(
    task: Task, scans: Sequence[ScanRow], scored: Literal["val", "test"]
) -> list[ScanRow]:
    """Scans of the task whose subjects are neither trained on nor scored, if it has classes."""
    if scored == "val" or not task.CLASSIFIED:
        return []
    usable = task.filter_scans(task.usable_entries(scans))
    return [entry for entry in usable if entry.split == "val"]


def _check_external_predictions(task: Task, test_entries: Iterable[ScanRow]) -> None:
    for truth in (truth for truth in task.truth_names() if not truth.is_required):
        for entry in test_entries:
            if not truth.find_in(entry).get(truth.name):
                raise UserError(
                    f"Task {task.title!r}: scan {entry.id} has no label {truth.name!r}: let the "
                    "other method segment every scored scan."
                )


def check_learnable(
    task: Task, train: Iterable[int | float], scored: Iterable[int | float]
) -> None:
    """Refuse a task whose targets cannot be learned, or are not what the study says.

    `train` and `scored` are the classes, by index, or the numbers that the subjects of each show.
    """
    if task.class_names:
        _check_classes(task, {int(index) for index in train}, {int(index) for index in scored})
    else:
        _check_numbers(task.title, list(train), list(scored))


def _check_numbers(title: str, train: Sequence[int | float], scored: Sequence[int | float]) -> None:
    if len(set(train)) < 2:
        raise UserError(
            f"Task {title!r}: the number is {train[0]:g} for all training subjects, and there is "
            "nothing to learn: check the target, or the labels."
        )
    if len(set(scored)) == 1 < len(scored):
        raise UserError(
            f"Task {title!r}: the number is {scored[0]:g} for all scored subjects, and R² is not "
            "defined: score others."
        )


def _check_classes(task: Task, train: Collection[int], scored: Collection[int]) -> None:
    names = task.class_names

    def listed(indices: Iterable[int]) -> str:
        return ", ".join(repr(names[index]) for index in sorted(indices))

    remedy = "check classes against the values of the target, or in the labels."
    if len(train) < task.MIN_CLASSES:
        shown = f"only {listed(train)}" if train else "none of the classes"
        needed = ", and classification needs two" if task.MIN_CLASSES > 1 else ""
        raise UserError(
            f"Task {task.title!r}: the training subjects show {shown}{needed}: {remedy}"
        )
    if not scored:
        raise UserError(
            f"Task {task.title!r}: no scored subject shows any of the classes: {remedy}"
        )
    if unlearned := set(scored) - set(train):
        raise UserError(
            f"Task {task.title!r}: scored subjects show {listed(unlearned)}, which no "
            "training subject does: leave it out of classes, or label training subjects who show "
            "it."
        )
    if unknown := set(range(len(names))) - set(train):
        raise UserError(
            f"Task {task.title!r}: no labelled subject shows {listed(unknown)}: leave it out of "
            "classes, or correct its value."
        )


def unscored_note(missing: Sequence[str]) -> tuple[str, ...]:
    """The note on classes that no scored subject shows."""
    return (f"No scored subject shows {', '.join(missing)}.",) if missing else ()


def labelling_order(
    train_subjects: tuple[str, ...], classes_by_subject: Mapping[str, frozenset[int]], seed: int
) -> list[str]:
    """Training subjects in the order in which seed `seed` labels them.

    A shuffle in which a subject that shows a class still missing comes first, until none is.
    Its first n are the subjects of budget n, so that budgets of one seed are nested.
    """
    rng = generator(seed, 0, "labelled subjects")
    left = [train_subjects[index] for index in rng.permutation(len(train_subjects))]
    ordered: list[str] = []
    missing = frozenset().union(*classes_by_subject.values())
    while missing:
        chosen = next(subject for subject in left if classes_by_subject[subject] & missing)
        missing -= classes_by_subject[chosen]
        left.remove(chosen)
        ordered.append(chosen)
    return ordered + left


def check_budgets(title: str, setting: str, requested: Sequence[int | str], available: int) -> None:
    """Refuse numbers of labelled subjects, of the setting with this name, that there are not."""
    largest = max((each for each in requested if isinstance(each, int)), default=0)
    if largest > available:
        raise UserError(
            f"Task {title!r}: {setting} asks for {largest} labelled subjects, and the split train "
            f"has {available}: ask for no more, for 0, which is all, or for a share such as 50%."
        )


def resolve_budgets(requested: Sequence[int | str], available: int) -> tuple[int, ...]:
    """Numbers of labelled subjects that are available, rising, all (0) last if requested.

    A share, such as "10%", is of those available, and at least one of them. A number that is not
    below those available is the same as all of them.
    """
    numbers = [
        max(1, round(float(each[:-1]) / 100 * available)) if isinstance(each, str) else each
        for each in requested
    ]
    few = sorted({number for number in numbers if 0 < number < available})
    return (*few, 0) if any(not 0 < number < available for number in numbers) else tuple(few)
