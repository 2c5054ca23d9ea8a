"""Define a corruption, and apply it to a scan at each of its five severities.

    python examples/add_a_corruption.py SCAN.nii.gz OUT_FOLDER

In the repository a corruption is such a class in `ssl_pipeline/evaluation/corruptions/`, and one
line in `CorruptionConfig`; the section `robustness` of a study then knows it by its `name`.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import nibabel as nib
import numpy as np

from ssl_pipeline.evaluation.corruptions.corruption import Corruption, ScanImage
from ssl_pipeline.volumes.readers import Source, read_volume


class RicianNoise(Corruption):
    """Noise of magnitude images of MR; levels are fractions of the 99th percentile."""

    TITLE: ClassVar[str] = "Rician noise"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "MR"
    LEVELS: ClassVar = (0.02, 0.04, 0.08, 0.16, 0.32)

    name: Literal["rician_noise"] = "rician_noise"

    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """The magnitude of the image with Gaussian noise in both channels."""
        sigma = level * np.percentile(scan.image[scan.valid], 99)
        real, imaginary = rng.normal(0, sigma, (2, *scan.image.shape))
        return replace(scan, image=np.hypot(scan.image + real, imaginary).astype(np.float32))


def corrupt_file(path: Path, out: Path) -> list[Path]:
    """Write the scan at severities 1 to 5; returns the files."""
    volume = read_volume(Source(path))
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)[::-1]
    image = np.asarray(volume.data, np.float32).transpose(2, 1, 0)  # (z, y, x)
    scan = ScanImage(image, np.isfinite(image), tuple(spacing.tolist()))
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for severity in range(1, 6):
        worse = RicianNoise().apply(scan, severity, np.random.default_rng(0))
        written.append(out / f"severity-{severity}.nii.gz")
        nib.save(nib.Nifti1Image(worse.image.transpose(2, 1, 0), volume.affine), written[-1])
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="scan of MR")
    parser.add_argument("out", type=Path, help="folder to write")
    for file in corrupt_file(**vars(parser.parse_args())):
        print(file)
