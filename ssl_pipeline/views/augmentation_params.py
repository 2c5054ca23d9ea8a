"""Random parameters of one sample, drawn on the host by counter: crops, flips, masks, intensities.

A few hundred random numbers per sample; the augmentation itself is batched on the device.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ssl_pipeline.preprocess.prepare import VolumeMeta
from ssl_pipeline.views.collate import INTENSITY_PARAMS, Sample
from ssl_pipeline.views.config import AffineAugmentation, IntensityAugmentation, Views
from ssl_pipeline.views.rng import generator, rng_key

VIEWS_PER_SAMPLE = 2


@dataclass(frozen=True)
class SampleKey:
    """Identity of a sample: its number in the run, its subject and its volume."""

    seed: int
    number: int
    subject: int
    metadata_features: NDArray[np.float32]
    entry_index: int

    def generator(self, purpose: str) -> np.random.Generator:
        """The random generator of the sample for one purpose."""
        return generator(self.seed, self.number, purpose)


def draw_sample(
    sample_key: SampleKey,
    views: Views,
    meta: VolumeMeta,
    voxels: NDArray[np.int16],
    block_start: NDArray[np.int64],
    token_count: int,
) -> Sample:
    """Draw two views of a block (2, z, y, x) that begins at `block_start` of its volume."""
    crop = np.array(views.crop_voxels)
    start = _draw_starts(sample_key, views, np.array(meta.shape), block_start)
    centre = (block_start + start + crop / 2) / np.array(meta.shape)
    voxels, start = _draw_flips(sample_key, views, voxels, start)
    is_transformed, zoom, matrix = _draw_affine(sample_key, views.affine)
    return Sample(
        voxels=voxels,
        units=np.array(meta.input_scaling, np.float32),
        spacing_mm=np.array(meta.spacing_mm[::-1], np.float32),
        zoom=zoom,
        matrix=matrix,
        is_transformed=is_transformed,
        start=start,
        order=np.stack(
            [
                sample_key.generator(f"mask {v}").random(token_count, np.float32)
                for v in range(VIEWS_PER_SAMPLE)
            ]
        ),
        intensity_params=np.stack(
            [
                _draw_intensity_params(sample_key, views.intensity, view)
                for view in range(VIEWS_PER_SAMPLE)
            ]
        ),
        bias_field=np.stack(
            [
                _draw_bias_field(sample_key, views.intensity, view)
                for view in range(VIEWS_PER_SAMPLE)
            ]
        ),
        noise_seeds=np.array(
            [
                rng_key(sample_key.seed, sample_key.number, f"noise {v}") % 2**63
                for v in range(VIEWS_PER_SAMPLE)
            ]
        ),
        centre=centre.astype(np.float32),
        subject=sample_key.subject,
        metadata_features=sample_key.metadata_features,
        number=sample_key.number,
        entry_index=sample_key.entry_index,
    )


def _draw_starts(
    sample_key: SampleKey, views: Views, shape: NDArray[np.int64], block_start: NDArray[np.int64]
) -> NDArray[np.int64]:
    """First voxels (2, 3) in the block of two crops with the requested overlap.

    Crops stay inside the volume; where it is shorter than a crop, they extend beyond both ends.
    """
    rng = sample_key.generator("crops")
    crop, block = np.array(views.crop_voxels), np.array(views.block_voxels)
    low = np.maximum(0, -block_start)
    high = np.minimum(block, shape - block_start) - crop
    short = high < low
    low = np.where(short, (low + high) // 2, low)
    high = np.where(short, low, high)
    first = rng.integers(low, high + 1)
    # The shared fraction is the product over the axes of 1 - offset / crop: split it at random.
    share = rng.uniform(*views.overlap)
    part = 1 - share ** rng.dirichlet(np.ones(3))
    offset = np.rint(rng.choice((-1, 1), 3) * part * crop).astype(np.int64)
    there = first + offset
    # On the other side of the first crop where this one has no room.
    there = np.where((there < low) | (there > high), first - offset, there)
    return np.stack([first, np.clip(there, low, high)])


def _draw_flips(
    sample_key: SampleKey, views: Views, voxels: NDArray[np.int16], start: NDArray[np.int64]
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Flip the block along each axis of `views.flip` with probability 1/2."""
    rng = sample_key.generator("flip")
    crop, start = views.crop_voxels, start.copy()
    for axis, name in enumerate("zyx"):
        if name in views.flip and rng.random() < 0.5:
            voxels = np.flip(voxels, axis + 1)
            start[:, axis] = voxels.shape[axis + 1] - crop[axis] - start[:, axis]
    return voxels, start


def _draw_affine(
    sample_key: SampleKey, section: AffineAugmentation
) -> tuple[bool, float, NDArray[np.float32]]:
    """Whether a sample is transformed, its zoom, and the matrix of rotation and zoom (z, y, x)."""
    rng = sample_key.generator("affine")
    is_transformed = bool(rng.random() < section.probability)
    angles = rng.uniform(-1, 1, 3) * section.rotation_deg
    zoom = float(2 ** (rng.uniform(-1, 1) * section.zoom))
    if not is_transformed:
        return False, 1.0, np.eye(3, dtype=np.float32)
    matrix = Rotation.from_euler("zyx", angles, degrees=True).as_matrix()
    return True, zoom, (zoom * matrix).astype(np.float32)


def _draw_intensity_params(
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
    drawn = {
        "bias": bias * section.bias * biased,
        "blur": blur * section.blur_voxels * blurred,
        "gamma": 2 ** (gamma * section.gamma),
        "low": low * section.window * windowed,
        "high": high * section.window * windowed,
        "contrast": 1 + contrast * section.contrast,
        "brightness": brightness * section.brightness,
        "noise": noise * section.noise * noisy,
    }
    return np.array([drawn[name] for name in INTENSITY_PARAMS], np.float32)


def _draw_bias_field(
    sample_key: SampleKey, section: IntensityAugmentation, view: int
) -> NDArray[np.float32]:
    """A coarse bias field: values in -1..1 at 3 x 3 x 3 points of a crop."""
    if not section.bias_probability:
        return np.zeros((3, 3, 3), np.float32)
    field: NDArray[np.float32] = sample_key.generator(f"field {view}").random((3, 3, 3), np.float32)
    return 2 * field - 1
