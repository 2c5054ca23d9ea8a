"""Places are found again where the truth is known, and what is not there is said not to be."""

import re

import nibabel as nib
import numpy as np
import pytest
import torch

from ssl_pipeline.evaluation.cells import BODY_BOX, GREY_VALUES, PIXELS
from ssl_pipeline.evaluation.config import Probe
from ssl_pipeline.evaluation.correspondence.body_box import places_in_box, relative_places
from ssl_pipeline.evaluation.correspondence.describer import Describer
from ssl_pipeline.evaluation.correspondence.encoder_describer import (
    EncoderDescriber,
    describing_network,
    search_window,
)
from ssl_pipeline.evaluation.correspondence.search import (
    ClickedScan,
    DescribedScan,
    query_of_clicks,
)
from ssl_pipeline.evaluation.data.source_grid import Slab
from ssl_pipeline.evaluation.metrics.correspondence import HERE, score_landmarks
from ssl_pipeline.evaluation.records import read_results
from ssl_pipeline.evaluation.runner.probe import run_probe
from ssl_pipeline.evaluation.tasks.correspondence import Correspondence
from ssl_pipeline.models import ResEnc, ViT
from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.models.unet_decoder import UNetDecoder
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.prepare import model_input, prepare_volume
from ssl_pipeline.report.data.report_data import ReportData
from ssl_pipeline.report.html_report import render_report
from ssl_pipeline.report.markdown_report import render_markdown_report
from ssl_pipeline.report.sections.task import task_sections
from ssl_pipeline.volumes.volume import Volume
from tests.conftest import read_json


class PlantedDescriber(Describer):
    """Features that are smooth functions of the place in the body, which is the scan's world."""

    patch, step = (8, 8, 8), (4, 4, 4)

    def __init__(self):
        rng = np.random.default_rng(0)
        self.waves, self.phases = rng.normal(0, 1 / 12, (3, 64)), rng.uniform(0, 2 * np.pi, 64)

    def grid_values(self, scan):
        grid = np.stack(
            np.meshgrid(*(np.arange(1.5, side, 4) for side in scan.meta.shape), indexing="ij")
        )
        values = self.values_about(scan, grid[:, 0, 0, 0], grid.reshape(3, -1).T)
        yield Slab(0, values.T.reshape(-1, *grid.shape[1:]))

    def values_about(self, scan, centre, places):
        world = nib.affines.apply_affine(np.array(scan.meta.affine), places[:, ::-1])
        return np.cos(world @ self.waves + self.phases).astype(np.float32)


PLANTED = PlantedDescriber()
BLOBS = Correspondence(
    title="Blobs", label="blobs", classes={3: "bright", 5: "dark"}, clicks=(1,), tolerance_mm=6
)


def body(start=(0, 0, 0), size=(48, 32, 32)):
    """A box of a body whose voxel (0, 0, 0) lies at the origin of the world; axes are (z, y, x)."""
    voxels = np.random.default_rng(0).normal(size=size[::-1]).astype(np.float32)
    affine = nib.affines.from_matvec(np.eye(3), start[::-1])
    return prepare_volume(Volume(voxels, affine, "MR"), "MR", Preprocess(foreground="all"))


def planted_query(*clicked):
    described = [PLANTED.describe(each.scan) for each in clicked]
    return query_of_clicks(PLANTED, clicked, described, seed=0)


def whole_grid(describer, scan):
    return np.concatenate([slab.values for slab in describer.grid_values(scan)], axis=1)


def described(scan):
    return DescribedScan(PLANTED, scan, PLANTED.describe(scan))


def test_a_click_is_found_to_the_voxel_in_a_scan_of_another_field_of_view():
    clicks = np.array([[24.0, 16.0, 16.0], [30.0, 14.0, 20.0]])
    query = planted_query(ClickedScan(body(), clicks))
    first, second = described(body(start=(6, -5, 3))).find(query)
    np.testing.assert_array_equal(first.place, [18, 21, 13])
    np.testing.assert_array_equal(second.place, [24, 19, 17])
    assert first.is_here and second.is_here


def test_a_place_that_the_field_of_view_does_not_reach_is_not_here():
    places = np.random.default_rng(1).uniform((30, 4, 4), (44, 28, 28), (40, 3))
    query = planted_query(ClickedScan(body(), places))
    whole, short = described(body()), described(body(size=(18, 32, 32)))
    assert all(match.is_here for match in whole.find(query))
    assert np.mean([match.is_here for match in short.find(query)]) <= 0.05
    assert (whole.confidences_without(query, places) < HERE).mean() >= 0.8


@pytest.mark.parametrize("model", [ResEnc(preset="tiny"), ViT(preset="tiny")])
def test_features_of_a_place_are_those_of_the_maps_of_its_window(model):
    network = describing_network(random_encoder(model, 0), None)
    describer, scan = EncoderDescriber(network, (16, 16, 16)), body(size=(16, 16, 16))
    image = torch.from_numpy(model_input(scan.data, scan.meta))[None, None]
    with torch.inference_mode():
        maps = network.dense_maps(image, torch.ones(1, 3))
    grid, tokens = whole_grid(describer, scan), maps[-1][0].numpy()
    assert grid.shape == (sum(each.shape[1] for each in maps), 4, 4, 4)
    eighths = tokens[:, :1, :1, :1], grid[-len(tokens) :, :1, :1, :1]
    np.testing.assert_allclose(*eighths, atol=1e-3)  # no token lies beyond the first one
    middles = np.stack(np.meshgrid(*3 * [np.arange(1.5, 16, 4)], indexing="ij")).reshape(3, -1).T
    about = describer.values_about(scan, np.full(3, 7.5), middles)
    np.testing.assert_allclose(about.T.reshape(grid.shape), grid, atol=1e-3)


