"""Training and prediction of segmentation models, on augmented crops about classes and elsewhere.

Crops are read from the store during training, so memory does not grow with the number of scans but
for their label maps, one byte a voxel.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations

import numpy as np
import scipy
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.data.crops import CropBatch, padded_window, read_crops
from ssl_pipeline.evaluation.data.features import to_tensors
from ssl_pipeline.evaluation.data.label_maps import IGNORE_LABEL
from ssl_pipeline.evaluation.data.source_grid import Slab, classes_on_source_grid
from ssl_pipeline.evaluation.finetuning.augmentation_config import UNCHANGED
from ssl_pipeline.evaluation.finetuning.crop_augmentation import (
    LabelledCrops,
    augment_crops,
    block_margin,
)
from ssl_pipeline.evaluation.finetuning.early_stopping import EarlyStopping, hold_out
from ssl_pipeline.evaluation.finetuning.largest_components import clean_classes
from ssl_pipeline.evaluation.finetuning.optimizer import (
    TrainingSettings,
    finetune_compute,
    optimise,
)
from ssl_pipeline.evaluation.finetuning.segmentation_loss import deep_supervision_loss
from ssl_pipeline.evaluation.finetuning.segmentation_model import SegmentationModel
from ssl_pipeline.evaluation.finetuning.sliding_window import (
    WindowSettings,
    sliding_window_inference,
)
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.types import Shape, Triple, triple
from ssl_pipeline.views.augmentation_params import SampleKey
from ssl_pipeline.views.rng import generator

HELD_OUT_STEPS = 8  # whose crops a check takes of held-out subjects
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
    predicted_subjects: Collection[str] = (),
) -> int:
    """Train the decoder, and of the encoder what is not frozen, on crops of the scans.

    All draws are functions of the seed. `predicted_subjects` are never held out. Returns the peak
    memory in bytes.
    """
    section, device = settings.section, settings.device
    model.to(device).train()

    subjects, rng = [scan.entry.subject for scan in scans], generator(settings.seed, 0, "held out")
    held_out = hold_out(subjects, section.held_out_share, rng, predicted_subjects)
    trained = [scan for scan in scans if scan.entry.subject not in held_out]
    checked = [scan for scan in scans if scan.entry.subject in held_out]
    as_they_are = replace(settings, section=section.model_copy(update={"augmentation": UNCHANGED}))

    def loss_of(step: int) -> Tensor:
        return _loss(model, reader, trained, step, settings)

    @torch.inference_mode()
    def held_out_loss(candidate: SegmentationModel) -> float:
        with settings.compute.autocast():
            steps = range(section.steps, section.steps + HELD_OUT_STEPS)  # which none has drawn
            losses = [_loss(candidate, reader, checked, step, as_they_are) for step in steps]
        return float(torch.stack(losses).mean())

    stopping = EarlyStopping(held_out_loss, section.steps) if held_out else None
    return optimise(model, loss_of, settings, stopping)


def _loss(
    model: SegmentationModel,
    reader: CropReader,
    scans: Sequence[LabelledVolume],
    step: int,
    settings: TrainingSettings,
) -> Tensor:
    """The loss of the crops that a step draws of the scans."""
    batch_size, seed = settings.section.batch_size, settings.seed
    chosen = generator(seed, step, "fine-tuning").integers(len(scans), size=batch_size)
    drawn = [scans[index] for index in chosen]
    keys = [SampleKey(seed, step * batch_size + place) for place in range(batch_size)]
    crops = _read_augmented_crops(reader, drawn, keys, settings)
    annotated = torch.tensor([scan.annotated_classes for scan in drawn], device=settings.device)
    logits = model.forward_resolutions(crops.images, crops.spacing_mm)
    full = [each.float() for each in logits]  # whatever the precision of convolutions
    return deep_supervision_loss(full, crops.truth, annotated, IGNORE_LABEL)


def _read_augmented_crops(
    reader: CropReader,
    scans: Sequence[LabelledVolume],
    keys: Sequence[SampleKey],
    settings: TrainingSettings,
) -> LabelledCrops:
    """A random crop of each scan, by its key."""
    section, size, share = settings.section, settings.crop_size, settings.section.foreground_share
    margin = np.array(block_margin(size, section.augmentation))
    block = triple((np.array(size) + 2 * margin).tolist())
    starts = [
        triple((crop_start(scan, size, share, key.generator("crop")) - margin).tolist())
        for scan, key in zip(scans, keys, strict=True)
    ]
    places = list(zip(scans, starts, strict=True))
    read = read_crops(reader, [(scan.entry, start) for scan, start in places], block)
    truth = [padded_window(s.class_indices, at, block, IGNORE_LABEL) for s, at in places]
    images, valid, spacing_mm = to_tensors(read, settings.device)
    target = torch.from_numpy(np.stack(truth)).to(settings.device).long()
    blocks = LabelledCrops(images, valid, target, spacing_mm)
    return augment_crops(blocks, size, keys, section.augmentation, IGNORE_LABEL)


def predict_volume(
    model: nn.Module, reader: CropReader, entry: Entry, size: Triple, section: Finetune
) -> NDArray[np.uint8]:
    """The class of every voxel of a stored volume, on the scan's own grid (x, y, z).

    0 is background, 1 the first class. Windows of `size` voxels slide over the volume.
    """
    slabs = stored_probabilities(model, reader, entry, size, section)
    return clean_classes(classes_on_source_grid(slabs, entry.meta), section)


def summed_entropy(probabilities: Slab) -> float:
    """Sum over the voxels of some planes of the entropy of their class, in nats."""
    return float(scipy.special.entr(probabilities.values).sum(dtype=np.float64))


def stored_probabilities(
    model: nn.Module, reader: CropReader, entry: Entry, size: Triple, section: Finetune
) -> Iterator[Slab]:
    """Probabilities as of `predict_probabilities`, of a stored volume by one model."""

    def crops_at(starts: Sequence[Triple]) -> CropBatch:
        return read_crops(reader, [(entry, at) for at in starts], size)

    return predict_probabilities([model], entry.meta.shape, crops_at, size, section)


def predict_probabilities(
    models: Sequence[nn.Module],
    shape: Shape,
    crops_at: Callable[[Sequence[Triple]], CropBatch],
    size: Triple,
    section: Finetune,
) -> Iterator[Slab]:
    """Mean probabilities of classes of a volume (z, y, x) by models, plane after plane.

    Background comes first. `crops_at` maps starts of windows to crops of `size` voxels.
    """
    device = str(next(models[0].parameters()).device)
    for model in models:
        model.eval()

    def probabilities(starts: Sequence[Triple]) -> Tensor:
        images, _, spacing = to_tensors(crops_at(starts), device)
        with torch.inference_mode(), finetune_compute(section, device).autocast():
            return mean_probabilities(models, images, spacing, section).cpu()

    windows = WindowSettings(size, section.overlap, section.batch_size)
    return sliding_window_inference(shape, windows, probabilities)


def mean_probabilities(
    models: Sequence[nn.Module],
    images: Float[Tensor, "batch z y x"],
    spacing_mm: Float[Tensor, "batch 3"],
    section: Finetune,
) -> Float[Tensor, "batch classes z y x"]:
    """Mean probabilities of crops by models, over mirrored views where the section asks for them.

    Background comes first.
    """
    axes = [1 + "zyx".index(axis) for axis in section.augmentation.flip]
    views = chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1))
    mirrored = list(views) if section.mirrored_views else [()]
    each = [
        model(images.flip(view), spacing_mm).float().softmax(dim=1).flip([a + 1 for a in view])
        for model in models
        for view in mirrored
    ]
    return torch.stack(each).mean(dim=0)


def crop_start(
    scan: LabelledVolume, size: Triple, foreground_share: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Start (z, y, x) of a training crop: near a voxel of some class in that share of crops.

    Crops stay inside the volume where they fit.
    """
    room = np.array(scan.class_indices.shape) - np.array(size)
    if scan.centres and rng.random() < foreground_share:
        of_class = scan.centres[rng.integers(len(scan.centres))]
        start = of_class[rng.integers(len(of_class))] - np.array(size) // 2
        start = start + rng.integers(-np.array(size) // 4, np.array(size) // 4 + 1)
        start = np.clip(start, 0, np.maximum(room, 0))
    else:
        start = rng.integers(0, np.maximum(room, 0) + 1)
    centred: NDArray[np.int64] = np.where(room > 0, start, room // 2)
    return centred
