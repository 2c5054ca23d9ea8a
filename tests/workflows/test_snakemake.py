"""What a Snakemake user expects of the workflow, on real small volumes."""

import gzip
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages import probe
from stages.commands.estimate import estimate_stage
from stages.core.resources import dataset_size
from stages.core.stage_runs import stage_runs
from stages.core.study_file import load_study
from tests.command_line import ROOT, can_be_offline, offline_prefix, run_forked
from tests.conftest import read_json, write_study
from tests.stages.conftest import run_cli, unrun_study

PROFILE = ["--profile", "workflows/profiles/local"]


HOSTILE_NAME = "a 'study' $HOME $(touch EXECUTED) `touch EXECUTED` {v1}.yaml"


def snakemake(study, *words, code=0, root=ROOT, program="snakemake", path=None):
    words = [*PROFILE, "--config", f"study={study}", *words]
    environment = {**os.environ, "PYTHONPATH": str(root), "PATH": path or os.environ["PATH"]}
    if root == ROOT and program == "snakemake":
        done = run_forked(program, words, cwd=root, env=environment)
    else:
        command = [program, *words]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def planned_rules(study, *words, root=ROOT):
    """The rules that a run would execute."""
    said = snakemake(study, "-n", *words, root=root)
    table = said.split("Job stats:")[-1] if "Job stats:" in said else ""
    return set(re.findall(r"^(\w+) +\d+$", table, re.MULTILINE)) - {"total", "all", "job"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study that Snakemake has run, without a network if possible; copy it before changing it."""
    study = write_study(tmp_path_factory.mktemp("flow"))
    command = [*offline_prefix(), "snakemake", *PROFILE, "--config", f"study={study}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return study


@pytest.fixture
def study(finished):
    """The finished study in its own place (Snakemake's records go by path); put back afterwards.

    Snakemake's records of what a test has rerun stay: tests of `finished` alone come before.
    """
    folder = finished.parent
    kept = folder.with_name(folder.name + "-kept")
    shutil.copytree(folder, kept, copy_function=shutil.copy2)
    yield finished
    shutil.rmtree(folder)
    kept.rename(folder)


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    """A study run by hand up to the probe, of which Snakemake has no record; leave it as it is."""
    study = write_study(tmp_path_factory.mktemp("by-hand"))
    for name, *words in (["inventory"], ["preprocess"], ["pretrain"], ["probe", "task=side"]):
        assert run_cli(name, "--config", study, *words).returncode == 0
    return study


REST = {"inventory_page", "finetune", "report"}
EVERYTHING = {
    "inventory", "inventory_page", "preprocess", "pretrain", "probe", "finetune", "report",
}  # fmt: skip


def test_a_dry_run_of_a_new_study_plans_everything(tmp_path):
    assert planned_rules(write_study(tmp_path)) == EVERYTHING


def test_a_promotion_goes_before_the_report_and_is_a_target_too(tmp_path):
    study = write_study(tmp_path)
    registry = f"promote: {{registry: {tmp_path}/registry, name: head, gain: {{side: 0.1}}}}\n"
    study.write_text(study.read_text() + registry)
    assert planned_rules(study, "--", "promote") == {
        "inventory", "preprocess", "pretrain", "probe", "finetune", "promote",
    }  # fmt: skip
    assert planned_rules(study) == {*EVERYTHING, "promote"}


def test_an_ablation_is_a_target_of_its_own(tmp_path):
    study = write_study(tmp_path)
    assert "no objectives" in snakemake(study, "--", "ablate", code=1)
    study.write_text(study.read_text() + "ablate: {seeds: 2}\n")
    data = {"inventory", "preprocess", "flop_budget"}
    trials = {"pretrain_trial", "probe_trial", "finetune_trial"}
    assert planned_rules(study, "--", "ablate") == {*data, *trials, "ablate"}
    commands = re.findall("python -m stages (.*)", snakemake(study, "-n", "-p", "--", "ablate"))
    of_trials = [each for each in commands if each.split()[0] in ("pretrain", "probe", "finetune")]
    assert of_trials and all(" trial=" in command for command in of_trials)
    assert planned_rules(study) == EVERYTHING


def test_lengths_of_pretraining_are_a_target_of_their_own(tmp_path):
    study = write_study(tmp_path)
    study.write_text(study.read_text() + "scaling: {}\n")
    trials = {"pretrain_trial", "probe_trial", "finetune_trial"}
    own = EVERYTHING - {"inventory_page", "report"}
    assert planned_rules(study, "--", "scaling") == {*own, *trials, "scaling"}
    assert planned_rules(study) == EVERYTHING


def test_a_finished_study_has_nothing_to_do(finished):
    assert planned_rules(finished) == set()
    assert "Nothing to be done" in snakemake(finished)
    said = snakemake(finished, "--force", "--", "inventory_page")
    assert f"The report is {finished.parent}/out/report/report.html." in said
    assert (finished.parent / "out/report/report.html").exists()


def test_no_stage_but_download_needs_a_network(finished):
    if not can_be_offline():
        pytest.skip("this machine lets no process do without a network")
    assert (finished.parent / "out/report/report.html").exists(), "made without one"


def test_each_stage_takes_the_memory_that_was_estimated(finished, tmp_path):
    """Where each has a process of its own, which holds nothing else."""
    before = load_study(unrun_study(finished, tmp_path))
    scans = dataset_size(before)
    for name, part in stage_runs(load_study(finished)).items():
        need = estimate_stage(part.stage, before, part.wildcards, scans, None).resource_estimate
        took = read_json(part.out / "provenance.json")["peak_memory_gib"]
        assert need.memory.value / 2**30 / took == pytest.approx(1, abs=0.3), name


def test_a_dry_run_writes_nothing(finished):
    files = [path for path in finished.parent.rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    planned_rules(finished, "--forceall")
    files = [path for path in finished.parent.rglob("*") if path.is_file()]
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_a_misspelt_task_is_no_target(finished):
    said = snakemake(
        finished, "-n", "--", f"{finished.parent}/out/probe/sidee/manifest.json", code=1
    )
    assert "No rule to produce" in said and "Error" not in said


def test_another_profile_reruns_nothing(finished):
    assert planned_rules(finished, "--profile", "slurm") == set()


def test_any_name_and_date_of_a_study_runs_without_an_activated_environment(study_file):
    hostile = study_file.rename(study_file.with_name(HOSTILE_NAME))
    tomorrow = time.time() + 86_400
    os.utime(hostile, (tomorrow, tomorrow))
    program = Path(sys.executable).with_name("snakemake")
    snakemake(hostile, "--until", "inventory", program=program, path="/usr/bin:/bin")
    manifest = study_file.parent / "out/inventory/manifest.json"
    assert manifest.exists() and not (ROOT / "EXECUTED").exists()
    os.utime(manifest, (tomorrow, tomorrow))  # by a node whose clock is ahead
    snakemake(hostile, "-n")
    assert manifest.stat().st_mtime < tomorrow - 3600, "or no rule after it could end"


def test_a_study_is_one_word_of_make():
    show = ["make", "-s", "--eval", 'show: ; @printf "%s" "$$STUDY"', "show"]
    said = subprocess.run(
        [*show, f"STUDY={HOSTILE_NAME}"], cwd=ROOT, capture_output=True, text=True
    )
    assert said.stdout == HOSTILE_NAME and not (ROOT / "EXECUTED").exists()


def test_what_snakemake_takes_for_something_else_is_one_sentence(study_file):
    assert "names no file: write it as ./NAME.yaml" in snakemake("{a: b}", "-n", code=1)
    edit(study_file, "/out\n", "/out-{v1}\n")
    assert "in which braces would be wildcards of Snakemake" in snakemake(study_file, "-n", code=1)


def test_until_and_forcerun(tmp_path, finished):
    assert planned_rules(write_study(tmp_path), "--until", "preprocess") == {
        "inventory",
        "preprocess",
    }
    assert planned_rules(finished, "--forcerun", "probe") == {"probe", "report"}


def test_the_graph_of_rules(finished):
    assert '"pretrain"' in snakemake(finished, "--rulegraph") or "pretrain" in snakemake(
        finished, "--rulegraph"
    )


def test_snakemakes_own_report(finished, tmp_path):
    snakemake(finished, "--report", str(tmp_path / "snakemake.html"))
    assert (tmp_path / "snakemake.html").stat().st_size > 10_000


def edit(study, old, new):
    text = study.read_text()
    assert old in text
    study.write_text(text.replace(old, new))


def test_new_titles_rerun_nothing_and_head_the_page_when_it_is_asked_for(study):
    study.write_text(study.read_text() + "title: Another title\n")
    edit(study, "title: Tissue", "title: Another tissue")
    assert planned_rules(study) == set()
    said = snakemake(study, "--forcerun", "report")
    assert "the page is" in said and "nothing to do" not in said
    page = (study.parent / "out/report/report.html").read_text()
    assert "Another title" in page and "Another tissue" in page


def test_a_touched_file_reruns_nothing(study):
    os.utime(study.parent / "raw/images/person0.nii.gz")
    os.utime(study.parent / "out/preprocess/manifest.json")
    os.utime(study)
    assert planned_rules(study) == set()


@pytest.mark.parametrize(
    "old, new, rerun",
    [
        ("steps: 6", "steps: 8", {"pretrain", "probe", "finetune", "report"}),
        ("finetune: {steps: 2", "finetune: {steps: 3", {"finetune", "report"}),
        ("confidence: 0.9}", "confidence: 0.8}", {"probe", "finetune", "report"}),
        ("foreground: all", "margin_voxels: 3", EVERYTHING - {"inventory", "inventory_page"}),
    ],
)
def test_one_value_reruns_what_depends_on_it_and_nothing_else(study, old, new, rerun):
    edit(study, old, new)
    assert planned_rules(study) == rerun


def test_a_value_changed_after_stages_were_run_by_hand_reruns_what_depends_on_it(by_hand):
    assert planned_rules(by_hand) == REST
    edit(by_hand, "confidence: 0.9}", "confidence: 0.8}")
    os.utime(by_hand, (0, 0))  # as of a copy with its date: content decides
    assert planned_rules(by_hand) == REST | {"probe"}
    edit(by_hand, "steps: 6", "steps: 8")
    assert planned_rules(by_hand) == REST | {"probe", "pretrain"}
    edit(by_hand, "steps: 8", "steps: 6")
    edit(by_hand, "confidence: 0.8}", "confidence: 0.9}")
    assert planned_rules(by_hand) == REST


def test_a_newer_version_of_a_stage_reruns_it(study, by_hand, tmp_path):
    root = tmp_path / "newer"
    for name in ("stages", "ssl_pipeline", "cluster", "workflows"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ROOT / "Snakefile", root)
    (root / ".snakemake").symlink_to(ROOT / ".snakemake")
    assert planned_rules(study, root=root) == set()
    assert planned_rules(by_hand, root=root) == REST
    module = root / "stages" / "probe.py"
    edit(module, f"\nVERSION = {probe.VERSION}\n", f"\nVERSION = {probe.VERSION + 1}\n")
    now = time.time()
    os.utime(module, (0, 0))  # of a study that Snakemake ran, it knows without the file's date
    assert planned_rules(study, root=root) == {"probe", "report"}
    os.utime(module, (now, now))
    assert planned_rules(by_hand, root=root) == REST | {"probe"}


def test_one_task_reruns_alone(study):
    edit(study, "classes: {0: left, 1: right}", "classes: {0: even, 1: odd}")
    said = snakemake(study, "-n")
    assert "task=tissue" not in said.split("Job stats:")[0]
    assert planned_rules(study) == {"probe", "finetune", "report"}


def test_purged_volumes_are_made_again_once_a_stage_needs_them(study):
    out = study.parent / "out"
    volume = min((out / "preprocess/volumes").iterdir())
    encoder = (out / "pretrain/encoder/encoder.safetensors").stat().st_mtime_ns
    shutil.rmtree(volume)
    assert planned_rules(study) == set(), "a study that is done needs no store"
    edit(study, "confidence: 0.9}", "confidence: 0.8}")
    assert "6 volumes stored, 1 of them new" in snakemake(study, "--until", "probe")
    assert (volume / "zarr.json").exists()
    assert (out / "pretrain/encoder/encoder.safetensors").stat().st_mtime_ns == encoder
    assert planned_rules(study) == {"finetune", "report"}


def test_an_equal_remake_reruns_nothing_after_it(study):
    weights = study.parent / "out/pretrain/encoder/encoder.safetensors"
    before = weights.stat().st_mtime_ns
    shutil.rmtree(study.parent / "out/preprocess")
    said = snakemake(study, "--forcerun", "preprocess")
    assert "6 volumes stored, 6 of them new" in said
    assert "pretrain: nothing to do" in said
    assert weights.stat().st_mtime_ns == before
    assert planned_rules(study) == set()


def test_a_new_scan_is_preprocessed_alone_and_waits_for_the_next_cohort(study):
    folder = study.parent
    volumes = folder / "out/preprocess/volumes"
    before = {path: path.stat().st_mtime_ns for path in volumes.rglob("zarr.json")}
    encoder = (folder / "out/pretrain/encoder/encoder.safetensors").stat().st_mtime_ns
    scan = bytearray(gzip.decompress((folder / "raw/images/person0.nii.gz").read_bytes()))
    scan[400:2400] = scan[1400:3400]  # other voxels, so that it is no copy of a known scan
    (folder / "raw/images/person9.nii.gz").write_bytes(gzip.compress(bytes(scan)))
    said = snakemake(study, "--until", "pretrain")
    assert "7 volumes stored, 1 of them new" in said
    assert "1 new volumes wait" in said
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (folder / "out/pretrain/encoder/encoder.safetensors").stat().st_mtime_ns == encoder
    assert planned_rules(study).isdisjoint({"inventory", "preprocess", "pretrain"})
    edit(study, "steps: 6", "steps: 6\n  cohort: 2")
    assert "pretrain: 6 steps on 5 volumes" in snakemake(study, "--until", "pretrain")


def test_a_wrong_study_or_override_is_one_sentence(study_file):
    edit(study_file, "batch_size: 4", "batch_sise: 4")
    assert "training.batch_sise is not known: did you mean batch_size?" in snakemake(
        study_file, "-n", code=1
    )
    said = snakemake(study_file, "training=5", "-n", code=1)
    assert "--config training=... is not taken here" in said


@pytest.mark.parametrize(
    "words", [["--profile", "local"], ["--profile", "slurm"], ["--cores", "1"]]
)
def test_the_literal_command_works_from_the_root(study_file, words):
    command = ["snakemake", "-n", *words, "--config", f"study={study_file}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_profile_says_where_stages_run_whatever_chooses_the_study(study_file):
    said = snakemake(study_file, "-n", "-p", "--profile", "slurm")
    assert f"pretrain --config {study_file} --on slurm" in said
    assert re.search(f"inventory --config {study_file} *\n", said)
    assert "threads: " not in said, "a launcher that waits takes one core"
    assert "--on local" in snakemake(study_file, "-n", "-p")


def test_what_a_stage_will_take_is_among_its_resources(study_file):
    said = snakemake(study_file, "-n", "--profile", "slurm")
    resources = dict(re.findall(r"^rule (\w+):$.*?^    resources: (.*?)$", said, re.M | re.S))
    assert set(resources) == {*EVERYTHING, "all"}
    for name, line in ((name, resources[name]) for name in EVERYTHING):
        for key in ("disk_mb", "mem_mb", "runtime"):
            assert int(re.search(rf"\b{key}=(\d+)", line)[1]) > 0, (name, key)
    assert "gpu=1" in resources["pretrain"] and "gpu" not in resources["preprocess"]


def test_a_mistake_in_the_cluster_file_is_one_sentence(study_file):
    cluster = study_file.with_name("cluster.yaml")
    cluster.write_text("stages: {pretrain: {gpu: 1}}")
    said = snakemake(study_file, "-n", "--default-resources", f"run_on={cluster}", code=1)
    assert "stages.pretrain.gpu is not known: did you mean gpus?" in said
