"""Settings of the augmentation of training crops (`finetune.augmentation`); imports no torch.

Drawn and applied as the views of pretraining are (`views.augmentation`), and stronger, for a few
labelled scans are seen many times.
"""

from typing import Literal

from pydantic import Field

from ssl_pipeline.config.section import Section
from ssl_pipeline.views.config import AffineAugmentation, IntensityAugmentation


class FinetuneAffine(AffineAugmentation):
    """Rotation and zoom of a training crop."""

    probability: float = Field(
        0.8, ge=0, le=1, description="fraction of crops that are rotated and zoomed"
    )


class ElasticAugmentation(Section):
    """Smooth random displacements of a training crop."""

    probability: float = Field(0.0, ge=0, le=1, description="fraction of crops that are deformed")
    displacement: float = Field(
        0.05, ge=0, le=0.25, description="largest displacement, as a fraction of the crop's sides"
    )


class FinetuneIntensity(IntensityAugmentation):
    """Intensity augmentation of a training crop."""

    noise_probability: float = Field(
        0.3, ge=0, le=1, description="fraction of crops that get noise"
    )
    low_resolution_probability: float = Field(
        0.2, ge=0, le=1, description="fraction of crops that look as if scanned more coarsely"
    )


class CropAugmentation(Section):
    """Augmentation of the training crops of a segmentation."""

    affine: FinetuneAffine = FinetuneAffine()
    elastic: ElasticAugmentation = ElasticAugmentation()
    flip: tuple[Literal["x", "y", "z"], ...] = Field(
        (),
        description="axes along which crops are mirrored half of the time; none where sides matter",
    )
    intensity: FinetuneIntensity = FinetuneIntensity()


UNCHANGED = CropAugmentation(
    affine=FinetuneAffine(probability=0),
    intensity=FinetuneIntensity(
        contrast=0,
        brightness=0,
        gamma=0,
        noise_probability=0,
        blur_probability=0,
        low_resolution_probability=0,
    ),
)
