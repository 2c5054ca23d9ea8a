"""A review in a study: it waits for readers, and what they decide reruns no more than it must."""

import shutil

import pyarrow.parquet as pq
import pytest

from ssl_pipeline.errors import PendingReviewError, UserError
from ssl_pipeline.export.manifest import WEIGHTS_FILE
from ssl_pipeline.io.atomic import sha256_file
from ssl_pipeline.review.audit_log import AuditLog
from ssl_pipeline.volumes.inventory import Inventory
from stages.commands.review import open_session, verify_log
from stages.core import layout
from stages.core.records import read_completion
from stages.core.runner import run_stage
from stages.core.study_file import load_study
from stages.reviewed import review_queue
from tests.conftest import read_json
from tests.review.conftest import answer_of, write_asked_study, write_fully_asked_study
from tests.stages.conftest import run_cli

ASKED = "review: {labels: false, accepted_share: 0.5, planted_share: 0.5, repeated_share: 0.5}\n"


ASKED_ALL = "review: {labels: false, accepted_share: 1, planted_share: 0, repeated_share: 0}\n"


@pytest.fixture
def study(request, study_file):
    """The tiny study with a review, of half its scans or as a test asks, and its inventory.

    It has no tasks, for which readers who reject all that they see would leave nobody to score.
    """
    review = getattr(request, "param", ASKED)
    study_file.write_text(study_file.read_text().partition("tasks:")[0] + review)
    study = load_study(study_file)
    run_stage("inventory", study, {})
    return study


def answer_all(study, reader, **changes):
    """A reader's answers on all that the study asks."""
    log = AuditLog(study.pseudonyms.study_folder)
    for item in review_queue(study):
        log.append(reader, answer_to(item, **changes))


def answer_to(item, **changes):
    """An answer on this item."""
    fields = {"item": item.code, "content_sha256": item.content_sha256}
    return answer_of(**fields, question=item.question, round=item.round, **changes)


def test_a_study_waits_for_its_readers_and_then_uses_what_they_accepted(study, study_file, capsys):
    before = Inventory.read(study.folder / "inventory/scans.parquet").scans
    items = review_queue(study)
    assert sorted((item.origin, item.round) for item in items) == [
        ("accepted", 0), ("accepted", 0), ("accepted", 0), ("accepted", 1), ("accepted", 1),
        ("planted", 0), ("planted", 0),
    ]  # fmt: skip
    done = run_cli("reviewed", "--config", study_file)
    assert done.returncode == 3 and "7 of 7 items await a reader" in done.stdout + done.stderr
    answer_all(study, "anna", answer="reject", codes=("metal",))
    asked = {item.code for item in items if item.origin == "accepted"}
    for name in ("inventory", "reviewed", "preprocess"):
        run_stage(name, study, {})
    assert "3 volumes stored" in capsys.readouterr().out
    after = Inventory.read(study.folder / "inventory/scans.parquet").scans
    for earlier, scan in zip(before, after, strict=True):
        assert (scan == earlier) == (scan.id not in asked)
        assert scan == earlier or scan.reason == "rejected in review by anna (metal)"
    summary = read_json(study.folder / "reviewed/readers.json")
    (reader,) = summary["readers"]
    assert reader["planted_rejected"][::3] == [1.0, 2] and reader["accepted"][0] == 0
    assert len(review_queue(study)) == 7, "answers change nothing about what is asked"
    key = read_completion(study.folder / "inventory").key
    AuditLog(study.pseudonyms.study_folder).append("anna", answer_of(answer="unsure"))
    run_stage("inventory", study, {})
    assert read_completion(study.folder / "inventory").key == key


def test_a_second_reader_is_waited_for_where_a_study_wants_two(study):
    study = study.model_copy(update={"review": study.review.model_copy(update={"readers": 2})})
    answer_all(study, "anna", answer="accept")
    with pytest.raises(PendingReviewError, match="7 of 7 items await"):
        run_stage("reviewed", study, {})
    answer_all(study, "ben", answer="accept")
    run_stage("reviewed", study, {})


def test_the_log_is_verified_by_a_command(study, capsys):
    answer_all(study, "anna")
    verify_log(study, "")
    assert "7 answers, as they were written; its anchor is 7:" in capsys.readouterr().out


