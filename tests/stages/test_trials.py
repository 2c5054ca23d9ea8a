"""Trials: arms of equal cost beside random weights, and lengths of pretraining, in one study."""

import pytest
import yaml

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import sha256_file
from stages.commands.clean import clean_study
from stages.commands.status import status_table
from stages.commands.verify import verify_study
from stages.core.runner import run_stage
from stages.core.stage_runs import runs_of_trial, stage_runs
from stages.core.study_file import load_study
from stages.core.trials import planned_trial, trial_of, trials
from tests.conftest import read_json, write_study

WEIGHTS = "encoder/encoder.safetensors"
ARMS = {"mae": {"name": "mae"}, "hybrid": {"name": "hybrid"}}


def write_trials(folder, scaling=None, **ablate):
    """The tiny study with one task that is probed, 12 steps, an ablation and scaling; its file."""
    file = write_study(folder)
    content = yaml.safe_load(file.read_text())
    content["tasks"].pop("tissue")
    content["training"]["steps"] = 12
    content["tasks"]["side"]["stages"] = ["probe"]
    content["ablate"] = {"seeds": 2, "arms": ARMS, **ablate}
    content["scaling"] = {"shares": [0.25], **(scaling or {})}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """All trials, and the study's own encoder, evaluation and report; do not change it."""
    file = write_trials(tmp_path_factory.mktemp("trials"))
    study = load_study(file)
    for part in stage_runs(study).values():
        if part.stage != "inventory_page":
            run_stage(part.stage, load_run(file, part), part.wildcards)
    return load_study(file)


def load_run(file, stage_run):
    """The study, or the trial, of a run as the command line loads it."""
    study = load_study(file)
    return trial_of(study, stage_run.study.trial) if stage_run.study.trial else study


def stage_folder(study, stage, **wildcards):
    return study.stage_folder(stage, wildcards)


def test_all_arms_take_the_operations_of_the_study(done):
    budget = read_json(done.folder / "flop_budget/steps.json")
    own = budget["arms"]["hybrid"]  # the study's own objective
    assert own["steps"] == done.training.steps
    assert budget["flops"] == pytest.approx(own["steps"] * own["step_flops"], abs=own["steps"])
    mae = budget["arms"]["mae"]
    assert mae["step_flops"] < own["step_flops"]
    assert abs(mae["steps"] * mae["step_flops"] - budget["flops"]) <= mae["step_flops"] / 2
    trained = read_json(stage_folder(trial_of(done, "mae-1"), "pretrain") / "run.json")
    assert trained["steps"] == mae["steps"] > done.training.steps


def test_the_first_trial_of_the_studys_objective_is_its_own_run(done):
    again = stage_folder(trial_of(done, "hybrid-0"), "pretrain") / WEIGHTS
    assert sha256_file(again) == sha256_file(stage_folder(done, "pretrain") / WEIGHTS)
    other = stage_folder(trial_of(done, "hybrid-1"), "pretrain") / WEIGHTS
    assert sha256_file(again) != sha256_file(other)


def test_random_weights_are_evaluated_as_in_the_study_itself(done):
    own = read_json(stage_folder(done, "probe", task="side") / "results.json")["rows"]
    alone = read_json(
        stage_folder(trial_of(done, "random-0"), "probe", task="side") / "results.json"
    )
    assert alone["rows"] == [row for row in own if row["initialization"] != "pretrained"]
    assert alone["differences"] == []


def test_the_table_holds_every_arm_and_method(done):
    results = read_json(done.folder / "ablate/results.json")
    assert [arm["name"] for arm in results["arms"]] == list(ARMS)
    assert all(len(arm["diagnoses"]) == 2 for arm in results["arms"])
    assert [(t["name"], t["stage"]) for t in results["tables"]] == [("side", "probe")]
    probed = results["tables"][0]
    rows = {(row["arm"], row["method"]): row for row in probed["rows"]}
    assert len(rows) == 4 * 2  # arms, random weights, pixels; kNN and linear
    own = read_json(stage_folder(trial_of(done, "mae-1"), "probe", task="side") / "results.json")[
        "rows"
    ]
    assert rows["mae", "knn"]["per_seed"][1] == pytest.approx(own[0]["mean"], abs=1e-6)
    text = (done.folder / "ablate/ablation.md").read_text()
    assert "hybrid minus mae" in text and "pixels + PCA" in text


def test_every_run_is_done_and_shown_by_status(done, capsys):
    names = list(stage_runs(done))
    assert names.index("flop_budget") < names.index("pretrain@mae-0") < names.index("ablate")
    assert "pretrain@random-0" not in names
    for part in stage_runs(done).values():
        if part.stage != "inventory_page":
            run_stage(part.stage, part.study, part.wildcards)
    assert capsys.readouterr().out.count("nothing to do") == len(names) - 1
    shown = {column.header: list(column.cells) for column in status_table(done).columns}
    assert shown["stage"] == names
    trained = [name.startswith("pretrain") for name in names]
    assert [diagnosis == "healthy" for diagnosis in shown["diagnosis"]] == trained
    verify_study(done, remove=False)


def test_runs_that_are_not_done_are_named(tmp_path):
    study = load_study(write_trials(tmp_path))
    with pytest.raises(UserError, match=r"10 runs of the trials 10 are not.*snakemake.* ablate"):
        run_stage("ablate", study, {})
    with pytest.raises(UserError, match="stage preprocess first"):
        run_stage("flop_budget", study, {})
    with pytest.raises(UserError, match=r"are not done.*snakemake --profile local scaling"):
        run_stage("scaling", study, {})


