"""What every kind of task declares of itself, so that nobody asks which kind it is."""

from typing import get_args

import pytest
from pydantic import TypeAdapter

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import PIXELS, RANDOM
from ssl_pipeline.evaluation.config import Evaluate, Finetune, Probe
from ssl_pipeline.evaluation.cost_model import (
    PRECISION_FILES,
    RECORD_FILES,
    EvaluatedTask,
    finetune_cost,
    probe_cost,
)
from ssl_pipeline.evaluation.data.label_maps import LabelMaps
from ssl_pipeline.evaluation.decoders.light import Light
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.runner.finetune import run_finetune
from ssl_pipeline.evaluation.tasks import TaskConfig
from ssl_pipeline.evaluation.tasks.cost import CostInputs
from ssl_pipeline.models import ViT
from tests.conftest import read_json

SETTINGS = {
    "classification": {"target": "corner", "classes": {0: "no", 1: "yes"}},
    "correspondence": {"label": "blobs", "classes": {3: "bright", 5: "dark"}, "clicks": [1]},
    "crop_classification": {"label": "blobs", "classes": {3: "bright", 5: "dark"}},
    "regression": {"target": "corner"},
    "segmentation": {"label": "blobs", "classes": {3: "bright", 5: "dark"}},
}
KINDS = {kind.model_fields["kind"].default: kind for kind in get_args(get_args(TaskConfig)[0])}
SHORT = Finetune(steps=1, batch_size=8, overlap=0, decoder=Light(), keep_predictions="none")
INPUTS = CostInputs(
    initializations=("pretrained", RANDOM, PIXELS),
    writes_label_maps=True,
    train_subjects=8,
    train_scans=16,
    test_scans=20,
    voxels=(18_000.0,) * 36,
    test_voxels=360_000.0,
    raw_test_voxels=400_000,
    largest_test_scan=20_000,
)


@pytest.fixture(params=KINDS)
def task(request):
    return KINDS[request.param](title="Task", **SETTINGS[request.param])


def evaluated(task):
    sections = (Probe(), SHORT, Evaluate(subjects=(0,)), ViT(preset="tiny"), (16, 16, 16))
    return EvaluatedTask(task, *sections, INPUTS)


def test_a_study_reads_a_task_of_every_kind_back(task):
    adapter = TypeAdapter(TaskConfig)
    assert adapter.validate_python(adapter.dump_python(task)) == task


def test_its_truth_is_on_every_scan_that_it_uses(task, planted, tmp_path):
    entries = task.usable_entries(planted.catalog.entries)
    assert entries
    required = [truth for truth in task.truth_names() if truth.is_required]
    assert required
    for truth in required:
        assert getattr(task, truth.key) == truth.name
        assert all(truth.find_in(entry)[truth.name] for entry in entries)
    labels = LabelMaps(tmp_path, planted.label_file)
    assert all(task.truth_key(entry, labels) for entry in entries)


def test_it_is_fine_tuned_scored_by_its_own_metric_and_costs_what_it_writes(
    task, planted, tmp_path
):
    context = planted.context(tmp_path, evaluate=Evaluate(subjects=(0,)))
    if "finetune" not in task.SUPPORTED_STAGES:
        with pytest.raises(UserError, match="list it for probe alone"):
            task.finetune_cells(TaskRunner(task, context))
        return
    results = run_finetune(task, SHORT, context)
    assert results.metric == task.METRIC
    assert results.classes == task.class_names
    cells = sorted((tmp_path / "cells").iterdir())
    scores = TaskRunner(task, context).score(read_json(cells[0])["predictions"])
    assert next(iter(scores.metrics)) == task.METRIC
    assert len(scores.per_class) == len(task.class_names)
    cost, maps = finetune_cost(evaluated(task)), len(list((tmp_path / "labels").glob("*.npy")))
    networks = len(list((tmp_path / "networks").glob("*.safetensors")))
    assert networks == task.can_predict  # that of the task's model
    assert cost.files == RECORD_FILES + PRECISION_FILES + len(cells) + maps + networks
    assert min(cost.disk_bytes, cost.memory_bytes, cost.flops, cost.seconds) > 0


def test_probes_serve_it_or_are_refused(task, planted, tmp_path):
    runner = TaskRunner(task, planted.context(tmp_path))
    if "probe" in task.SUPPORTED_STAGES:
        assert len(task.probe_run(runner, Probe()).cells) > 0
        assert probe_cost(evaluated(task)).flops > 0
    else:
        with pytest.raises(UserError, match=f"is of kind {task.kind}: probes classify whole crops"):
            task.probe_run(runner, Probe())


def test_an_adaptation_method_serves_every_kind(task):
    assert task.supported_methods(Finetune()) == Finetune().methods


def test_the_label_that_is_drawn_over_a_scan_is_its_truth(task):
    labels = {truth.name for truth in task.truth_names() if truth.kind == "label"}
    assert task.overlay_label is None or task.overlay_label in labels
