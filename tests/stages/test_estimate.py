"""What a study will take, said before it runs, against what it then took."""

import json
import re
import shutil

import pytest

from stages.estimate import estimate
from stages.judgement import judged
from stages.need import known
from stages.parts import parts
from stages.study import load
from tests.stages.conftest import door

CLOSE = pytest.approx(1, abs=0.3)


@pytest.fixture
def unrun(whole, tmp_path):
    """The study of `whole`, with its raw scans, where nothing has run yet."""
    shutil.copy(whole.parent / "test.txt", tmp_path)
    study = tmp_path / "tiny.yaml"
    output = f"output: {whole.parent}/out"
    assert output in whole.read_text()
    study.write_text(whole.read_text().replace(output, f"output: {tmp_path}/out"))
    return study


def test_bytes_files_and_memory_are_those_that_it_then_takes(whole, unrun):
    before, after = load(unrun), load(whole)
    seen = known(before, headers=True)
    assert seen.how == "counted: 6, by their headers"
    expected = used = 0.0
    for full_name, part in parts(after).items():
        need = estimate(part.stage, before, part.wildcards, seen, None).need
        out = part.out
        files = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
        record = json.loads((out / "provenance.json").read_text())
        assert need.files.value == len(files), full_name
        assert need.memory.value / 2**30 / record["peak_memory_gib"] == CLOSE, full_name
        if part.stage in ("preprocess", "pretrain"):  # what nearly all bytes are in
            assert need.disk.value / sum(files) == CLOSE, full_name
        expected, used = expected + need.disk.value, used + sum(files)
    assert expected / used == CLOSE


def test_only_scans_that_a_task_may_learn_from_are_counted(unrun):
    study = load(unrun)
    side = study.tasks["side"]
    found = []
    for only in ({}, {"side": ("0",)}, {"side": ("unheard of",)}):
        tasks = study.tasks | {"side": side.model_copy(update={"train_on": only})}
        changed = study.model_copy(update={"tasks": tasks})
        found.append(judged(known(changed, headers=True), changed, "side").train_subjects)
    assert found == [4, 2, 4]  # of a value that nobody has, nothing is known yet


def test_a_study_that_has_run_tells_what_was_measured(whole):
    said = door("estimate", "--config", whole).stdout
    assert "counted: 6 in the inventory" in said
    assert "measured: 6 volumes that are stored" in said
    assert re.search(r"measured: [\d.]+ pairs/s in runs/", said)
    record = json.loads((whole.parent / "out/finetune/tissue/provenance.json").read_text())
    peak = record["peak_memory_gib"] * 2**30 / 1e6
    assert re.search(rf"^finetune-tissue .* {peak:.1f} MB ", said, re.M), said


def test_other_dials_take_the_measured_rate_along(whole, unrun):
    shutil.copytree(whole.parent / "out", unrun.parent / "out")
    unrun.write_text(unrun.read_text().replace("steps: 6", "steps: 600"))
    study = load(unrun)
    found = estimate("pretrain", study, {}, known(study, headers=True), None)
    took = json.loads((whole.parent / "out/pretrain/provenance.json").read_text())["wall_s"]
    assert found.need.seconds.how.startswith("measured: ") and found.need.seconds.value > took
    assert found.need.memory.how.startswith("assumed: ")


def test_every_limit_gives_a_number_of_requeues(unrun):
    unrun.write_text(unrun.read_text().replace("steps: 6", "steps: 6000000"))
    cluster = unrun.with_name("cluster.yaml")
    cluster.write_text(
        "defaults: {time_min: 1, notice_s: 50, requeues: 7}\nstages: {pretrain: {gpus: 1}, probe: }"
    )
    done = door("estimate", "--config", unrun, "--on", cluster)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^probe-side .* 1 min +0$", done.stdout, re.M), done.stdout
    requeues = re.search(r"^pretrain .* CPU-h +\d+ min +(\d+), 7 allowed$", done.stdout, re.M)
    assert requeues and int(requeues[1]) > 1000, "training.device is cpu, whatever the job gets"


def test_a_study_without_scans_says_what_it_assumes(unrun):
    text = unrun.read_text()
    unrun.write_text(re.sub(r"path: \S+/raw/images", "path: /nowhere", text))
    done = door("estimate", "--config", unrun)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1 and "there is no folder /nowhere" in done.stderr
    assert "assumed: 100 of 512 x 512 x 150 voxels, for none is here yet" in done.stdout
    assert "counted: 2 a volume" not in done.stdout


def test_an_inventory_without_a_scan_that_can_be_used_is_none(unrun):
    unrun.write_text(unrun.read_text().replace("min_axis_voxels: 8", "min_fov_mm: 900"))
    assert door("inventory", "--config", unrun).returncode == 2
    assert known(load(unrun), headers=False).how.startswith("assumed: 1 of 512 x 512 x ")
