"""Random parameters of one sample, drawn on the host by counter: crops, flips, masks, intensities.

A few hundred random numbers per sample; the augmentation itself is batched on the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.typing import NDArray

from ssl_pipeline.views.augmentation import HIGH, LOW
from ssl_pipeline.views.config import AffineAugmentation, IntensityAugmentation, Recolour, Views
from ssl_pipeline.views.rng import generator, rng_key
from ssl_pipeline.views.sample import INTENSITY_PARAMS, Block, SampleParams

VIEWS_PER_SAMPLE = 2


@dataclass(frozen=True)
class SampleKey:
    """Key of a sample's random numbers: the seed of the run, and its number in it."""

    seed: int
    number: int

    def generator(self, purpose: str) -> np.random.Generator:
        """The random generator of the sample for one purpose."""
        return generator(self.seed, self.number, purpose)


def draw_starts(sample_key: SampleKey, views: Views, blocks: Sequence[Block]) -> NDArray[np.int64]:
    """First voxels (2, 3) in their blocks of two crops with the requested overlap.

    Crops stay inside the volume; where it is shorter than a crop, they extend beyond both ends.
    """
    rng = sample_key.generator("crops")
    crop = np.array(views.crop_voxels)
    low, high = _start_range(views, blocks[0])
    first = rng.integers(low, high + 1)
    # The shared fraction is the product over the axes of 1 - offset / crop: split it at random.
    share = rng.uniform(*views.overlap)
    part = 1 - share ** rng.dirichlet(np.ones(3))
    offset = np.rint(rng.choice((-1, 1), 3) * part * crop).astype(np.int64)
    there = first + offset
    low, high = _start_range(views, blocks[-1])
    # On the other side of the first crop where this one has no room.
    there = np.where((there < low) | (there > high), first - offset, there)
    return np.stack([first, np.clip(there, low, high)])


def _start_range(views: Views, block: Block) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The least and the largest first voxel of a crop in a block."""
    shape = np.array(block.volume.shape)
    low = np.maximum(0, -block.start)
    room = np.minimum(np.array(views.block_voxels), shape - block.start)
    high = room - np.array(views.crop_voxels)
    short = high < low
    low = np.where(short, (low + high) // 2, low)
    return low, np.where(short, low, high)


def draw_params(
    sample_key: SampleKey, views: Views, start: NDArray[np.int64], token_count: int
) -> SampleParams:
    """Draw the parameters of two views whose crops begin at `start` (2, 3) of their blocks."""
    is_transformed, zoom, matrix = draw_affine(sample_key, views.affine)
    both = range(VIEWS_PER_SAMPLE)
    orders = [sample_key.generator(f"mask {v}").random(token_count, np.float32) for v in both]
    intensities = [draw_intensity_params(sample_key, views.intensity, v) for v in both]
    fields = [draw_bias_field(sample_key, views.intensity, v) for v in both]
    is_recoloured, values, gains = draw_recolouring(sample_key, views.recolour)
    noise = [rng_key(sample_key.seed, sample_key.number, f"noise {v}") % 2**63 for v in both]
    return SampleParams(
        zoom=zoom,
        matrix=matrix,
        is_transformed=is_transformed,
        start=start,
        order=np.stack(orders),
        intensity_params=np.stack(intensities),
        bias_field=np.stack(fields),
        noise_seeds=np.array(noise),
        is_recoloured=is_recoloured,
        class_values=values,
        class_gains=gains,
    )


def draw_flips(
    sample_key: SampleKey, views: Views, blocks: Sequence[Block], start: NDArray[np.int64]
) -> tuple[tuple[Block, ...], NDArray[np.int64]]:
    """Flip the blocks along each axis of `views.flip` with probability 1/2; moves `start` along."""
    rng = sample_key.generator("flip")
    voxels, start = [block.voxels for block in blocks], start.copy()
    for axis, name in enumerate("zyx"):
        if name in views.flip and rng.random() < 0.5:
            voxels = [np.flip(each, axis + 1) for each in voxels]
            start[:, axis] = views.block_voxels[axis] - views.crop_voxels[axis] - start[:, axis]
    return tuple(
        replace(block, voxels=each) for block, each in zip(blocks, voxels, strict=True)
    ), start


def draw_affine(
    sample_key: SampleKey, section: AffineAugmentation
) -> tuple[bool, float, NDArray[np.float32]]:
    """Whether a sample is transformed, its zoom, and the matrix of rotation and zoom (z, y, x)."""
    rng = sample_key.generator("affine")
    is_transformed = bool(rng.random() < section.probability)
    angles = rng.uniform(-1, 1, 3) * section.rotation_deg
    zoom = float(2 ** (rng.uniform(-1, 1) * section.zoom))
    if not is_transformed:
        return False, 1.0, np.eye(3, dtype=np.float32)
    matrix = scipy.spatial.transform.Rotation.from_euler("zyx", angles, degrees=True).as_matrix()
    return True, zoom, (zoom * matrix).astype(np.float32)


def draw_intensity_params(
    sample_key: SampleKey, section: IntensityAugmentation, view: int
) -> NDArray[np.float32]:
    """The values of `INTENSITY_PARAMS` for one view; those of skipped augmentations are neutral."""
    rng = sample_key.generator(f"intensity {view}")
    contrast, brightness, gamma, bias = rng.uniform(-1, 1, 4)
    noise, blur, low, high = rng.random(4)
    noisy, blurred, windowed, biased = rng.random(4) < (
        section.noise_probability,
        section.blur_probability,
        section.window_probability,
        section.bias_probability,
    )
    size, coarse = rng.random(2)
    drawn = {
        "bias": bias * section.bias * biased,
        "blur": blur * section.blur_voxels * blurred,
        "low_resolution": 1
        + size * (section.low_resolution - 1) * (coarse < section.low_resolution_probability),
        "gamma": 2 ** (gamma * section.gamma),
        "low": low * section.window * windowed,
        "high": high * section.window * windowed,
        "contrast": 1 + contrast * section.contrast,
        "brightness": brightness * section.brightness,
        "noise": noise * section.noise * noisy,
    }
    return np.array([drawn[name] for name in INTENSITY_PARAMS], np.float32)


def draw_bias_field(
    sample_key: SampleKey, section: IntensityAugmentation, view: int
) -> NDArray[np.float32]:
    """A coarse bias field: values in -1..1 at 3 x 3 x 3 points of a crop."""
    if not section.bias_probability:
        return np.zeros((3, 3, 3), np.float32)
    field: NDArray[np.float32] = sample_key.generator(f"field {view}").random((3, 3, 3), np.float32)
    return 2 * field - 1


def draw_recolouring(
    sample_key: SampleKey, section: Recolour
) -> tuple[bool, NDArray[np.float32], NDArray[np.float32]]:
    """Whether a second view is recoloured, the means of its classes, and the gains within them.

    Gains lie in -1..1: what is bright within a class in one sequence may be dark in another.
    """
    rng = sample_key.generator("recolour")
    is_recoloured = bool(rng.random() < section.probability)
    values = rng.uniform(LOW, HIGH, section.classes).astype(np.float32)
    return is_recoloured, values, rng.uniform(-1, 1, section.classes).astype(np.float32)
