"""An ablation: arms of equal cost beside random weights, from one command to one table."""

import pytest
import yaml

from ssl_pipeline.atomic import read_json, sha256_file
from ssl_pipeline.errors import UserError
from stages.clean import clean
from stages.contract import perform
from stages.parts import of_trial, parts
from stages.status import table
from stages.study import load
from stages.trials import planned, trial_of, trials
from stages.verify import verify
from tests.conftest import write_study

WEIGHTS = "encoder/encoder.safetensors"
ARMS = {"mae": {"name": "mae"}, "hybrid": {"name": "hybrid"}}


def compared(folder, **ablate):
    """The tiny study with one task, an ablation, and 12 steps; its file."""
    file = write_study(folder)
    content = yaml.safe_load(file.read_text())
    content["tasks"].pop("tissue")
    content["training"]["steps"] = 12
    content["ablate"] = {"seeds": 2, "arms": ARMS, **ablate}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The whole ablation, and the study's own encoder and judgement; do not change it."""
    file = compared(tmp_path_factory.mktemp("ablate"))
    study = load(file)
    for part in parts(study).values():
        if part.stage != "report":
            perform(part.stage, load_part(file, part), part.wildcards)
    return load(file)


def load_part(file, part):
    """As the door reads the study, or the trial, of a part when its turn comes."""
    study = load(file)
    return trial_of(study, part.study.trial) if part.study.trial else study


def out(study, stage, **wildcards):
    return study.stage_folder(stage, wildcards)


def test_all_arms_take_the_operations_of_the_study(done):
    budget = read_json(done.folder / "budget/steps.json")
    own = budget["arms"]["hybrid"]  # the study's own objective
    assert own["steps"] == done.training.steps
    assert budget["flops"] == pytest.approx(own["steps"] * own["step_flops"], abs=own["steps"])
    mae = budget["arms"]["mae"]
    assert mae["step_flops"] < own["step_flops"]
    assert abs(mae["steps"] * mae["step_flops"] - budget["flops"]) <= mae["step_flops"] / 2
    trained = read_json(out(trial_of(done, "mae-1"), "pretrain") / "run.json")
    assert trained["steps"] == mae["steps"] > done.training.steps


def test_the_first_trial_of_the_studys_objective_is_its_own_run(done):
    again = out(trial_of(done, "hybrid-0"), "pretrain") / WEIGHTS
    assert sha256_file(again) == sha256_file(out(done, "pretrain") / WEIGHTS)
    other = out(trial_of(done, "hybrid-1"), "pretrain") / WEIGHTS
    assert sha256_file(again) != sha256_file(other)


def test_random_weights_are_judged_as_in_the_study_itself(done):
    own = read_json(out(done, "probe", task="side") / "results.json")["rows"]
    alone = read_json(out(trial_of(done, "random-0"), "probe", task="side") / "results.json")
    assert alone["rows"] == [row for row in own if row["init"] != "pretrained"]
    assert alone["differences"] == []


def test_the_table_holds_every_arm_and_method(done):
    results = read_json(done.folder / "ablate/results.json")
    assert [arm["name"] for arm in results["arms"]] == list(ARMS)
    assert all(len(arm["verdicts"]) == 2 for arm in results["arms"])
    assert [(t["name"], t["stage"]) for t in results["tables"]] == [
        ("side", "probe"),
        ("side", "finetune"),
    ]
    probed = results["tables"][0]
    rows = {(row["arm"], row["method"]): row for row in probed["rows"]}
    assert len(rows) == 4 * 2  # arms, random weights, pixels; kNN and linear
    own = read_json(out(trial_of(done, "mae-1"), "probe", task="side") / "results.json")["rows"]
    assert rows["mae", "knn"]["per_seed"][1] == pytest.approx(own[0]["mean"], abs=1e-6)
    text = (done.folder / "ablate/ablation.md").read_text()
    assert "hybrid less mae" in text and "pixels + PCA" in text


def test_everything_is_done_and_told_of(done, capsys):
    names = list(parts(done))
    assert names.index("budget") < names.index("pretrain@mae-0") < names.index("ablate")
    assert "pretrain@random-0" not in names
    for part in parts(done).values():
        if part.stage != "report":
            perform(part.stage, part.study, part.wildcards)
    assert capsys.readouterr().out.count("nothing to do") == len(names) - 1
    shown = {column.header: list(column.cells) for column in table(done).columns}
    assert shown["stage"] == names
    trained = [name.startswith("pretrain") for name in names]
    assert [verdict == "healthy" for verdict in shown["verdict"]] == trained
    verify(done, remove=False)


def test_parts_that_are_not_done_are_named(tmp_path):
    study = load(compared(tmp_path))
    with pytest.raises(UserError, match=r"16 parts of the trials 16 are not done.*snakemake"):
        perform("ablate", study, {})
    with pytest.raises(UserError, match="stage preprocess first"):
        perform("budget", study, {})


def test_trials_that_are_not_there_are_refused(tmp_path, study):
    with pytest.raises(UserError, match="section `ablate`"):
        trial_of(study, "mae-0")
    with pytest.raises(UserError, match=r"no trial mea-0.*mae-0"):
        trial_of(load(compared(tmp_path)), "mea-0")


@pytest.mark.parametrize(
    "change, said",
    [
        ({"ablate": {"arms": {"random": {"name": "mae"}}}}, "means random weights"),
        ({"ablate": {"seeds": 1}}, "greater than or equal to 2"),
        ({"evaluate": {"encoders": {"other": "elsewhere"}}}, "encoders of its own"),
        ({"training": {"steps": 9, "extends": {"steps": 3}}}, "encoders of its own"),
    ],
)
def test_ablations_that_make_no_sense_are_refused(tmp_path, change, said):
    file = compared(tmp_path)
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | change))
    with pytest.raises(UserError, match=said):
        load(file)


def test_the_plan_of_a_trial_does_not_wait_for_its_steps(done):
    assert planned(done, "mae-0").training == done.training
    assert trial_of(done, "mae-0").training != done.training


def test_trials_that_the_study_has_no_more_may_go(tmp_path, capsys):
    file = compared(tmp_path)
    for name in ("inventory", "preprocess", "budget"):
        perform(name, load(file), {})
    perform("pretrain", trial_of(load(file), "mae-0"), {})
    content = yaml.safe_load(file.read_text())
    content["ablate"]["arms"].pop("mae")
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    clean(load(file), everything=False, agreed=True)
    assert "trials that the ablation has no more" in capsys.readouterr().out
    assert not (tmp_path / "out/trials").exists()
    assert (tmp_path / "out/preprocess/catalog.parquet").exists()


def test_a_study_without_an_ablation_has_no_part_of_one(study):
    assert trials(study) == [] and {"budget", "ablate"}.isdisjoint(parts(study))


def test_trials_know_their_parts(done):
    assert [part.name for part in of_trial(trial_of(done, "random-1"))] == [
        "probe-side@random-1",
        "finetune-side@random-1",
    ]
