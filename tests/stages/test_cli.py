"""Command line: exit codes, one sentence, resuming, and equality of what is made twice."""

import json
import os
import re
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np

from ssl_pipeline.training.checkpoint import load_newest
from ssl_pipeline.volumes.inventory import Inventory
from stages.cli import app
from stages.core.pretraining_runs import run_folder
from stages.core.runner import run_stage
from stages.core.stage import STAGES
from stages.core.study_file import load_study
from tests.conftest import real_volume, write_study
from tests.stages.conftest import ENV, run_cli

EXAMPLE_PROGRAMS = {True: "python -m stages", False: "ssl-pipeline"}


def error_sentence(done, code=2):
    """What a refused command said: one line, no traceback."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


def test_by_hand_from_raw_files_to_a_page(whole):
    out = whole.parent / "out"
    for folder in (
        "inventory",
        "preprocess",
        "pretrain",
        "probe/side",
        "finetune/tissue",
        "report",
    ):
        manifest = json.loads((out / folder / "manifest.json").read_text())
        provenance = json.loads((out / folder / "provenance.json").read_text())
        assert manifest["files"]
        for key in ("inputs", "config_hash", "versions", "git_commit", "wall_s", "peak_memory_gib"):
            assert key in provenance
    assert "<html" in (out / "report" / "report.html").read_text()


def test_a_second_time_nothing_is_done_and_declared_files_come_back(whole):
    out = whole.parent / "out" / "pretrain"
    before = (out / "manifest.json").read_bytes()
    (out / "manifest.json").unlink()
    (out / "provenance.json").unlink()
    done = run_cli("pretrain", "--config", whole)
    assert done.returncode == 0 and "nothing to do" in done.stdout
    assert (out / "manifest.json").read_bytes() == before


def test_download_without_a_network_is_one_sentence(study_file):
    package = "{requirement: nilearn==0.14.1, sha256: x, licence: x, files: {x: y}}"
    study_file.write_text(study_file.read_text() + f"download: {{packages: [{package}]}}\n")
    alone = {key: value for key, value in ENV.items() if not key.startswith("PIP_")}
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    env = {**alone, **nowhere, "PIP_CONFIG_FILE": os.devnull}
    said = error_sentence(run_cli("download", "--config", study_file, env=env))
    assert "nilearn==0.14.1 could not be fetched" in said and "reaches no package index" in said


def test_predictions_lie_in_the_scans_own_grid(whole):
    made = sorted((whole.parent / "out/finetune/tissue/predictions").rglob("*.nii.gz"))
    inventory = Inventory.read(whole.parent / "out/inventory/scans.parquet")
    origins = load_study(whole).pseudonyms.origins
    held_out = [scan.id for scan in inventory.scans if scan.split == "test"]
    scans = {name: nib.load(origins[name].path) for name in held_out}
    assert {path.name.split(".")[0] for path in made} == set(scans) and len(scans) == 2
    for path in made:
        image, scan = nib.load(path), scans[path.name.split(".")[0]]
        assert image.shape == scan.shape and np.allclose(image.affine, scan.affine, atol=1e-4)
        assert set(np.unique(np.asarray(image.dataobj))) <= {0, 1, 2}


def test_a_checkpoint_holds_the_settings_of_its_run(whole):
    state = load_newest(run_folder(load_study(whole)) / "checkpoints")
    study = load_study(whole).redacted_config
    assert state.config == {key: study[key] for key in state.config}
    assert {"seed", "views", "model", "objective", "training"} <= state.config.keys()


def test_the_same_study_elsewhere_gives_the_same_encoder_and_scores(whole, tmp_path):
    study = write_study(tmp_path)
    for words in (["inventory"], ["preprocess"], ["pretrain"], ["probe", "task=side"]):
        assert run_cli(words[0], "--config", study, *words[1:]).returncode == 0
    weights = "out/pretrain/encoder/encoder.safetensors"
    assert (tmp_path / weights).read_bytes() == (whole.parent / weights).read_bytes()
    scores = [
        json.loads((folder / "out/probe/side/results.json").read_text())["rows"]
        for folder in (tmp_path, whole.parent)
    ]
    assert scores[0] == scores[1], "another salt changes names and nothing else"


def test_a_stage_with_missing_inputs_names_the_stage_to_run(study_file):
    said = error_sentence(run_cli("preprocess", "--config", study_file))
    assert "run the stage inventory first" in said


def test_verbose_output_gives_the_reason_for_a_run(whole, study_file):
    said = run_cli("inventory", "--config", study_file)
    assert "runs, for it has not been completed here" not in said.stdout
    log = study_file.parent / "out/logs/inventory.log"
    assert "runs, for it has not been completed here" in log.read_text()
    study_file.write_text(study_file.read_text() + "seed: 1\n")
    study_file.write_text(study_file.read_text().replace("min_axis_voxels: 8", "min_fov_mm: 60"))
    said = run_cli("-v", "inventory", "--config", study_file)
    assert said.returncode == 2, said.stderr
    assert "runs, for the settings that it reads changed" in said.stdout
    assert re.search(r"^\w{12} rejected: only 52.* mm along its shortest axis", said.stdout, re.M)


def test_words_in_brackets_are_printed_unchanged():
    assert "[/nowhere].yaml" in error_sentence(run_cli("inventory", "--config", "[/nowhere].yaml"))


def test_wrong_words_are_answered(study_file):
    assert "task=NAME" in error_sentence(run_cli("probe", "--config", study_file))
    said = error_sentence(run_cli("probe", "--config", study_file, "task=sid"))
    assert "did you mean side?" in said
    assert "takes no further words" in error_sentence(
        run_cli("pretrain", "--config", study_file, "x=1")
    )


def test_usage_errors_are_one_sentence_with_the_nearest_name():
    assert 'Did you mean "probe"?' in error_sentence(run_cli("prob", "--config", "x.yaml"))
    assert "Did you mean --config" in error_sentence(run_cli("status", "--confg", "x.yaml"))
    assert "--config requires an argument" in error_sentence(run_cli("report"))
    said = error_sentence(run_cli("export", "x", "--to", "jax", "--out", "y"))
    assert (
        '"state_dict", "timm", "onnx", "nnunet", "monai-bundle"' in said
        and "ssl-pipeline export --help" in said
    )


def test_a_shard_that_is_none_is_one_sentence(study_file):
    for shard in ("9/8", "0/8", "two"):
        said = error_sentence(
            run_cli("probe", "--config", study_file, "task=side", f"shard={shard}")
        )
        assert f"shard={shard} is no shard: write shard=2/8" in said


def test_help_groups_the_commands_and_has_examples():
    groups = run_cli("--help").stdout
    order = [groups.index(f" {name} ") for name in ("Stages", "Inspect", "Use an encoder")]
    assert order == sorted(order)
    assert "--install-completion" in groups and "Exit codes" in groups
    commands = [name for name in app if not name.startswith("-")]
    assert {*STAGES, "config", "estimate", "calibrate", "status", "logs", "verify", "clean",
            "locate", "findings", "review", "next", "drift", "embed", "find", "predict", "export",
            "import", "registry",
            } == set(commands)  # fmt: skip
    for name in commands:
        assert f"Examples:\n  {EXAMPLE_PROGRAMS[name in STAGES]} {name} " in app[name].help_epilogue


def test_an_empty_folder_is_one_sentence(study_file):
    shutil.rmtree(study_file.parent / "raw/images")
    (study_file.parent / "raw/images").mkdir()
    assert "no image was found" in error_sentence(run_cli("inventory", "--config", study_file))


def test_rejected_scans_are_listed_and_do_not_stop_the_rest(study_file):
    images = study_file.parent / "raw/images"
    whole = (images / "person0.nii.gz").read_bytes()
    (images / "person6.nii.gz").write_bytes(whole[: len(whole) // 2])
    flat = nib.Nifti1Image(np.full((34, 34, 24), 7, np.int16), np.eye(4))
    nib.save(flat, images / "person7.nii.gz")
    done = run_cli("inventory", "--config", study_file)
    assert done.returncode == 0, done.stderr
    assert "6 scans accepted" in done.stdout and "rejected" in done.stdout


def test_nothing_left_is_one_sentence(study_file):
    images = study_file.parent / "raw/images"
    for path in images.iterdir():
        path.write_bytes(b"no scan")
    assert "None of 6 scans can be used" in error_sentence(
        run_cli("inventory", "--config", study_file)
    )


def test_no_subject_rule_is_refused_for_evaluation(study_file):
    text = study_file.read_text().replace(
        "      subject:\n        pattern: person(?P<id>\\d+)\n", ""
    )
    text = text.replace("    lists:\n      test: test.txt\n", "")
    study_file.write_text(text)
    assert "a split by file would leak" in error_sentence(
        run_cli("inventory", "--config", study_file)
    )
    study_file.write_text(text[: text.index("tasks:\n")])  # without tasks it may be pretrained on
    for name in ("inventory", "preprocess", "pretrain", "report"):
        done = run_cli(name, "--config", study_file)
        assert done.returncode == 0, done.stdout + done.stderr


def test_two_processes_never_run_one_stage(study_file):
    run_cli("inventory", "--config", study_file)
    lock = study_file.parent / "out/inventory/.lock"
    code = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'a+'); fcntl.flock(f, fcntl.LOCK_EX); "
        "print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, lock], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        assert "already runs" in error_sentence(run_cli("inventory", "--config", study_file))
    finally:
        holder.kill()
        holder.communicate()
    assert run_cli("inventory", "--config", study_file).returncode == 0


def test_a_bug_keeps_its_traceback_and_names_the_log(study_file):
    run_cli("inventory", "--config", study_file)
    (study_file.parent / "out/inventory/scans.parquet").write_bytes(b"not a table")
    done = run_cli("preprocess", "--config", study_file)
    assert done.returncode in (1, 2)
    if done.returncode == 1:
        assert "Traceback" in done.stderr and "preprocess.log" in done.stderr


def test_the_encoder_is_three_lines_away(whole):
    nib.save(real_volume(), whole.parent / "new.nii.gz")
    code = (
        "from ssl_pipeline import load_encoder\n"
        f"encoder = load_encoder({str(whole.parent / 'out/pretrain/encoder')!r})\n"
        f"print(encoder.embed({str(whole.parent / 'new.nii.gz')!r}, modality='MR').vector.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "(128,)", done.stderr


def test_the_page_of_the_inventory_comes_back_and_is_equal(study_file):
    study = load_study(study_file)
    run_stage("inventory", study, {})
    run_stage("inventory_page", study, {})
    folder = study.folder / "inventory_page"
    page = (folder / "inventory.html").read_bytes()
    manifest = (folder / "manifest.json").read_bytes()
    assert b"accepted" in page and b"data:image/jpeg" in page and b"person" not in page
    (folder / "inventory.html").unlink()
    run_stage("inventory_page", study, {})
    assert (folder / "inventory.html").read_bytes() == page
    assert (folder / "manifest.json").read_bytes() == manifest
