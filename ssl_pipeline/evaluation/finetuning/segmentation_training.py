"""Training and prediction of segmentation models, on crops of which half are centred on a class.

Crops are read from the store during training, so memory does not grow with the number of scans but
for their label maps, one byte a voxel.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_pipeline.evaluation.data.crops import CropBatch, padded_window, read_crops
from ssl_pipeline.evaluation.data.features import to_tensors
from ssl_pipeline.evaluation.data.label_maps import IGNORE_LABEL
from ssl_pipeline.evaluation.data.source_grid import Slab
from ssl_pipeline.evaluation.finetuning.crop_model import contrast_factors
from ssl_pipeline.evaluation.finetuning.optimizer import TrainingSettings, optimise
from ssl_pipeline.evaluation.finetuning.segmentation_loss import deep_supervision_loss
from ssl_pipeline.evaluation.finetuning.segmentation_model import SegmentationModel
from ssl_pipeline.evaluation.finetuning.sliding_window import (
    WindowSettings,
    sliding_window_inference,
)
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.types import Shape, Triple
from ssl_pipeline.views.rng import generator

MAX_CENTRES = 2000  # most voxels of a class and scan that training crops may be centred on


@dataclass(frozen=True)
class LabelledVolume:
    """A scan with its labels and candidate centres of training crops."""

    entry: Entry
    class_indices: NDArray[np.uint8]  # (z, y, x): 0 background, 1 the first class, 255 ignored
    annotated_classes: tuple[bool, ...]  # by class
    centres: tuple[NDArray[np.int64], ...]  # voxels (n, 3) of each class that is present


def build_labelled_volume(
    entry: Entry, class_indices: NDArray[np.uint8], annotated_classes: tuple[bool, ...], seed: int
) -> LabelledVolume:
    """Gather what training needs of a scan's class indices (z, y, x)."""
    centres = []
    for index in range(1, len(annotated_classes) + 1):
        where = np.flatnonzero(class_indices == index)
        if len(where):
            rng = generator(seed, index, f"centres {entry.voxel_hash}")
            chosen = rng.choice(where, min(MAX_CENTRES, len(where)), replace=False)
            centres.append(np.stack(np.unravel_index(chosen, class_indices.shape), axis=1))
    return LabelledVolume(entry, class_indices, annotated_classes, tuple(centres))


def train_segmentation(
    model: SegmentationModel,
    reader: CropReader,
    scans: Sequence[LabelledVolume],
    settings: TrainingSettings,
) -> int:
    """Train the decoder, and of the encoder what is not frozen, on crops of the scans.

    All draws are functions of the seed. Returns the peak memory in bytes.
    """
    size, section, device = settings.crop_size, settings.section, settings.device
    model.to(device).train()

    def loss_of(step: int) -> Tensor:
        rng = generator(settings.seed, step, "fine-tuning")
        chosen = [scans[index] for index in rng.integers(len(scans), size=section.batch_size)]
        starts = [crop_start(scan, size, rng) for scan in chosen]
        crops = read_crops(
            reader, [(s.entry, at) for s, at in zip(chosen, starts, strict=True)], size
        )
        images, _, spacing = to_tensors(crops, device)
        images = (
            images * contrast_factors(len(chosen), section, rng).to(device)[:, None, None, None]
        )
        truth = np.stack(
            [
                padded_window(s.class_indices, at, size, IGNORE_LABEL)
                for s, at in zip(chosen, starts, strict=True)
            ]
        )
        target = torch.from_numpy(truth).to(device).long()
        annotated = torch.tensor([scan.annotated_classes for scan in chosen], device=device)
        logits = model.forward_resolutions(images, spacing)
        return deep_supervision_loss(logits, target, annotated, IGNORE_LABEL)

    return optimise(model, loss_of, section, settings.method)


def predict_volume(
    model: SegmentationModel, reader: CropReader, entry: Entry, settings: WindowSettings
) -> Iterator[Slab]:
    """The probabilities of classes of a stored volume, plane after plane; background first."""
    return predict_windows(
        [model],
        entry.shape,
        lambda starts: read_crops(reader, [(entry, at) for at in starts], settings.size),
        settings,
    )


def predict_windows(
    models: Sequence[nn.Module],
    shape: Shape,
    crops_at: Callable[[Sequence[Triple]], CropBatch],
    settings: WindowSettings,
) -> Iterator[Slab]:
    """Probabilities of classes of a volume (z, y, x), plane after plane; the mean of the models'.

    `crops_at` maps starts of windows to crops. Background comes first.
    """
    device = str(next(models[0].parameters()).device)
    for model in models:
        model.eval()

    def probabilities(starts: Sequence[Triple]) -> Tensor:
        images, _, spacing = to_tensors(crops_at(starts), device)
        with torch.inference_mode():
            found = [model(images, spacing).float().softmax(dim=1) for model in models]
        return torch.stack(found).mean(dim=0).cpu()

    return sliding_window_inference(shape, settings, probabilities)


def crop_start(scan: LabelledVolume, size: Triple, rng: np.random.Generator) -> Triple:
    """Start of a training crop: near a voxel of some class half of the time, else anywhere.

    Crops stay inside the volume where they fit.
    """
    room = np.array(scan.class_indices.shape) - np.array(size)
    if scan.centres and rng.random() < 0.5:
        of_class = scan.centres[rng.integers(len(scan.centres))]
        start = of_class[rng.integers(len(of_class))] - np.array(size) // 2
        start = start + rng.integers(-np.array(size) // 4, np.array(size) // 4 + 1)
        start = np.where(room > 0, np.clip(start, 0, np.maximum(room, 0)), room // 2)
    else:
        start = np.where(room > 0, rng.integers(0, np.maximum(room, 0) + 1), room // 2)
    z, y, x = (int(value) for value in start)
    return z, y, x
