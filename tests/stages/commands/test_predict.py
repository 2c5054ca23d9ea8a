"""What fine-tuning leaves predicts for new scans as the evaluation did, whole and reproducibly."""

import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from ssl_pipeline import load_model
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import read_cell
from ssl_pipeline.evaluation.finetuning.segmentation_training import predict_volume
from ssl_pipeline.evaluation.prediction.calibration import Calibration
from ssl_pipeline.export.embed import prepare_source
from ssl_pipeline.export.stored_values import ScanHints
from ssl_pipeline.export.task_model.bundle import LoadedModel
from ssl_pipeline.export.task_model.card import model_card
from ssl_pipeline.io.atomic import sha256_file
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.volumes.readers import Source, find_sources
from stages.commands.predict import Models, predict_folder
from tests.conftest import read_json
from tests.stages.commands.conftest import MR, predict, save_with_equal_biases
from tests.volumes.volume_writers import save_dicom


def test_a_class_is_predicted_from_the_raw_file_as_evaluation_predicted_it(whole, finetuned):
    model = load_model(finetuned / "side/model")
    cell = read_cell(finetuned / "side/cells/full-pretrained-0-0.json")
    scored = sorted(row["probability"] for row in cell.predictions)
    scans = [whole.parent / f"raw/images/person{person}.nii.gz" for person in (4, 5)]
    found = [model.predict(scan, "MR").prediction.values for scan in scans]
    assert [list(values) for values in found] == [["left (probability)", "right (probability)"]] * 2
    np.testing.assert_allclose(sorted(list(v.values()) for v in found), scored, atol=1e-5)


def test_voxels_are_predicted_from_the_raw_file_as_from_the_store(whole, tissue):
    preprocessed = whole.parent / "out/preprocess"
    catalog = Catalog.read(preprocessed / "catalog.parquet")
    reader = CropReader(preprocessed / "volumes", catalog)
    model = load_model(tissue)
    entry = next(entry for entry in catalog.entries if entry.split == "test")
    manifest, (network,) = model.manifest, model.predictor.networks
    stored = predict_volume(network, reader, entry, manifest.crop_voxels, manifest.finetune)
    assert {1, 2} <= set(np.unique(stored)), "both classes occur"
    again = model.predict_prepared(PreparedVolume(reader.read_volume(entry.id), entry.meta))
    found = [
        model.predict(path, "MR").prediction.label_map
        for path in sorted((whole.parent / "raw/images").iterdir())[4:]
    ]
    assert any(np.array_equal(each, again.prediction.label_map) for each in found)
    assert np.array_equal(again.prediction.label_map, stored), "classes are 1 and 2"
    counts = {value: int((stored == value).sum()) for value in (1, 2)}
    voxel_ml = np.prod(entry.meta.spacing_mm) / 1000
    values = again.prediction.values
    assert values["dark (ml)"] == pytest.approx(counts[1] * voxel_ml, rel=1e-4)
    assert 1 / 3 < values["dark (mean probability)"] < 1


def test_a_model_names_the_precision_that_its_folder_decided(finetuned):
    decided = read_json(finetuned / "tissue/precision.json")["precision"]
    assert decided in ("bf16", "fp32")
    assert load_model(finetuned / "tissue/model").manifest.finetune.precision == decided
    assert read_json(finetuned / "tissue/provenance.json")["precision"] == decided


def test_each_scan_of_a_folder_has_a_row_and_a_label_map_on_its_own_grid(
    whole, tissue, tmp_path, capsys
):
    raw = whole.parent / "raw/images"
    rows = predict(raw, tmp_path / "a", tissue)
    said = " ".join(capsys.readouterr().out.split())
    assert "to calibrate them, 10 subjects must be neither trained on nor scored" in said
    assert [row["path"] for row in rows] == [f"person{n}.nii.gz" for n in range(6)]
    assert not any(row["error"] for row in rows)
    image, label = nib.load(raw / "person0.nii.gz"), nib.load(tmp_path / "a/person0.nii.gz")
    assert label.shape == image.shape and np.allclose(label.affine, image.affine)
    model = load_model(tissue)
    for row in rows[:2]:
        label_map, path = tmp_path / "a" / row["label_map"], raw / row["path"]
        assert row["label_map_sha256"] == sha256_file(label_map)
        assert row["scan_sha256"] == sha256_file(path)
        expected = model.predictor.entropy(prepare_source(model.manifest, Source(path), MR))
        assert float(row["entropy"]) == pytest.approx(expected, rel=1e-5) and expected > 0


def test_a_stopped_run_goes_on_and_a_lost_file_is_written_again(whole, tissue, tmp_path):
    raw, out = whole.parent / "raw/images", tmp_path / "out"
    rows = predict(raw, tmp_path / "whole", tissue)
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(raw / "person0.nii.gz", few)
    (few / "torn.nii.gz").write_bytes((raw / "person1.nii.gz").read_bytes()[:900])
    done = predict(few, out, tissue)
    assert done[0] == {**rows[0], "path": "person0.nii.gz"} and "torn" in done[1]["error"]

    from stages.commands.finished_scans import FinishedScans

    finished = FinishedScans(out / "predictions.csv", ["other settings"])
    finished.add("cut", {"columns": {}, "files": []})
    (out / "person0.nii.gz").unlink()
    shutil.copy(raw / "person1.nii.gz", few / "torn.nii.gz")
    again = predict(few, out, tissue)
    assert not any(row["error"] for row in again) and (out / "person0.nii.gz").exists()
    assert not (out / "predictions.csv.unfinished").exists()


