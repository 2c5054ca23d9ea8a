"""Predictions of a folder that `ssl-pipeline predict` wrote, as readers are asked about them."""

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import sha256_file
from ssl_pipeline.review.predictions import PREDICTIONS_TABLE, read_predictions
from ssl_pipeline.volumes.inventory import Inventory
from stages.core import layout
from tests.review.conftest import write_predictions


@pytest.fixture
def scans(asked_study):
    return Inventory.read(layout.inventory_table(asked_study)).scans


@pytest.fixture
def predicted(asked_study, tmp_path):
    """Predictions for two scans of the study."""
    folder = tmp_path / "predicted"
    entropies = {"person1.nii.gz": 0.2, "person4.nii.gz": 0.3}
    write_predictions(folder, asked_study.source_folder / "raw", entropies)
    return folder


def change_table(folder, before, after):
    table = folder / PREDICTIONS_TABLE
    assert before in table.read_text()
    table.write_text(table.read_text().replace(before, after))


def test_predictions_are_of_the_scans_of_equal_content_the_least_certain_first(
    asked_study, predicted, scans
):
    change_table(predicted, "0.2,person1.nii.gz", "0.25,person1.nii.gz")
    found = read_predictions(predicted, scans)
    assert [each.entropy for each in found] == [0.3, 0.25]
    origins = asked_study.pseudonyms.origins
    for each, name in zip(found, ("person4.nii.gz", "person1.nii.gz"), strict=True):
        assert origins[each.scan].path.endswith(name) and each.file == predicted / name
        assert each.sha256 == sha256_file(each.file) and not each.is_empty


def test_a_prediction_without_volume_is_empty_and_one_of_another_scan_is_left_out(
    asked_study, predicted, scans
):
    raw = asked_study.source_folder / "raw/images"
    change_table(predicted, sha256_file(raw / "person1.nii.gz"), "0" * 64)
    change_table(predicted, ",1.5", ",0.0")
    (found,) = read_predictions(predicted, scans)
    assert found.is_empty and found.entropy == 0.3


def test_what_is_no_output_of_predict_or_of_other_scans_is_said_in_a_sentence(
    predicted, scans, tmp_path
):
    with pytest.raises(UserError, match="is no folder that `ssl-pipeline predict`"):
        read_predictions(tmp_path, scans)
    with pytest.raises(UserError, match="has no scan of this study"):
        read_predictions(predicted, scans[:0])
    change_table(predicted, "0.2,person1.nii.gz", "low,person1.nii.gz")
    with pytest.raises(UserError, match="is no folder that `ssl-pipeline predict`"):
        read_predictions(predicted, scans)
    change_table(predicted, "low,person1.nii.gz", "0.2,")
    change_table(predicted, "0.3,person4.nii.gz", "0.3,")
    with pytest.raises(UserError, match="has no label map"):
        read_predictions(predicted, scans)
    change_table(predicted, "scan_sha256", "sha")
    with pytest.raises(UserError, match="is no folder that `ssl-pipeline predict`"):
        read_predictions(predicted, scans)
