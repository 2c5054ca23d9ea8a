"""Models of crops and their training: encoder, pooled tokens, LayerNorm and a linear layer."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.data.crops import CropBatch, StoredVolumes, read_labelled_crops
from ssl_pipeline.evaluation.data.features import to_tensors, valid_tokens
from ssl_pipeline.evaluation.data.labelled_crops import LabelledCrop
from ssl_pipeline.evaluation.finetuning.optimizer import TrainingSettings, optimise
from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.types import Triple, triple
from ssl_pipeline.views.rng import generator


class CropModel(nn.Module, ABC):
    """From crops to logits of classes, or to a number where there are none.

    Numbers are standardised by mean and standard deviation of the labelled crops.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    @abstractmethod
    def forward(
        self,
        images: Float[Tensor, "batch z y x"],
        valid: Float[Tensor, "batch z y x"],
        spacing_mm: Float[Tensor, "batch 3"],
    ) -> Float[Tensor, "batch outputs"]:
        """Logits of classes, or a number in standard deviations."""

    def loss(self, outputs: Float[Tensor, "batch outputs"], targets: Tensor) -> Tensor:
        """Cross-entropy, or the squared error."""
        if self.n_classes:
            return nn.functional.cross_entropy(outputs.float(), targets)
        return nn.functional.mse_loss(outputs[:, 0].float(), (targets - self.mean) / self.spread)

    def to_predictions(
        self, outputs: Float[Tensor, "batch outputs"]
    ) -> Float[Tensor, "batch outputs"]:
        """Probabilities of classes, or numbers (batch, 1)."""
        if self.n_classes:
            return outputs.double().softmax(dim=1)
        return outputs.double() * self.spread + self.mean


class EncoderCropModel(CropModel):
    """An encoder with a head; `pool` turns the tokens of a crop into one vector."""

    def __init__(self, encoder: Encoder, n_classes: int, pool: nn.Module) -> None:
        super().__init__(n_classes)
        self.encoder, self.pool = encoder, pool
        outputs = max(1, n_classes)
        self.head = nn.Sequential(nn.LayerNorm(encoder.dim), nn.Linear(encoder.dim, outputs))

    def forward(
        self,
        images: Float[Tensor, "batch z y x"],
        valid: Float[Tensor, "batch z y x"],
        spacing_mm: Float[Tensor, "batch 3"],
    ) -> Float[Tensor, "batch outputs"]:
        """Logits of classes, or a number in standard deviations."""
        tokens = self.encoder(images[:, None], spacing_mm)
        outputs: Tensor = self.head(self.pool(tokens, valid_tokens(valid, self.encoder.patch)))
        return outputs


def train_crop_model(
    model: CropModel,
    volumes: StoredVolumes,
    crops: Sequence[LabelledCrop],
    settings: TrainingSettings,
) -> int:
    """Train the head, and of an encoder what is not frozen, on labelled crops.

    A step draws classes uniformly and then crops of them, for the metric weighs classes equally;
    with numbers it draws crops uniformly. Positions and contrast of crops are jittered; all draws
    are functions of the seed. Returns the peak memory in bytes.
    """
    section, device = settings.section, settings.device
    kinds = sorted({crop.target for crop in crops}) if model.n_classes else []
    of_class = [[r for r in crops if r.target == kind] for kind in kinds] or [list(crops)]
    if not model.n_classes:
        numbers = np.array([crop.target for crop in crops])
        model.mean.fill_(numbers.mean())
        model.spread.fill_(numbers.std() or 1.0)
    model.to(device).train()

    def loss_of(step: int) -> Tensor:
        rng = generator(settings.seed, step, "fine-tuning")
        chosen = []
        for _ in range(section.batch_size):
            candidates = of_class[rng.integers(len(of_class))]
            chosen.append(candidates[int(rng.integers(len(candidates)))])
        moved = [_jitter(crop, settings.crop_size, section, rng) for crop in chosen]
        batch = read_labelled_crops(volumes, moved, settings.crop_size)
        images, valid, spacing = to_tensors(batch, device)
        images = (
            images * contrast_factors(len(chosen), section, rng).to(device)[:, None, None, None]
        )
        targets = torch.tensor([crop.target for crop in chosen], device=device)
        return model.loss(model(images, valid, spacing), targets)

    return optimise(model, loss_of, settings)


def predict_crops(
    model: CropModel, batches: Iterable[CropBatch], device: str
) -> NDArray[np.float64]:
    """Probabilities (n, classes), or numbers (n, 1), of crops that come in batches."""
    model.eval()
    with torch.inference_mode():
        rows = [model.to_predictions(model(*to_tensors(batch, device))) for batch in batches]
    return torch.cat(rows).cpu().numpy()


def contrast_factors(
    number: int, section: Finetune, rng: np.random.Generator
) -> Float[Tensor, " {number}"]:
    """Random factors by which the voxels of crops are multiplied."""
    factors = 1 + rng.uniform(-section.contrast_jitter, section.contrast_jitter, number)
    return torch.from_numpy(factors.astype(np.float32))


def _jitter(
    crop: LabelledCrop, size: Triple, section: Finetune, rng: np.random.Generator
) -> LabelledCrop:
    """The crop shifted by up to `section.jitter_voxels` of the voxels that it is read with."""
    shift = rng.integers(-section.jitter_voxels, section.jitter_voxels + 1, 3)
    moved = triple(
        start + int(step) * extent // side
        for start, step, extent, side in zip(crop.start, shift, crop.extent, size, strict=True)
    )
    return replace(crop, start=moved)