def test_copies_of_one_scan_have_predictions_of_their_own(whole, tissue, tmp_path):
    copies, out = tmp_path / "copies", tmp_path / "out"
    copies.mkdir()
    for name in ("one.nii.gz", "two.nii.gz"):
        shutil.copy(whole.parent / "raw/images/person0.nii.gz", copies / name)
    first, second = predict(copies, out, tissue)
    own = {"path": "", "label_map": ""}
    assert first | own == second | own and first["label_map"] == "one.nii.gz"
    assert (out / "one.nii.gz").read_bytes() == (out / "two.nii.gz").read_bytes()


def test_an_ensemble_of_equals_is_each_of_them_and_of_other_tasks_is_refused(
    whole, finetuned, tissue, tmp_path
):
    scan = whole.parent / "raw/images/person4.nii.gz"
    alone, both = load_model(tissue), load_model(tissue, tissue)
    one, two = (model.predict(scan, "MR").prediction for model in (alone, both))
    assert np.array_equal(one.label_map, two.label_map)
    with pytest.raises(UserError, match="have different classes, or their tasks are of different"):
        load_model(tissue, finetuned / "side/model")


def test_what_fits_no_scan_is_said_in_a_sentence(whole, finetuned, tissue, tmp_path):
    raw, out = whole.parent / "raw/images", tmp_path / "out"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no scan that can be read"):
        predict(tmp_path / "empty", out, tissue)
    with pytest.raises(UserError, match="predictions would be taken for scans"):
        predict(raw, raw / "out", tissue)
    with pytest.raises(UserError, match=r"is no task model: give the folder that holds"):
        predict(raw, out, whole.parent / "out/pretrain/encoder")
    with pytest.raises(UserError, match=r"No scan of .* could be predicted, .* no Hounsfield"):
        predict_folder(Models([tissue], "cpu"), raw, out, ScanHints(modality="CT"))
    assert (out / "predictions.csv").read_text().count("no Hounsfield") == 6
    model, (source, *_) = load_model(tissue), find_sources(raw)
    prepared = prepare_source(model.manifest, source, MR)
    ct = replace(prepared, meta=replace(prepared.meta, modality="CT"))
    with pytest.raises(UserError, match="trained on MR, and the scan is CT"):
        model.predict_prepared(ct)
    (tissue.parent / "torn").mkdir()
    shutil.copytree(tissue, tissue.parent / "torn", dirs_exist_ok=True)
    weights = tissue.parent / "torn/network.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match=r"network.safetensors is damaged, for its SHA-256"):
        load_model(tissue.parent / "torn")


def test_a_series_that_lacks_a_slice_costs_its_own_row(whole, tissue, tmp_path):
    raw, mixed = whole.parent / "raw/images", tmp_path / "mixed"
    image = nib.load(raw / "person0.nii.gz")
    data = np.asarray(image.dataobj).astype(np.int16)
    save_dicom(mixed / "gap", data, image.affine)
    sorted((mixed / "gap").iterdir())[data.shape[2] // 2].unlink()
    shutil.copy(raw / "person0.nii.gz", mixed)
    gap, person = predict(mixed, tmp_path / "out", tissue)
    assert "gap: slices are missing (gaps of" in gap["error"] and person["error"] == ""


def test_a_scan_unlike_those_of_training_is_marked(tissue, whole):
    scan = whole.parent / "raw/images/person4.nii.gz"
    model = load_model(tissue)
    assert model.manifest.unlike_distance is None, "four scans are too few to tell"
    near = model.manifest.model_copy(update={"unlike_distance": 0.0})
    found = LoadedModel(model.predictor, near, model.training_features).predict(scan, "MR")
    assert "unlike the training scans" in found.warning


def test_the_card_and_an_owners_changes_to_it_stay(tissue):
    card = (tissue / "README.md").read_text()
    for text in ("load_model", "training_subjects.parquet", "mean Dice", "| 2 | bright |"):
        assert text in card
    (tissue / "README.md").write_text(card + "CC BY 4.0")
    save_with_equal_biases(tissue, load_model(tissue))
    assert (tissue / "README.md").read_text().endswith("CC BY 4.0")
    (tissue / "README.new.md").replace(tissue / "README.md")


def test_the_card_of_a_calibrated_model_says_how_sure_it_may_be(tissue):
    fitted = Calibration(
        temperature=1.5,
        n_subjects=12,
        error_before=0.06,
        error_after=0.02,
        scored_error_before=0.07,
        scored_error_after=0.03,
    )
    manifest = load_model(tissue).manifest.model_copy(update={"calibration": fitted})
    assert (
        "scaled by a temperature of 1.5, fitted on 12 subjects of the split val: expected "
        "calibration error by voxel .060 before and .020 after; of the scored subjects .070 before "
        "and .030 after." in model_card(manifest)
    )
