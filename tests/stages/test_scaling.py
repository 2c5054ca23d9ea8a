"""Lengths of pretraining compared: the shorter runs, the study's own encoder and one table."""

import pytest
import yaml

from ssl_pipeline.errors import UserError
from stages.core.runner import run_stage
from stages.core.stage_runs import stage_runs
from stages.core.study_file import load_study
from stages.core.trials import trial_of, trials
from tests.conftest import read_json, write_study


def write_scaling(folder, **scaling):
    """The tiny study with one task that is probed, and 8 steps; its file."""
    file = write_study(folder)
    content = yaml.safe_load(file.read_text())
    content["tasks"].pop("tissue")
    content["tasks"]["side"]["stages"] = ["probe"]
    content["training"]["steps"] = 8
    content["scaling"] = {"shares": [0.25], **scaling}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The whole comparison, and the report; do not change it."""
    file = write_scaling(tmp_path_factory.mktemp("scaling"))
    for run in stage_runs(load_study(file)).values():
        if run.stage != "inventory_page":
            run_stage(run.stage, run.study, run.wildcards)
    return load_study(file)


def test_the_studys_own_encoder_is_the_last_length(done):
    results = read_json(done.folder / "scaling/results.json")
    assert [(arm["name"], arm["steps"]) for arm in results["arms"]] == [
        ("share_25", 2),
        ("share_100", 8),
    ]
    assert results["arms"][1]["samples"] == 8 * done.training.batch_size
    trained = trial_of(done, "share_25-0").stage_folder("pretrain", {})
    assert read_json(trained / "run.json")["steps"] == 2
    own = read_json(done.stage_folder("probe", {"task": "side"}) / "results.json")["rows"]
    table = {(row["arm"], row["method"]): row["mean"] for row in results["tables"][0]["rows"]}
    names = {"pretrained": "share_100"}  # baselines keep theirs
    for row in own:
        arm = names.get(row["initialization"], row["initialization"])
        assert table[arm, row["method"]] == pytest.approx(row["mean"], abs=1e-6)
    assert ("share_25", "linear") in table


def test_the_report_shows_what_the_last_step_up_has_bought(done):
    page = (done.folder / "report/report.html").read_text()
    assert "What more pretraining has bought" in page and "against samples seen" in page
    tables = (done.folder / "report/report.md").read_text()
    assert "from 2 to 8 steps" in tables
    assert "8 steps minus 2 steps" in (done.folder / "scaling/scaling.md").read_text()


def test_every_seed_but_the_studys_own_is_a_trial(tmp_path):
    study = load_study(write_scaling(tmp_path, seeds=2))
    names = [trial.trial for trial in trials(study)]
    assert names == ["share_25-0", "share_25-1", "share_100-1", "random-1"]
    steps = {trial.trial: trial.training.steps for trial in trials(study)[:3]}
    assert steps == {"share_25-0": 2, "share_25-1": 2, "share_100-1": 8}


@pytest.mark.parametrize(
    "change, said",
    [
        ({"scaling": {"shares": [0.5, 0.25]}}, "give each once, rising"),
        ({"scaling": {"shares": [1]}}, "less than 1"),
        ({"ablate": {"arms": {"share_25": {"name": "mae"}}}}, "is a length of scaling"),
        ({"evaluate": {"encoders": {"other": "elsewhere"}}}, "scaling trains encoders of its own"),
        (
            {"objective": {"name": "dino", "teacher_momentum": 0.7}},
            "the shortest run of scaling has steps: 2",
        ),
    ],
)
def test_comparisons_that_make_no_sense_are_refused(tmp_path, change, said):
    file = write_scaling(tmp_path)
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | change))
    with pytest.raises(UserError, match=said):
        load_study(file)


def test_runs_that_are_not_done_are_named(tmp_path, study):
    with pytest.raises(UserError, match=r"are not done.*snakemake --profile local scaling"):
        run_stage("scaling", load_study(write_scaling(tmp_path)), {})
    with pytest.raises(UserError, match="give it a section `scaling`"):
        run_stage("scaling", study, {})
