"""The report of real results: regression, subgroups, baselines, corrupted scans, limitations."""

import re

import pytest

from ssl_pipeline.evaluation.config import Evaluate, Finetune, Robustness
from ssl_pipeline.evaluation.corruptions.blur import Blur
from ssl_pipeline.evaluation.robustness.evaluators import RobustnessInputs
from ssl_pipeline.evaluation.robustness.robustness import run_robustness
from ssl_pipeline.evaluation.runner.finetune import run_finetune
from ssl_pipeline.evaluation.runner.probe import run_probe
from ssl_pipeline.evaluation.tasks import Classification
from ssl_pipeline.evaluation.tasks.regression import Regression
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.report.data.report_data import ReportData
from ssl_pipeline.report.html_report import render_report
from ssl_pipeline.report.sections.task import task_sections
from tests.evaluation.conftest import QUICK_PROBE

STAGES = ("preprocess", "probe", "finetune", "robustness")
TASKS = {
    "corner": Classification(title="Corner $1$ $", target="corner", classes={0: "no", 1: "yes"}),
    "number": Regression(title="Number", target="corner"),
}
EVALUATE = Evaluate(subjects=(3, 0), subgroups=("protocol",))
SETTINGS = Finetune(steps=2, batch_size=4, subjects=(0,), keep_networks="all")
CORRUPTED = Robustness(corruptions=(Blur(),), severities=(1, 5))


@pytest.fixture(scope="module")
def study(planted, tmp_path_factory):
    """The report data of a study with a classification and a regression task."""
    folder = tmp_path_factory.mktemp("reported")
    for name, task in TASKS.items():
        folders = {stage: folder / stage / name for stage in ("probe", "finetune", "robustness")}
        for stage, run in (
            ("probe", lambda task, context: run_probe(task, QUICK_PROBE, context)),
            ("finetune", lambda task, context: run_finetune(task, SETTINGS, context)),
        ):
            run(task, planted.context(folders[stage], evaluate=EVALUATE))
        inputs = RobustnessInputs(
            CORRUPTED, QUICK_PROBE, SETTINGS, Preprocess(foreground="all"), folders["finetune"]
        )
        context = planted.context(folders["robustness"], evaluate=EVALUATE)
        results = run_robustness(task, inputs, context)
        assert {row.method for row in results.features} == {"ood", "stability"}
        assert {row.attribute for row in results.explained_variance} == {"protocol"}
    (folder / "preprocess").mkdir()
    planted.catalog.write(folder / "preprocess" / "catalog.parquet")
    (folder / "preprocess" / "volumes").symlink_to(planted.folder / "volumes")
    config = {"name": "reported", "robustness": {}}
    return ReportData(
        folder, "reported", "A study", TASKS, config, planted.label_file, None, STAGES
    )


@pytest.fixture(scope="module")
def html(study):
    return render_report(study, task_sections(study))


def table(html, caption):
    """Rows of the first table whose caption begins so."""
    start = html.index(f'<p class="caption">{caption}')
    body = html[html.index("<tbody>", start) : html.index("</tbody>", start)]
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    return [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<td.*?</td>", row)] for row in rows]


def test_sections_are_in_order(html):
    expected = [
        "conclusions",
        "tasks",
        "cost",
        "robustness",
        "limitations",
        "pretraining",
        "dataset",
        "use",
        "provenance",
    ]
    assert re.findall(r'<section id="(\w+)">', html) == expected
    links = re.findall(r'<a href="#(\w+)">', html)
    assert links == expected


def test_each_task_has_a_figure_on_the_first_screen(html):
    conclusions = html[
        html.index('<section id="conclusions">') : html.index('<section id="tasks">')
    ]
    assert conclusions.count("<img") == 2
    assert "<h3>Corner $1$ $</h3>" in conclusions and "<h3>Number</h3>" in conclusions
    assert 'alt="linear probe: R² against labelled subjects; with most, ' in conclusions


def test_groups_are_shown_once_a_row_with_most_labels(html):
    rows = table(html, "balanced accuracy by protocol")
    named = [tuple(row[:2]) for row in rows]
    assert len(named) == len(set(named)) == 3 * 2 + 2 + 2  # kNN, linear, full, two baselines
    assert ("full fine-tuning", "pretrained") in named


def test_a_number_has_its_own_metrics_and_no_calibration(html):
    tasks = html[html.index('<section id="tasks">') : html.index('<section id="cost">')]
    number = tasks[tasks.index("<h3>Number</h3>") :]
    assert "R², mean over 3 seeds" in number and "mean absolute error" in number
    assert "Accuracy against confidence" not in number


def test_the_resnet_stands_beside_fine_tuning(html):
    head = html[html.index('<p class="caption">balanced accuracy, mean') :]
    assert "small ResNet" in head[: head.index("</thead>")]
    costs = table(html, "Cost of one run")
    assert any("small ResNet" in row for row in costs)


def test_features_are_evaluated_on_corrupted_scans(html):
    (first, *_) = table(html, "Feature stability")
    assert first[0] == "pretrained" and len(first) == 3
    assert len(table(html, "OOD detection AUROC")) == 2
    assert table(html, "Variance explained by subgroup")


def test_it_says_where_the_encoder_must_not_be_used_and_when_it_was_tested(html):
    start, end = (html.index(f'<section id="{name}">') for name in ("limitations", "pretraining"))
    limitations = html[start:end]
    assert "of MR, 36 scans of one" in limitations
    assert "The test subjects were first scored at" in html


def test_a_study_without_robustness_says_so(study):
    plain = ReportData(
        study.folder, "reported", "", TASKS, {"name": "reported"}, study.label_file, None, STAGES
    )
    assert "Not evaluated on corrupted scans" in render_report(plain, task_sections(plain))
