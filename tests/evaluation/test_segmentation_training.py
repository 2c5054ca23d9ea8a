"""Where training crops lie, and how a volume is segmented with options."""

import math

import numpy as np
import pytest
import torch

from ssl_pipeline.evaluation.adaptation.full import Full
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.data.crops import read_crops
from ssl_pipeline.evaluation.data.features import to_tensors
from ssl_pipeline.evaluation.data.source_grid import Slab, classes_on_source_grid
from ssl_pipeline.evaluation.decoders.unet import UNet
from ssl_pipeline.evaluation.finetuning.augmentation_config import CropAugmentation
from ssl_pipeline.evaluation.finetuning.optimizer import TrainingSettings
from ssl_pipeline.evaluation.finetuning.segmentation_model import SegmentationModel
from ssl_pipeline.evaluation.finetuning.segmentation_training import (
    build_labelled_volume,
    crop_start,
    predict_probabilities,
    predict_volume,
    summed_entropy,
    train_segmentation,
)
from ssl_pipeline.evaluation.tasks import Classification, Segmentation
from ssl_pipeline.models import ResEnc
from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.store.shard import ALL_CHANNELS

WINDOW = (32, 32, 32)  # larger than the planted volumes, so that there is one


def test_training_crops_lie_about_classes_as_often_as_set(planted):
    entry = planted.catalog.entries[0]
    indices = np.zeros((60, 60, 60), np.uint8)
    indices[50:52, 50:52, 50:52] = 1
    scan, rng = build_labelled_volume(entry, indices, (True,), 0), np.random.default_rng(0)
    for share in (0.0, 0.5, 1.0):
        starts = np.array([crop_start(scan, (8, 8, 8), share, rng) for _ in range(200)])
        assert starts.min() >= 0 and starts.max() <= 52
        near = (np.abs(starts + 4 - 51) <= 7).all(axis=1).mean()
        assert near == pytest.approx(share, abs=0.12)


def test_mirrored_views_are_averaged_where_they_lie(planted):
    torch.manual_seed(0)
    encoder = random_encoder(ResEnc(), 0)
    network = SegmentationModel(encoder, UNet().build(encoder), 2)
    for head in network.seg_layers:
        torch.nn.init.zeros_(head.bias)
    entry = planted.catalog.entries[0]
    settings = {"augmentation": CropAugmentation(flip=("x", "z")), "batch_size": 1}
    plain = Finetune(precision="fp32", **settings)
    mirrored = Finetune(precision="fp32", mirrored_views=True, **settings)
    start = tuple(-((w - s) // 2) for w, s in zip(WINDOW, entry.shape, strict=True))
    crop = read_crops(planted.reader, [(entry, start)], WINDOW)
    images, _, spacing = to_tensors(crop, "cpu")
    with torch.no_grad():
        views = [
            network(images.flip(axes), spacing).softmax(dim=1).flip([axis + 1 for axis in axes])
            for axes in ([], [1], [3], [1, 3])
        ]
    inside = tuple(slice(-o, -o + n) for o, n in zip(start, entry.shape, strict=True))
    for section, kept in ((plain, views[:1]), (mirrored, views)):
        mean = torch.stack(kept).mean(dim=0)[0].numpy()
        expected = classes_on_source_grid([Slab(0, mean[:, *inside])], entry.meta)
        found = predict_volume(network, planted.reader, entry, WINDOW, section)
        entropy = -(mean * np.log(mean))[:, *inside].sum(axis=0).mean()
        slabs = predict_probabilities([network], entry.shape, lambda _: crop, WINDOW, section)
        found_entropy = sum(map(summed_entropy, slabs)) / math.prod(entry.shape)
        assert found_entropy == pytest.approx(entropy, rel=1e-4)
        assert (found == expected).mean() > 0.999


def test_mirrored_views_need_axes_along_which_training_mirrors():
    with pytest.raises(ValueError, match=r"mirrored_views needs axes .* augmentation.flip"):
        Finetune(mirrored_views=True)


def test_held_out_subjects_are_not_trained_on(planted):
    train = [e for e in planted.catalog.entries if e.split == "train"][::4]
    scans = []
    for entry in train:
        indices = np.zeros(entry.shape, np.uint8)
        indices[8:16, 10:20, 8:16] = 1
        scans.append(build_labelled_volume(entry, indices, (True,), 0))
    encoder = random_encoder(ResEnc(), 0)
    network = SegmentationModel(encoder, UNet().build(encoder), 1)
    section = Finetune(precision="fp32", steps=10, batch_size=1, held_out_share=0.5)
    read: list[str] = []

    class Reader(CropReader):
        """Remembers what is read with gradients."""

        def read_crop(self, scan_id, start_zyx, size_zyx, channels=ALL_CHANNELS):
            read.append(scan_id) if torch.is_grad_enabled() else None
            return super().read_crop(scan_id, start_zyx, size_zyx, channels)

    settings = TrainingSettings(section, Full(), (16, 16, 16), 0, "cpu")
    reader = Reader(planted.reader.folder, planted.reader.catalog)
    train_segmentation(network, reader, scans, settings)
    assert len(read) == 10 and len(set(read)) <= len(train) // 2 < len(train)


def test_steps_and_batch_come_from_the_task_and_its_labels_where_the_study_gives_none():
    voxels = Segmentation(title="Voxels", label="blobs", classes={1: "one"})
    classes = Classification(title="Classes", target="side", classes={0: "left", 1: "right"})
    few, many = (voxels.finetune_section(Finetune(), labelled) for labelled in (5, 5000))
    assert few.steps < many.steps == 1000
    assert few.batch_size < classes.finetune_section(Finetune(), 5).batch_size
    given = voxels.finetune_section(Finetune(steps=7, batch_size=3), 5)
    assert (given.steps, given.batch_size) == (7, 3)