def states_of_files(folder):
    """When each file below a folder was written, but locks."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.parametrize("study", [ASKED_ALL], indirect=True)
def test_a_later_decision_stores_its_scan_alone_and_restarts_no_pretraining(study, capsys):
    stages = ("inventory", "reviewed", "preprocess", "pretrain")
    answer_all(study, "anna", answer="accept")
    origins = study.pseudonyms.origins
    code = next(code for code, each in origins.items() if "person1" in each.path)
    (item,) = (each for each in review_queue(study) if each.code == code)
    given = {"item": code, "content_sha256": item.content_sha256}
    log = AuditLog(study.pseudonyms.study_folder)
    log.append("anna", answer_of(answer="reject", codes=("metal",), **given))
    for name in stages:
        run_stage(name, study, {})
    volumes, run = study.folder / "preprocess/volumes", study.folder / "pretrain"
    stored, trained = states_of_files(volumes), states_of_files(run)
    assert stored and trained and not any(code in str(path) for path in stored)
    log.append("anna", answer_of(answer="accept", codes=(), **given))
    capsys.readouterr()
    for name in stages:
        run_stage(name, study, {})
    after = states_of_files(volumes)
    new = after.keys() - stored.keys()
    assert new and all(code in str(path) for path in new)
    assert stored.items() <= after.items(), "no other volume was written again"
    assert states_of_files(run) == trained
    assert "pretrain: nothing to do" in capsys.readouterr().out


def test_answers_on_labels_and_predictions_count_as_those_on_scans(tmp_path):
    study = write_fully_asked_study(tmp_path)
    items = review_queue(study)
    answer_all(study, "anna", answer="reject", codes=("orientation",))
    inventory = study.folder / "inventory/scans.parquet"
    before = {scan.id: scan for scan in Inventory.read(inventory).scans}
    log = AuditLog(study.pseudonyms.study_folder)
    (off_grid,) = (item for item in items if (item.origin, item.round) == ("off_grid_label", 0))
    for item in items:
        if item.question == "usable" or item == off_grid:
            log.append("anna", answer_to(item, answer="accept"))
    for name in ("inventory", "reviewed"):
        run_stage(name, study, {})
    after = Inventory.read(inventory).scans
    assert {scan.id for scan in after if scan.labels["tissue"]} == {*off_grid.scans}
    assert not before[off_grid.scans[0]].labels["tissue"]
    assert {item.key for item in review_queue(study)} == {item.key for item in items}
    rows = pq.read_table(study.folder / "reviewed/reviewed.parquet").to_pylist()
    assert {(row["question"], row["verdict"]) for row in rows} == {
        ("usable", "accept"), ("label_fits", "accept"), ("label_fits", "reject"),
        ("prediction_correct", "reject"),
    }  # fmt: skip
    listed = {(row["question"], row["item"], row["sha256"]) for row in rows}
    assert listed == {(item.question, item.code, item.content_sha256) for item in items}


def test_other_predictions_are_asked_about_anew(tmp_path):
    study = write_fully_asked_study(tmp_path)
    answer_all(study, "anna", answer="accept")
    run_stage("reviewed", study, {})
    label_map = tmp_path / "predicted/person3.nii.gz"
    before = sha256_file(label_map)
    shutil.copy(tmp_path / "raw/labels/person5.nii.gz", label_map)
    table = tmp_path / "predicted/predictions.csv"
    table.write_text(table.read_text().replace(before, sha256_file(label_map)))
    with pytest.raises(PendingReviewError, match="3 of 40 items await"):
        run_stage("reviewed", study, {})
    shutil.rmtree(tmp_path / "predicted")
    with pytest.raises(UserError, match=r"predicted is no folder that `ssl-pipeline predict`"):
        run_stage("reviewed", study, {})


def test_a_page_opens_before_volumes_of_an_earlier_version_are_stored_anew(tmp_path):
    study = write_asked_study(tmp_path)
    for file in (study.encoder / WEIGHTS_FILE, layout.catalog_table(study)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("of another version")
    assert open_session(study, "anna").status()["left"]
