"""Files of a finished study that are empty or cut: no command ends in a traceback."""

import shutil
from contextlib import suppress

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import sha256_file
from stages.commands.clean import clean_study
from stages.commands.estimate import print_estimates
from stages.commands.status import status_table
from stages.core.manifests import refresh_manifests
from stages.core.runner import run_stage
from stages.core.study_file import load_study
from tests.stages.conftest import copy_study

PATTERNS = [
    "*/.done.json", "*/manifest.json", "*/provenance.json", "inventory/*.parquet",
    "preprocess/*.json", "preprocess/catalog.parquet", "pretrain/run.json", "pretrain/cohort-*",
    "pretrain/encoder/*", "pretrain/runs/*/metrics.jsonl", "pretrain/runs/*/checkpoints/*",
    "pretrain/runs/*/snapshots/*", "probe/side/*.json", "probe/side/cells/linear-p*0-0.json",
    "logs/*.progress.json", "study.json", "../private/*/origins.parquet",
    "../private/*/file_hashes.json",
]  # fmt: skip


@pytest.fixture(scope="module")
def damaged(whole, tmp_path_factory):
    """The whole study in a folder of its own, whose files a test puts back."""
    return copy_study(whole, tmp_path_factory.mktemp("damaged") / "study")


def commands(file):
    """What a user or Snakemake does with a finished study, except training."""
    yield lambda: status_table(load_study(file))
    yield lambda: print_estimates(load_study(file), None)
    yield lambda: refresh_manifests(load_study(file))
    yield lambda: run_stage("report", load_study(file), {})
    yield lambda: clean_study(load_study(file), remove_all=False, assume_yes=False)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_damaged_file_is_made_again_or_one_sentence(damaged, pattern):
    out = damaged.parent / "out"
    found = sorted(out.glob(pattern))
    assert found
    content = found[0].read_bytes()
    for damage in (b"", content[: len(content) // 2]):
        found[0].write_bytes(damage)
        for command in commands(damaged):
            with suppress(UserError):
                command()
        for manifest in out.glob("**/.withdrawn.json"):
            manifest.rename(manifest.with_name("manifest.json"))
    found[0].write_bytes(content)


def test_a_stage_whose_record_is_damaged_runs_again_to_the_same_end(damaged):
    study = load_study(damaged)
    record = study.folder / "report/.done.json"
    before = sha256_file(study.folder / "report/report.md")
    record.write_bytes(b"")
    refresh_manifests(study)
    assert not (study.folder / "report/manifest.json").exists(), "or Snakemake would not run it"
    run_stage("report", study, {})
    assert (study.folder / "report/manifest.json").exists()
    assert sha256_file(study.folder / "report/report.md") == before


def test_a_report_by_hand_asks_for_results_that_are_gone(damaged, tmp_path):
    study = load_study(damaged)
    results = study.folder / "probe/side/results.json"
    shutil.move(results, tmp_path)
    (study.folder / "report/report.html").unlink()
    with pytest.raises(UserError, match=r"Files of the stage probe are missing.* task=side"):
        run_stage("report", study, {})
    shutil.move(tmp_path / "results.json", results)
