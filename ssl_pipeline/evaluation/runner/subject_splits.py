"""Subject splits of a task: labelled and scored subjects, and the order of labelling.

Everything is by subject: two scans of one person on both sides of a split would let an encoder, or
nearest neighbours, recognise the person instead of the class. A data set without subjects is
refused, for a split by file only looks like one by subject.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.data.labelled_crops import LabelledCrop
from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.views.rng import generator


@dataclass(frozen=True)
class SubjectSplit:
    """The scans of a task whose subjects are labelled (train) or scored (test)."""

    entries: tuple[Entry, ...]  # of both, in the catalog's order
    train_subjects: tuple[str, ...]  # in the catalog's order
    test_subjects: tuple[str, ...]  # in that order; those of `evaluate.split`
    excluded: tuple[Entry, ...]  # scans of the task's roots without a label for this task


def split_subjects(task: Task, catalog: Catalog, split: Literal["val", "test"]) -> SubjectSplit:
    """Find the task's subjects; UserError where a comparison by subject is not possible."""
    usable = task.usable_entries(catalog)
    known = {entry.id for entry in usable}
    of_splits = [entry for entry in task.entries(catalog) if entry.split in ("train", split)]
    usable = task.filter_train_on(usable)
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
                "change data.splits, or label scans of that split."
            )
    kept = tuple(entry for entry in usable if entry.split in subjects)
    return SubjectSplit(
        kept,
        tuple(subjects["train"]),
        tuple(subjects[split]),
        tuple(entry for entry in of_splits if entry.id not in known),
    )


def check_learnable(title: str, class_names: tuple[str, ...], crops: list[LabelledCrop]) -> None:
    """Refuse a task whose targets cannot be learned.

    Its training subjects show fewer than two classes, or one number alone, or lack a class that is
    scored.
    """
    shown = sorted({crop.target for crop in crops if crop.split == "train"})
    if len(shown) < 2 and not class_names:
        raise UserError(
            f"Task {title!r}: the number is {shown[0]:g} for all training subjects, and there is "
            "nothing to learn: check the target, or the labels."
        )
    scored = {crop.target for crop in crops if crop.split != "train"}
    if not class_names and len(scored) == 1 < sum(crop.split != "train" for crop in crops):
        raise UserError(
            f"Task {title!r}: the number is {min(scored):g} for all scored subjects, and R² is not "
            "defined: score others."
        )
    if len(shown) < 2:
        classes = f"only {class_names[int(shown[0])]!r}" if shown else "none of the classes"
        raise UserError(
            f"Task {title!r}: the training subjects show {classes}, and classification needs "
            "two: check classes against the values in the labels."
        )
    if class_names:
        check_classes_learnable(
            title, [class_names[int(index)] for index in sorted(scored - set(shown))]
        )


def check_classes_learnable(title: str, missing: Sequence[str]) -> None:
    """Refuse classes that scored subjects show and no training subject does."""
    if missing:
        raise UserError(
            f"Task {title!r}: scored subjects show {', '.join(map(repr, missing))}, which no "
            "training subject does: leave it out of classes, or label training subjects who show "
            "it."
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
