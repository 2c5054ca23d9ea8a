"""Damaged records of a run: the checkpoint before counts, and lost rows are not made up."""

import json

import pytest

from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.monitoring.diagnosis import diagnose_whole_run
from ssl_pipeline.training.checkpoint import (
    TrainerState,
    load_newest,
    save_checkpoint,
    superseded_files,
)
from ssl_pipeline.training.compute import Compute
from ssl_pipeline.training.metrics_log import read_metrics

COMPUTE = Compute(device="cpu", precision="fp32", fused_attention=False, threads=1)
SECTION = Monitoring(snapshot_every=20)


def save(folder, step):
    save_checkpoint(folder, TrainerState(step, {}, {}, [], {}, None, COMPUTE, {}), keep=3)


@pytest.mark.parametrize("damage", [b"", b'{"sha', b"\xff", b"[]", b"{}"])
def test_a_damaged_seal_is_passed_over_for_the_checkpoint_before(tmp_path, damage):
    for step in (2, 4):
        save(tmp_path, step)
    (tmp_path / "step-00000004.json").write_bytes(damage)
    assert load_newest(tmp_path).step == 2
    assert {path.stem for path in superseded_files(tmp_path)} == {"step-00000004"}


def test_a_checkpoint_that_a_user_has_renamed_stays_and_is_not_resumed(tmp_path):
    save(tmp_path, 2)
    (tmp_path / "step-00000002.pt").rename(tmp_path / "step-best.pt")
    for step in (4, 6, 8, 10):
        save(tmp_path, step)
    assert load_newest(tmp_path).step == 10
    assert (tmp_path / "step-best.pt").exists()
    assert len(list(tmp_path.glob("step-0*.pt"))) == 3


def test_damaged_lines_of_the_metrics_log_are_left_out(tmp_path):
    rows = [{"step": 20, "loss": 1.5}, {"step": 40, "loss": float("nan")}]
    lines = [json.dumps(rows[0]).encode(), b"\xff\xfe", b"7", b"[1]", b"null", b'{"loss": 1.0}']
    lines += [
        b'{"step": "x"}',
        b'{"format": 2, "step": 30}',
        json.dumps(rows[1]).encode(),
        b'{"step": 60, "lo',
    ]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [20, 40]


def rows(*steps):
    return [{"step": step, "loss": 1.0} for step in steps]


@pytest.mark.parametrize(
    "log, name",
    [
        (rows(20, 40, 60, 80, 100), "healthy"),
        (rows(10, 30, 50, 60, 80, 100), "healthy"),
        ([], "not_known"),
        (rows(60, 80, 100), "not_known"),
        (rows(20, 80, 100), "not_known"),
        (rows(20, 40), "not_known"),
        ([*rows(60, 80), {"step": 100, "loss": float("nan")}], "diverging"),
    ],
    ids=["whole", "denser", "lost", "no beginning", "a gap", "no end", "an alarm of what is there"],
)
def test_a_run_whose_rows_are_not_all_there_is_not_known_to_be_healthy(log, name):
    found = diagnose_whole_run(log, SECTION, (), steps=(0, 100), log_every=20)
    assert found.name == name
    assert ("lost or damaged" in found.reason) == (name == "not_known")
