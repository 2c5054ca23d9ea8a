"""Cells of an evaluation in shards of several processes: the same table, and nothing twice."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_pipeline.evaluation.cells import CellShard
from stages.core.study_file import load_study
from tests.stages.conftest import run_cli


@given(st.integers(0, 200), st.integers(1, 40))
def test_shards_cover_all_cells_once(number, of):
    parts = [CellShard(shard, of).cell_range(number) for shard in range(1, of + 1)]
    assert [index for part in parts for index in part] == list(range(number))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("stage", ["probe", "finetune"])
def test_shards_compute_the_cells_and_the_stage_the_table(copied, stage):
    out = load_study(copied).stage_folder(stage, {"task": "side"})
    before = (out / "results.json").read_bytes()
    predictions = {p.name: json.loads(p.read_text())["predictions"] for p in cells(out)}
    shutil.rmtree(out)
    words = (stage, "--config", copied, "task=side")
    for shard in ("shard=1/3", "shard=3/3"):
        done = run_cli(*words, shard)
        assert done.returncode == 0, done.stderr
    assert not (out / "results.json").exists() and not (out / ".done.json").exists()
    made = {path: path.stat().st_mtime_ns for path in cells(out)}
    assert 0 < len(made) < len(predictions)
    done = run_cli(*words)  # what no shard has done, the stage does
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns == when for path, when in made.items())
    assert (out / "results.json").read_bytes() == before
    found = {p.name: json.loads(p.read_text())["predictions"] for p in cells(out)}
    assert found == predictions
    assert "shard 1 of 3 is done" in run_cli(*words, "shard=1/3").stdout


def cells(out):
    return list((out / "cells").iterdir())


@pytest.mark.parametrize("shard", ["4/3", "0/3", "1", "a/b"])
def test_an_invalid_shard_is_refused(copied, shard):
    done = run_cli("probe", "--config", copied, "task=side", f"shard={shard}")
    assert done.returncode == 2
    assert f"shard={shard} is no shard: write shard=2/8 for the second of eight." in done.stderr