def test_trials_that_are_not_there_are_refused(tmp_path, study):
    with pytest.raises(UserError, match="section `ablate`"):
        trial_of(study, "mae-0")
    with pytest.raises(UserError, match="give it a section `scaling`"):
        run_stage("scaling", study, {})
    with pytest.raises(UserError, match=r"no trial mea-0.*mae-0"):
        trial_of(load_study(write_trials(tmp_path)), "mea-0")


@pytest.mark.parametrize(
    "change, said",
    [
        ({"ablate": {"arms": {"random": {"name": "mae"}}}}, "means random weights"),
        ({"ablate": {"recolour": {"mea": {}}}}, "recolour names mea.*did you mean mae"),
        ({"ablate": {"seeds": 1}}, "greater than or equal to 2"),
        ({"evaluate": {"encoders": {"other": "elsewhere"}}}, "encoders of its own"),
        ({"scaling": {"shares": [0.5, 0.25]}}, "give each once, rising"),
        ({"scaling": {"shares": [1]}}, "less than 1"),
        ({"ablate": {"arms": {"share_25": {"name": "mae"}}}}, "is a length of scaling"),
        (
            {"objective": {"name": "dino", "teacher_momentum": 0.7}},
            "the shortest run of scaling has steps: 3",
        ),
        ({"training": {"steps": 9, "continue_from": {"steps": 3}}}, "encoders of its own"),
    ],
)
def test_comparisons_that_make_no_sense_are_refused(tmp_path, change, said):
    file = write_trials(tmp_path)
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | change))
    with pytest.raises(UserError, match=said):
        load_study(file)


def test_the_plan_of_a_trial_does_not_wait_for_its_steps(done):
    assert planned_trial(done, "mae-0").training == done.training
    assert trial_of(done, "mae-0").training != done.training


def test_an_arm_may_have_a_recolouring_of_its_own(tmp_path):
    file = write_trials(tmp_path, recolour={"hybrid": {"probability": 0.5, "classes": 4}})
    study = load_study(file)
    recoloured, plain = (trial_of(study, name) for name in ("hybrid-1", "mae-1"))
    assert (recoloured.views.recolour.probability, recoloured.views.recolour.classes) == (0.5, 4)
    assert plain.views == study.views
    assert recoloured.views.crop_voxels == study.views.crop_voxels


def test_an_arm_may_read_what_the_studys_objective_does_not(tmp_path):
    """Each arm's samples have the metadata of its own terms."""
    modality = {"kind": "class", "classes": ["MR", "CT"]}
    term = {"name": "target_prediction", "targets": {"modality": modality}}
    predicted = {"name": "custom", "terms": [{"name": "reconstruction"}, term]}
    study = load_study(
        write_trials(tmp_path, arms={"mae": {"name": "mae"}, "predicted": predicted})
    )
    for name in ("inventory", "preprocess", "flop_budget"):
        run_stage(name, study, {})
    steps = read_json(study.folder / "flop_budget/steps.json")["arms"]
    assert steps["predicted"]["step_flops"] > steps["mae"]["step_flops"] > 0
    run_stage("pretrain", trial_of(load_study(tmp_path / "tiny.yaml"), "predicted-0"), {})


def test_trials_that_the_study_has_no_more_may_go(tmp_path, capsys):
    file = write_trials(tmp_path)
    for name in ("inventory", "preprocess", "flop_budget"):
        run_stage(name, load_study(file), {})
    run_stage("pretrain", trial_of(load_study(file), "mae-0"), {})
    content = yaml.safe_load(file.read_text())
    content["ablate"]["arms"].pop("mae")
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    clean_study(load_study(file), remove_all=False, assume_yes=True)
    assert "trials that the study no longer has" in capsys.readouterr().out
    assert not (tmp_path / "out/trials").exists()
    assert (tmp_path / "out/preprocess/catalog.parquet").exists()


def test_a_study_without_an_ablation_has_no_runs_of_one(study):
    assert trials(study) == [] and {"flop_budget", "ablate"}.isdisjoint(stage_runs(study))


def test_trials_list_their_runs(done):
    names = [part.name for part in runs_of_trial(trial_of(done, "random-1"))]
    assert names == ["probe-side@random-1"]


def test_the_studys_own_encoder_is_the_last_length(done):
    results = read_json(done.folder / "scaling/results.json")
    lengths = [(arm["name"], arm["steps"]) for arm in results["arms"]]
    assert lengths == [("share_25", 3), ("share_100", 12)]
    assert results["arms"][1]["samples"] == 12 * done.training.batch_size
    trained = read_json(stage_folder(trial_of(done, "share_25-0"), "pretrain") / "run.json")
    assert trained["steps"] == 3
    own = read_json(stage_folder(done, "probe", task="side") / "results.json")["rows"]
    table = {(row["arm"], row["method"]): row["mean"] for row in results["tables"][0]["rows"]}
    for row in own:
        arm = "share_100" if row["initialization"] == "pretrained" else row["initialization"]
        assert table[arm, row["method"]] == pytest.approx(row["mean"], abs=1e-6)
    assert ("share_25", "linear") in table


def test_the_report_shows_what_the_last_step_up_has_bought(done):
    page = (done.folder / "report/report.html").read_text()
    assert "What more pretraining has bought" in page and "against samples seen" in page
    assert "from 3 to 12 steps" in (done.folder / "report/report.md").read_text()
    assert "12 steps minus 3 steps" in (done.folder / "scaling/scaling.md").read_text()


def test_every_seed_but_the_studys_own_is_a_trial_of_scaling(tmp_path):
    study = load_study(write_trials(tmp_path, scaling={"seeds": 2}))
    steps = {trial.trial: trial.training.steps for trial in trials(study)}
    assert steps == {
        **{f"{arm}-{seed}": 12 for arm in (*ARMS, "random") for seed in (0, 1)},
        **{"share_25-0": 3, "share_25-1": 3, "share_100-1": 12},
    }
