"""Evaluation on corrupted scans: the same evaluators and scans for all, and nothing twice."""

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.adaptation import Full, Lora
from ssl_pipeline.evaluation.cells import BASELINES, Cell, CellRecord, save_cell
from ssl_pipeline.evaluation.config import Evaluate, Finetune, Robustness
from ssl_pipeline.evaluation.corruptions import Blur, Gamma, LowDose
from ssl_pipeline.evaluation.decoders.light import Light
from ssl_pipeline.evaluation.records import read_robustness
from ssl_pipeline.evaluation.robustness.evaluators import RobustnessInputs
from ssl_pipeline.evaluation.robustness.robustness import run_robustness
from ssl_pipeline.evaluation.runner.access_log import read_test_accesses
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.runner.finetune import cell_section, run_finetune
from ssl_pipeline.evaluation.runner.precision import with_recorded_precision
from ssl_pipeline.evaluation.runner.probe import run_probe
from ssl_pipeline.evaluation.tasks import CropClassification, Segmentation
from ssl_pipeline.preprocess.config import Preprocess
from tests.evaluation.conftest import QUICK_PROBE

BLOBS = CropClassification(title="Blobs", label="blobs", classes={3: "bright", 5: "dark"})
VOXELS = Segmentation(title="Voxels", label="blobs", classes={3: "bright", 5: "dark"})
ALL = Evaluate(subjects=(0,))
SETTINGS = Finetune(
    methods=(Full(), Lora()), steps=2, batch_size=4, keep_networks="all", resnet_baseline=False
)
CORRUPTED = Robustness(corruptions=(Gamma(), Blur()), severities=(1, 5))


def robustness_inputs(folder, **changes):
    given = {"robustness": CORRUPTED, "probe": QUICK_PROBE, "finetune": SETTINGS} | changes
    return RobustnessInputs(preprocess=Preprocess(foreground="all"), networks=folder, **given)


def write_failed_cell(task, context, cell, settings):
    """Write the file of a failed cell."""
    runner = TaskRunner(task, context)
    settings = with_recorded_precision(settings, context.out)
    (method,) = (each for each in settings.methods if each.name == cell.method)
    key = runner.cell_key(cell, cell_section(runner, settings, cell, method))
    encoder = runner.encoder_hash(cell)
    record = CellRecord(key=key, encoder=encoder, failed="out of memory")
    save_cell(cell, record, context.out)


def means(results, method, init):
    (row,) = [r for r in results.rows if (r.method, r.initialization) == (method, init)]
    return row, [each.mean for each in row.severities]


def test_every_method_has_a_curve_that_begins_at_its_clean_score(single, tmp_path):
    context = single.context(tmp_path / "finetune", evaluate=ALL)
    tuned = run_finetune(BLOBS, SETTINGS, context)
    probed = run_probe(BLOBS, QUICK_PROBE, single.context(tmp_path / "probe", evaluate=ALL))
    out = single.context(tmp_path / "robustness", evaluate=ALL)
    results = run_robustness(BLOBS, robustness_inputs(tmp_path / "finetune"), out)
    ways = {(r.method, r.initialization) for r in results.rows}
    assert ways == {
        (m, i) for m in ("knn", "linear", "full", "lora") for i in ("pretrained", "random")
    }
    for clean in (tuned, probed):
        for own in (r for r in clean.rows if r.initialization not in BASELINES):
            row, curve = means(results, own.method, own.initialization)
            assert curve[0] == pytest.approx(own.mean, abs=1e-6)
            assert [each.severity for each in row.severities] == [0, 1, 5]
            assert row.severities[0].low == pytest.approx(own.low, abs=1e-5)
    row, _ = means(results, "linear", "random")
    assert row.corruption_error in (1, None)  # against itself, or without an error
    assert set(row.corruptions) == {"gamma", "blur"}


