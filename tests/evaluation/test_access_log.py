"""Test-set accesses are logged once for each configuration, and never removed."""

import shutil

from ssl_pipeline.evaluation.cells import PIXELS
from ssl_pipeline.evaluation.config import Evaluate, Finetune, Probe
from ssl_pipeline.evaluation.probes.knn import Knn
from ssl_pipeline.evaluation.runner.access_log import read_test_accesses, record_test_access
from ssl_pipeline.evaluation.runner.finetune import run_finetune
from ssl_pipeline.evaluation.runner.probe import run_probe
from ssl_pipeline.evaluation.tasks import Classification
from ssl_pipeline.report.data.report_data import read_task_accesses
from ssl_pipeline.report.sections.test_access import describe_test_access

CORNER = Classification(title="Corner", target="corner", classes={0: "no", 1: "yes"})


def test_a_configuration_is_logged_when_it_first_scores(planted, tmp_path):
    context = planted.context(tmp_path / "probe/corner", evaluate=Evaluate(subjects=(0,)))
    for neighbours in (5, 5, 9):
        run_probe(CORNER, Probe(methods=(Knn(neighbours=neighbours),)), context)
    accesses = read_test_accesses(tmp_path / "probe/corner")
    assert len(accesses) == 2 and len({access.key for access in accesses}) == 2
    assert "again after 1 change of what scores them" in describe_test_access(
        read_task_accesses(tmp_path, "corner")
    )


def test_accesses_of_val_are_not_reported(tmp_path):
    assert describe_test_access(read_task_accesses(tmp_path, "corner")) == ""
    record_test_access(tmp_path / "probe/corner", "val", "a")
    assert describe_test_access(read_task_accesses(tmp_path, "corner")) == ""
    record_test_access(tmp_path / "probe/corner", "test", "b")
    record_test_access(tmp_path / "probe/corner", "test", "b")
    assert "nothing has changed since" in describe_test_access(
        read_task_accesses(tmp_path, "corner")
    )


def test_what_changes_no_score_is_no_new_access(planted, tmp_path):
    context = planted.context(
        tmp_path / "probe/corner", evaluate=Evaluate(subjects=(0,)), initializations={PIXELS: ""}
    )
    for kept in ("none", "all"):
        run_finetune(CORNER, Finetune(steps=1, resnet_baseline=False, keep_networks=kept), context)
    assert len(read_test_accesses(tmp_path / "probe/corner")) == 1


def test_a_copy_of_a_study_knows_who_was_scored_before(planted, tmp_path):
    private = tmp_path / "private"
    private.mkdir()

    def score(study, neighbours, task=CORNER):
        context = planted.context(
            tmp_path / study / "probe/corner",
            evaluate=Evaluate(subjects=(0,)),
            initializations={PIXELS: ""},
            access_folder=private,
            access_scope="probe",
        )
        run_probe(task, Probe(methods=(Knn(neighbours=neighbours),)), context)
        return read_test_accesses(context.out)

    (first,) = score("first", 5)
    assert score("renamed", 5) == (first,), "the same configuration is no other access"
    assert score("another", 9)[0] == first and len(score("another", 9)) == 2
    assert "again after 1 change" in describe_test_access(
        read_task_accesses(tmp_path / "another", "corner")
    )
    shutil.rmtree(tmp_path / "another")
    assert len(score("another", 7)) == 3, "removing results takes nothing back"
