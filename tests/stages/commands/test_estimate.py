"""Estimates of a study before it runs, against what it then took."""

import json
import math
import re
import shutil
from types import SimpleNamespace

import pytest
import yaml

from stages.commands.estimate import estimate_stage, print_estimates
from stages.core.resources import dataset_size
from stages.core.stage_runs import stage_runs
from stages.core.study_file import load_study
from stages.core.workflow import Workflow
from stages.evaluation_inputs import cost_inputs
from tests.stages.conftest import run_cli, unrun_study

CLOSE = pytest.approx(1, abs=0.3)


@pytest.fixture
def unrun(whole, tmp_path):
    """The study of `whole`, with its raw scans, where nothing has run yet."""
    return unrun_study(whole, tmp_path)


def test_bytes_and_files_are_those_that_it_then_takes(whole, unrun):
    before, after = load_study(unrun), load_study(whole)
    seen = dataset_size(before)
    assert seen.basis == "counted: 6, by their headers"
    expected = used = 0.0
    for full_name, part in stage_runs(after).items():
        need = estimate_stage(part.stage, before, part.wildcards, seen, None).resource_estimate
        out = part.out
        files = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
        assert need.files.value == len(files), full_name
        if part.stage in ("preprocess", "pretrain"):  # what nearly all bytes are in
            assert need.disk.value / sum(files) == CLOSE, full_name
        expected, used = expected + need.disk.value, used + sum(files)
    assert expected / used == CLOSE


def test_a_rule_asks_for_what_is_estimated_and_more_time(study_file, capsys):
    study = load_study(study_file)
    of_snakemake = SimpleNamespace(default_resources=None)
    rules = Workflow(
        {"study": str(study_file)}, SimpleNamespace(cores=2, resource_settings=of_snakemake)
    )
    print_estimates(study, None)
    said = capsys.readouterr().out
    assert "counted: 6, by their headers" in said
    assert "the rules' `runtime` is 3 times as long" in said
    need = estimate_stage("preprocess", study, {}, dataset_size(study), None)
    asked = {key: of({}) for key, of in rules.resources("preprocess").items()}
    assert asked["disk_mb"] == math.ceil(need.resource_estimate.disk.value / 1e6)
    assert asked["runtime"] == math.ceil(3 * need.wall_s / 60)


def test_only_scans_that_a_task_may_learn_from_are_counted(unrun):
    study = load_study(unrun)
    side = study.tasks["side"]
    found = []
    for only in ({}, {"side": ("0",)}, {"side": ("unheard of",)}):
        tasks = study.tasks | {"side": side.model_copy(update={"train_on": only})}
        changed = study.model_copy(update={"tasks": tasks})
        found.append(cost_inputs(dataset_size(changed), changed, "side").train_subjects)
    assert found == [4, 2, 4]  # of a value that nobody has, nothing is known yet


def test_a_finished_study_reports_measured_quantities(whole):
    said = run_cli("estimate", "--config", whole).stdout
    assert "counted: 6 in the inventory" in said
    assert "measured: 6 volumes that are stored" in said
    assert re.search(r"measured: [\d.]+ samples/s in runs/", said)
    record = json.loads((whole.parent / "out/finetune/tissue/provenance.json").read_text())
    peak = record["peak_memory_gib"] * 2**10
    assert re.search(rf"^finetune-tissue .* {peak:.1f} MiB ", said, re.M), said


def test_the_measured_rate_holds_for_other_settings(whole, unrun):
    shutil.copytree(whole.parent / "out", unrun.parent / "out")
    unrun.write_text(unrun.read_text().replace("steps: 6", "steps: 600"))
    study = load_study(unrun)
    found = estimate_stage("pretrain", study, {}, dataset_size(study), None)
    took = json.loads((whole.parent / "out/pretrain/provenance.json").read_text())["wall_s"]
    assert (
        found.resource_estimate.seconds.basis.startswith("measured: ")
        and found.resource_estimate.seconds.value > took
    )
    assert found.resource_estimate.memory.basis.startswith("assumed: ")


def test_hours_are_what_a_run_takes_and_steps_follow(unrun):
    unrun.write_text(unrun.read_text().replace("steps: 6", "hours: 2"))
    study = load_study(unrun)
    seconds = estimate_stage(
        "pretrain", study, {}, dataset_size(study), None
    ).resource_estimate.seconds
    assert seconds.value == 2 * 3600  # of one thread
    assert re.match(r"counted: training\.hours; about \d+ steps, assumed: ", seconds.basis)


def test_every_limit_gives_a_number_of_requeues(unrun):
    unrun.write_text(unrun.read_text().replace("steps: 6", "steps: 6000000"))
    cluster = unrun.with_name("cluster.yaml")
    cluster.write_text(
        "defaults: {time_min: 1, signal_before_end_s: 50, max_requeues: 7}\n"
        "stages: {pretrain: {gpus: 1}, probe: }"
    )
    done = run_cli("estimate", "--config", unrun, "--on", cluster)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^probe-side .* 1 min +0$", done.stdout, re.M), done.stdout
    requeues = re.search(r"^pretrain .* CPU-h +\d+ min +(\d+), 7 allowed$", done.stdout, re.M)
    assert requeues and int(requeues[1]) > 1000, "training.device is cpu, whatever the job gets"


def test_a_study_without_scans_states_its_assumptions(unrun):
    text = unrun.read_text()
    unrun.write_text(re.sub(r"path: \S+/raw/images", "path: /nowhere", text))
    done = run_cli("estimate", "--config", unrun)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1 and "there is no folder /nowhere" in done.stderr
    assert "assumed: 100 of 512 x 512 x 150 voxels, for none is here yet" in done.stdout
    assert "counted: 2 a volume" not in done.stdout


def test_steps_that_follow_from_labels_are_said(unrun):
    content = yaml.safe_load(unrun.read_text())
    content["finetune"] = {"subjects": [2, 0]}
    unrun.write_text(yaml.safe_dump(content))
    study = load_study(unrun)
    need = estimate_stage("finetune", study, {"task": "tissue"}, dataset_size(study), None)
    few, many = (study.tasks["tissue"].finetune_section(study.finetune, n).steps for n in (2, 4))
    assert few < many
    assert f"of {few} to {many} steps of 2 crops" in need.resource_estimate.seconds.basis


def test_an_inventory_without_a_scan_that_can_be_used_is_none(unrun):
    unrun.write_text(unrun.read_text().replace("min_axis_voxels: 8", "min_fov_mm: 900"))
    assert run_cli("inventory", "--config", unrun).returncode == 2
    assert dataset_size(load_study(unrun)).basis == "counted: 6, by their headers"