def test_conditions_are_computed_again_only_when_a_setting_changes(small, tmp_path):
    context = small.context(tmp_path, evaluate=ALL, initializations={"pretrained": "of a test"})
    settings = SETTINGS.model_copy(update={"methods": (Full(),)})
    run_finetune(BLOBS, settings, context)
    first = run_robustness(BLOBS, robustness_inputs(tmp_path, finetune=settings), context)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "conditions").iterdir()}
    assert len(before) == 6  # clean, four corrupted, and groups
    assert run_robustness(BLOBS, robustness_inputs(tmp_path, finetune=settings), context) == first
    assert {p: p.stat().st_mtime_ns for p in before} == before
    more = Robustness(corruptions=(Gamma(), Blur()), severities=(1, 3, 5))
    run_robustness(BLOBS, robustness_inputs(tmp_path, finetune=settings, robustness=more), context)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert len(list((tmp_path / "conditions").iterdir())) == 8


def test_segmentation_is_evaluated_by_the_saved_networks(small, tmp_path):
    context = small.context(tmp_path, evaluate=ALL, initializations={"pretrained": "of a test"})
    settings = Finetune(
        steps=8, batch_size=4, keep_networks="all", keep_predictions="none", overlap=0,
        decoder=Light(),
    )  # fmt: skip
    clean = run_finetune(VOXELS, settings, context)
    results = run_robustness(VOXELS, robustness_inputs(tmp_path, finetune=settings), context)
    row, curve = means(results, "full", "pretrained")
    assert curve[0] == pytest.approx(clean.rows[0].mean, abs=1e-6)
    assert results.metric == "mean_dice" and len(row.corruptions["blur"]) == 2
    assert read_robustness(tmp_path) == results
    assert [access.split for access in read_test_accesses(tmp_path)] == ["test", "test"]
    write_failed_cell(VOXELS, context, Cell("full", "pretrained", 0, 1), settings)
    with pytest.raises(UserError, match="every method has cells that failed"):
        run_robustness(VOXELS, robustness_inputs(tmp_path, finetune=settings), context)


def test_without_kept_networks_it_says_what_to_do(small, tmp_path):
    context = small.context(tmp_path, evaluate=ALL, initializations={"pretrained": "of a test"})
    with pytest.raises(UserError, match=r"set finetune.keep_networks to all"):
        run_robustness(BLOBS, robustness_inputs(tmp_path), context)


def test_all_corruptions_of_a_modality_are_the_default():
    names = {corruption.name for corruption, _ in Robustness().conditions({"MR"})}
    assert "motion" in names and "low_dose" not in names
    assert len(Robustness(severities=(2,)).conditions({"CT", "MR"})) == 14


def test_a_row_with_a_failed_cell_is_left_out_and_reported(small, tmp_path):
    context = small.context(tmp_path, evaluate=ALL, initializations={"pretrained": "of a test"})
    run_finetune(BLOBS, SETTINGS, context)
    write_failed_cell(BLOBS, context, Cell("lora", "pretrained", 0, 1), SETTINGS)
    results = run_robustness(BLOBS, robustness_inputs(tmp_path), context)
    assert {row.method for row in results.rows} == {"knn", "linear", "full"}
    assert results.notes == ("Left out, for cells of it failed: LoRA from pretrained.",)


def test_more_seeds_are_evaluated_again(small, tmp_path):
    context = small.context(tmp_path, evaluate=ALL, initializations={"pretrained": "of a test"})
    few = SETTINGS.model_copy(update={"methods": (Full(),)})
    run_finetune(BLOBS, few, context)
    run_robustness(BLOBS, robustness_inputs(tmp_path, finetune=few), context)
    before = (tmp_path / "conditions" / "blur-1.json").stat().st_mtime_ns
    more = few.model_copy(update={"seeds": 4})
    run_finetune(BLOBS, more, context)
    run_robustness(BLOBS, robustness_inputs(tmp_path, finetune=more), context)
    assert (tmp_path / "conditions" / "blur-1.json").stat().st_mtime_ns > before


def test_corruptions_of_another_modality_are_refused(small, tmp_path):
    context = small.context(tmp_path, evaluate=ALL, initializations={"pretrained": "of a test"})
    corruptions = Robustness(corruptions=(LowDose(),))
    with pytest.raises(
        UserError, match=r"none of robustness.corruptions is of its scans' modality"
    ):
        run_robustness(BLOBS, robustness_inputs(tmp_path, robustness=corruptions), context)
