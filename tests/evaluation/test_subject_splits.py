"""Splits are by subject, and budgets are nested."""

import pytest
from pydantic import ValidationError

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.config import Evaluate, Probe
from ssl_pipeline.evaluation.runner.probe import run_probe
from ssl_pipeline.evaluation.runner.subject_splits import (
    labelling_order,
    resolve_budgets,
    split_subjects,
)
from ssl_pipeline.evaluation.tasks import Classification, CropClassification

TRAIN = tuple(f"s{i}" for i in range(12))
SHOWS = {subject: frozenset({index % 3}) for index, subject in enumerate(TRAIN)}


def task(**changes):
    given = {"title": "Side", "target": "side", "classes": {0: "left", 1: "right"}}
    return Classification(**(given | changes))


def row(subject="a", split="train", side="0", root="one"):
    return subject, split, {"side": side}, {}, root


def test_budgets_of_a_seed_are_nested_and_seeds_differ():
    first, again, other = (labelling_order(TRAIN, SHOWS, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert sorted(first) == sorted(TRAIN)


@pytest.mark.parametrize("seed", range(20))
def test_the_first_subjects_show_all_classes(seed):
    assert {
        index for subject in labelling_order(TRAIN, SHOWS, seed)[:3] for index in SHOWS[subject]
    } == {
        0,
        1,
        2,
    }


def test_budgets_that_cannot_be_had_become_all():
    assert resolve_budgets((2, 5, 20, 0), 200) == (2, 5, 20, 0)
    assert resolve_budgets((20, 5, 2), 12) == (2, 5, 0)
    assert resolve_budgets((2, 5), 12) == (2, 5)
    assert resolve_budgets((12,), 12) == (0,)


def test_shares_are_of_the_subjects_that_there_are():
    assert resolve_budgets(("5%", "10%", "25%", 0), 136) == (7, 14, 34, 0)
    assert resolve_budgets(("0.1%", "100%"), 50) == (1, 0)
    for wrong in ("0%", "150%", "00%", "half"):
        with pytest.raises(ValidationError):
            Evaluate(subjects=(wrong,))


def test_subjects_are_found_and_other_splits_are_left_out(few):
    made = few(row("b"), row("a"), row("c", "val"), row("d", "test"), row("e", "test", "7"))
    found = split_subjects(task(), made.catalog.entries, "test")
    assert (found.train_subjects, found.test_subjects, len(found.excluded)) == (
        ("b", "a"),
        ("d",),
        1,
    )
    assert split_subjects(task(), made.catalog.entries, "val").test_subjects == ("c",)


def test_classes_may_be_given_by_name(few):
    made = few(row(side="left"), row("b", "test", "right"))
    assert split_subjects(task(), made.catalog.entries, "test").test_subjects == ("b",)


@pytest.mark.parametrize(
    ("rows", "changes", "sentence"),
    [
        (
            [row(""), row("b", "test")],
            {},
            "scans without a subject, and a split by file would leak",
        ),
        ([row("a"), row("a", "test")], {}, "subject 'a' is in train and in test"),
        ([row("a", "test")], {}, "no labelled scan of split train"),
        ([row("a")], {}, "no labelled scan of split test"),
        ([row()], {"target": "sid"}, "unknown target 'sid'; did you mean side"),
        ([row(side="")], {}, "target 'side' is empty for every scan"),
        (
            [row(side="up")],
            {},
            "target 'side' is up, none of which is in classes: 0: left, 1: right",
        ),
        ([row()], {"roots": ("ona",)}, "root 'ona'; did you mean one"),
    ],
)
def test_what_cannot_be_compared_by_subject_is_refused_in_one_sentence(
    few, rows, changes, sentence
):
    made = few(*rows)
    with pytest.raises(UserError, match="Task 'Side': ") as refused:
        split_subjects(task(**changes), made.catalog.entries, "test")
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_scored_class_that_nobody_can_learn_is_refused(few, tmp_path):
    made = few(row("a", side="0"), row("b", side="1"), row("c", "test", "2"))
    asked = task(classes={0: "left", 1: "right", 2: "both"})
    with pytest.raises(UserError, match="scored subjects show 'both', which no training subject"):
        run_probe(asked, Probe(), made.context(tmp_path))


def test_an_unknown_label_lists_the_known_ones(few):
    made = few(("a", "train", {}, {"organs": "x.nii"}, "one"))
    crops = CropClassification(title="O", label="orgens", classes={1: "a", 2: "b"})
    with pytest.raises(UserError, match="unknown label 'orgens'; did you mean organs"):
        split_subjects(crops, made.catalog.entries, "test")


def test_one_class_is_no_task():
    with pytest.raises(ValueError, match="fewer than two"):
        task(classes={0: "left"})
