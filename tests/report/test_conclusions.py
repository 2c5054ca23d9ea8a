"""The conclusions claim no more than the intervals support."""

import pytest

from ssl_pipeline.report.data.results import read_task_results
from ssl_pipeline.report.sections.conclusions import (
    overall_conclusion,
    task_conclusion,
    task_sentence,
)
from tests.report.study_folder import StudyFolder, gaps, results

WON, LOST, OPEN = (0.1, 0.05, 0.15), (-0.1, -0.15, -0.05), (0.1, -0.01, 0.2)


@pytest.mark.parametrize(
    ("random", "pixels", "word"),
    [
        (WON, WON, "Yes"),
        (WON, OPEN, "Yes"),
        (WON, LOST, "In part"),
        (OPEN, WON, "Not shown"),
        (LOST, WON, "No"),
        ((0.1, 0.0, 0.2), WON, "Not shown"),  # an interval that begins at zero holds it
    ],
)
def test_the_first_word(
    study: StudyFolder,
    random: tuple[float, float, float],
    pixels: tuple[float, float, float],
    word: str,
) -> None:
    study.write_results("t", "probe", results(gaps(random, pixels)))
    text = overall_conclusion(read_task_results(study.folder, {"t": ["probe"]}))
    assert text.startswith(f"{word}: ")
    assert ("better than random weights" in text) == (random == WON)
    assert ("worse than random weights" in text) == (random == LOST)


def test_one_win_of_many_is_a_part(study: StudyFolder) -> None:
    for task, gap in {"a": WON, "b": OPEN, "c": OPEN}.items():
        study.write_results(task, "probe", results(gaps(gap, OPEN)))
    results_by_task = read_task_results(study.folder, {task: ["probe"] for task in "abc"})
    assert overall_conclusion(results_by_task).startswith(
        "In part: better than random weights in 2 of 6 comparisons (no clear difference in 4)"
    )
    assert task_conclusion(results_by_task["b"]).startswith(
        "no clear difference from random weights in 2 of 2"
    )


def test_a_task_without_intervals_beside_one_with(study: StudyFolder) -> None:
    study.write_results("a", "probe", results(gaps(WON, WON)))
    study.write_results("b", "probe", results(gaps((0.3, None, None), (0.3, None, None)), test=1))
    results_by_task = read_task_results(study.folder, {task: ["probe"] for task in "ab"})
    text = overall_conclusion(results_by_task)
    assert "better than random weights in 2 of 4 comparisons" in text
    assert "(no interval in 2)" in text
    assert task_conclusion(results_by_task["b"]).startswith(
        "no confidence interval over subjects: 1 scored subject;"
    )


def test_without_results_nothing_is_known() -> None:
    assert "nothing is known" in overall_conclusion({})


@pytest.mark.parametrize(
    ("random", "verdict"),
    [
        (WON, "Pretraining helps"),
        (LOST, "Pretraining harms"),
        (OPEN, "No clear difference"),
        ((0.1, None, None), "Too few subjects to decide"),
    ],
)
def test_one_sentence_a_task_has_the_scores_and_a_verdict(
    study: StudyFolder, random: tuple[float, float | None, float | None], verdict: str
) -> None:
    pixels = WON if random[1] is not None else random
    study.write_results("t", "probe", results(gaps(random, pixels)))
    (result,) = read_task_results(study.folder, {"t": ["probe"]})["t"]
    sentence = task_sentence(result, "linear")
    assert sentence.startswith(f"{verdict}: balanced accuracy .90 against ")
    assert sentence.endswith(" of random weights, with 20 labelled subjects.")
