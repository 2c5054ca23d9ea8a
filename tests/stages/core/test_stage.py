"""The contract of every stage, a stage of one's own, and queries that write nothing."""

import importlib
import sys
import textwrap

import pytest

import stages
from ssl_pipeline.errors import UserError
from stages.commands.estimate import print_estimates
from stages.commands.status import status_table
from stages.core import stage as registry
from stages.core.layout import RECORD_FILES
from stages.core.records import read_completion, stage_folders, stage_key
from stages.core.runner import run_stage
from stages.core.stage import STAGES, ShardedStage, Stage, load_stage
from stages.core.stage_runs import stage_runs
from stages.core.study_file import load_study

TOY = '''
    """Count the scans of the inventory."""

    from stages.core import layout
    from stages.core.records import manifest_hash
    from stages.core.resources import RECORD_FILE_COUNT, ResourceEstimate, assumed, counted
    from stages.core.stage import StageResult

    TITLE = "Count the scans"
    CONFIG_KEYS = ("name",)
    DEPENDS_ON = ("inventory",)
    VERSION = 1
    OUTPUTS = ("count.txt",)
    WILDCARDS = ()
    USES_GPU, USES_WORKERS, DISTRIBUTED = False, False, False
    SHARDED, PER_TRIAL = False, False


    def is_needed(study):
        return True


    def inputs(study):
        return {"inventory": manifest_hash(study, "inventory")}


    def estimate_resources(study, dataset, hardware):
        size = counted(1, "one number")
        files = counted(RECORD_FILE_COUNT + 1, "one number")
        return ResourceEstimate(size, files, assumed(1e6, "a table"), assumed(1, "a second"))


    def run(study, out):
        from ssl_pipeline.volumes.inventory import Inventory

        count = len(Inventory.read(layout.inventory_table(study)).accepted_scans)
        (out / "count.txt").write_text(str(count))
        return StageResult([out / "count.txt"], f"{count} scans counted")
'''


def file_times(folder):
    """The time of each file's last change, its manifests and logs among them."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_declares_all_that_others_ask_of_it(name):
    stage = load_stage(name)
    assert isinstance(stage, Stage)
    assert stage.TITLE and not stage.TITLE.endswith(".") and len(stage.TITLE) < 80
    assert stage.VERSION > 0 and stage.OUTPUTS
    assert set(stage.DEPENDS_ON) <= set(STAGES[: STAGES.index(name)]), "the order of a DAG"
    assert isinstance(stage, ShardedStage) == stage.SHARDED
    assert not (stage.USES_WORKERS and stage.DISTRIBUTED)


def test_the_outputs_of_a_stage_name_all_files_that_it_wrote(whole):
    study = load_study(whole)
    found = dict(stage_folders(study))
    assert found.keys() == {run.stage for run in stage_runs(study).values()}
    for name, out in stage_folders(study):
        patterns = (*RECORD_FILES, *load_stage(name).OUTPUTS)
        expected = {path for pattern in patterns for path in out.glob(pattern)}
        assert {path for path in out.rglob("*") if path.is_file()} <= expected, name
        assert {out / file for file in read_completion(out).manifest.files} <= expected, name


def test_queries_write_nothing(copied):
    study = load_study(copied)
    for path in study.folder.glob("pretrain/cohort-*.json"):
        path.unlink()  # a query must not freeze a cohort either
    before = file_times(copied.parent)
    for run in stage_runs(study).values():
        assert load_stage(run.stage).inputs(study, **run.wildcards)
        assert stage_key(run.stage, study, run.wildcards)
    assert status_table(study).row_count == len(stage_runs(study))
    print_estimates(study, None)
    assert file_times(copied.parent) == before


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A stage of one's own: one module, and one line in the registry."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "count_scans.py").write_text(textwrap.dedent(TOY))
    monkeypatch.setattr(stages, "__path__", [*stages.__path__, str(folder)])
    monkeypatch.setattr(registry, "STAGES", (*STAGES, "count_scans"))
    return "count_scans"


@pytest.fixture
def main(toy, monkeypatch):
    """The command line of a program that starts with the stage in the registry."""
    monkeypatch.delitem(sys.modules, "stages.cli", raising=False)
    return importlib.import_module("stages.cli").main


def test_a_stage_is_one_module_and_one_line(toy, main, study_file, capsys):
    study = load_study(study_file)
    with pytest.raises(UserError, match="run the stage inventory first"):
        run_stage(toy, study, {})
    run_stage("inventory", study, {})
    run_stage(toy, study, {})
    assert (study.folder / toy / "count.txt").read_text() == "6"
    assert "6 scans counted" in capsys.readouterr().out
    run_stage(toy, study, {})
    assert "count_scans: nothing to do" in capsys.readouterr().out
    assert main([toy, "--config", str(study_file)]) == 0
    assert "count_scans: nothing to do" in capsys.readouterr().out
    assert toy in stage_runs(study) and (toy, study.folder / toy) in stage_folders(study)
    assert main(["status", "--config", str(study_file)]) == 0
    assert "count_scans" in capsys.readouterr().out
