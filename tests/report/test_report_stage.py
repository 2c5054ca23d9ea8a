"""The report stage: its inputs, and what makes it run again."""

from pathlib import Path

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.provenance import Provenance
from stages import report
from stages.core.records import compute_key, manifest_hash, write_completion
from stages.core.stage import StageResult, load_stage
from stages.core.study import Study
from stages.core.study_file import load_study


def _manifests(study: Study) -> list[tuple[str, dict[str, str]]]:
    evaluations = [("probe", "side"), ("finetune", "side"), ("finetune", "tissue")]
    alone = [(name, {}) for name in ("inventory", "preprocess", "pretrain")]
    return [*alone, *((name, {"task": task}) for name, task in evaluations)]


def _complete(out: Path, content: str) -> None:
    """The completion record of a stage that wrote one file."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "file").write_text(content)
    provenance = Provenance(out.name, {}, "", 0, out)
    write_completion(out, "", StageResult([out / "file"], "done"), provenance)


def test_it_waits_for_every_stage_and_evaluation(study_file: Path) -> None:
    study = load_study(study_file)
    for name, wildcards in _manifests(study):
        with pytest.raises(UserError, match=f"run the stage {name} first"):
            report.inputs(study)
        _complete(study.stage_folder(name, wildcards), "first")
    first = report.inputs(study)
    assert len(first) == 11  # test accesses of three evaluations, titles, what is out of date
    _complete(study.stage_folder("probe", {"task": "side"}), "other")
    assert {name for name in first if first[name] != report.inputs(study)[name]} == {"probe side"}


def test_a_new_title_runs_nothing_again(study_file: Path) -> None:
    study = load_study(study_file)
    renamed = study.model_copy(update={"title": "Another"})
    fewer = study.model_copy(update={"tasks": {"side": study.tasks["side"]}})
    hashes = [each.sections_hash(report.CONFIG_KEYS, {}) for each in (study, renamed, fewer)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_it_writes_the_page_and_its_tables(study_file: Path, tmp_path: Path) -> None:
    study = load_study(study_file)
    made = report.run(study, tmp_path / "report")
    assert [path.name for path in made.files] == ["report.html", "report.md"]
    for path in made.files:
        assert "This task has not been evaluated yet." in path.read_text()


def _complete_now(study: Study, name: str, wildcards: dict[str, str], content: str) -> None:
    """The completion record of a stage as the runner leaves it, for the present inputs."""
    stage, out = load_stage(name), study.stage_folder(name, wildcards)
    out.mkdir(parents=True, exist_ok=True)
    (out / "file").write_text(content)
    earlier = set(stage.DEPENDS_ON) & {"inventory", "preprocess", "pretrain"}
    inputs = {each: manifest_hash(study, each) for each in earlier}
    config_hash = study.sections_hash(stage.CONFIG_KEYS, wildcards)
    key = compute_key(stage, config_hash, inputs, wildcards)
    provenance = Provenance(name, inputs, config_hash, 0, out)
    write_completion(out, key, StageResult([out / "file"], "done"), provenance)


def test_results_that_do_not_belong_to_the_others_are_named_on_the_page(
    study_file: Path, tmp_path: Path
) -> None:
    study = load_study(study_file)
    for name, wildcards in _manifests(study):
        _complete_now(study, name, wildcards, "of 60 scans")
    assert report.outdated_runs(study) == ()
    first = report.inputs(study)["out of date"]
    _complete_now(study, "preprocess", {}, "of 61 scans")
    _complete_now(study, "pretrain", {}, "of 61 scans")
    _complete_now(study, "probe", {"task": "side"}, "of 61 scans")
    assert report.outdated_runs(study) == ("finetune-side", "finetune-tissue")
    assert report.inputs(study)["out of date"] != first
    for path in report.run(study, tmp_path / "report").files:
        assert "Out of date: finetune-side, finetune-tissue." in path.read_text()