def test_windows_are_larger_than_crops_where_features_of_a_place_do_not_depend_on_them():
    sizes = [
        search_window(random_encoder(model, 0), (32, 32, 32))
        for model in (ResEnc(preset="tiny"), ViT(preset="tiny"))
    ]
    assert sizes == [(64, 64, 64), (32, 32, 32)]


def test_several_clicks_are_averaged_and_what_none_shows_is_not_sought():
    scan, nowhere = body(), np.full(3, np.nan)
    first = ClickedScan(scan, np.array([[24.0, 16.0, 16.0], nowhere]))
    second = ClickedScan(scan, np.array([nowhere, nowhere]))
    query = planted_query(first, second)
    assert np.linalg.norm(query.vectors[0]) == pytest.approx(1)
    searched = described(scan)
    found, missing = searched.find(query)
    np.testing.assert_array_equal(found.place, first.places[0])
    assert missing is None
    assert np.isnan(searched.confidences_without(query, first.places)[1])
    np.testing.assert_allclose(relative_places([first, second])[0] * [47, 31, 31], [24, 16, 16])


def test_the_place_in_the_body_is_that_of_its_box():
    small, large = body(size=(21, 21, 21)), body(size=(41, 31, 21))
    clicked = ClickedScan(small, np.array([[10.0, 5.0, 20.0]]))
    np.testing.assert_allclose(places_in_box(relative_places([clicked]), large), [[20, 7.5, 20]])


def test_a_decoder_that_was_trained_along_gives_the_maps():
    encoder = random_encoder(ResEnc(preset="tiny"), 0)
    decoder, scan = UNetDecoder(encoder), body(size=(32, 32, 32))
    own = EncoderDescriber(describing_network(encoder, None), (32, 32, 32))
    decoded = EncoderDescriber(describing_network(encoder, decoder.state_dict()), (32, 32, 32))
    found = [whole_grid(each, scan) for each in (own, decoded)]
    assert found[0].shape == found[1].shape == (sum(encoder.pyramid_channels), 8, 8, 8)
    np.testing.assert_allclose(found[0][-encoder.dim :], found[1][-encoder.dim :], atol=1e-3)
    assert np.abs(found[0][: -encoder.dim] - found[1][: -encoder.dim]).max() > 0.1


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    """The folder of a study whose task `blobs` was probed."""
    folder = tmp_path_factory.mktemp("places")
    compared = {"pretrained": "of a test", PIXELS: ""}
    run_probe(BLOBS, Probe(), small.context(folder / "probe/blobs", initializations=compared))
    (folder / "preprocess").mkdir()
    small.catalog.write(folder / "preprocess/catalog.parquet")
    (folder / "preprocess/volumes").symlink_to(small.folder / "volumes")
    return folder


def cell_rows(folder, name):
    return read_json(folder / f"probe/blobs/cells/{name}.json")["predictions"]


def test_landmarks_are_found_by_every_encoder_and_baseline(small, folder):
    results = read_results(folder / "probe/blobs")
    assert results.initializations == ("pretrained", BODY_BOX, GREY_VALUES)
    rows = {row.initialization: row for row in results.rows}
    # Blobs are all that is much brighter or darker than the rest.
    assert rows[GREY_VALUES].mean > rows[BODY_BOX].mean
    assert rows[BODY_BOX].other_metrics["absent_share"].mean is None
    cell = cell_rows(folder, "nearest-grey-1-0")
    assert len(cell) == 8  # four scans of two landmarks
    for row in cell:
        apart = (
            np.subtract(row["place"], row["truth"]) * small.catalog.by_id(row["scan"]).spacing_mm
        )
        assert row["distance_mm"] == pytest.approx(np.linalg.norm(apart), abs=0.1)
        assert 0 <= row["confidence"] <= 1


def test_the_report_shows_places_beside_the_truth(small, folder):
    data = ReportData(
        folder, "places", "", {"blobs": BLOBS}, {}, small.label_file, None, ("probe",)
    )
    section = task_sections(data)["blobs"]
    cell = cell_rows(folder, "nearest-pretrained-1-0")
    distances = sorted(row["distance_mm"] for row in cell if row["landmark"] == 0)
    titles = [picture.title for picture in section.places.pictures]
    assert len(titles) == 8  # two landmarks in four scans
    for title, distance in zip(titles[:4], distances, strict=True):  # the best comes first
        assert title.startswith(f"bright: {distance:.0f} mm")
    rows = section.places.distances.rows
    assert [row[:2] for row in rows] == [
        (name, "1") for name in ("pretrained", BODY_BOX, GREY_VALUES)
    ]
    assert re.fullmatch(r"\d+, median \d+", rows[0][2])  # four are too few for an interval
    page = render_report(data, {"blobs": section})
    assert "Found by one click" in page
    assert "Distance from the label" in render_markdown_report(data, {"blobs": section})


def test_the_share_found_leaves_out_what_a_scan_does_not_show():
    def row(subject, landmark, distance, confidence):
        return {
            "subject": subject,
            "landmark": landmark,
            "distance_mm": distance,
            "confidence": confidence,
            "confidence_without": 0.2,
        }

    rows = [row("a", 0, 3.0, 0.99), row("a", 1, 30.0, 0.5), row("b", 0, 5.0, 0.9)]
    scores = score_landmarks(["a", "b"], 2, rows, tolerance_mm=15.0, least_confidence=0.95)
    found = {name: metric.value for name, metric in scores.metrics.items()}
    assert found == {"found_share": 0.5, "distance_mm": 17, "shown_share": 0.25, "absent_share": 1}
    np.testing.assert_array_equal(scores.per_class, [1, 0])
