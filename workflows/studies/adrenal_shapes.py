"""Unpack AdrenalMNIST3D (Yang et al. 2023, doi:10.1038/s41597-022-01721-8; CC BY 4.0) for a study.

    python workflows/studies/adrenal_shapes.py adrenalmnist3d_64.npz FOLDER

writes FOLDER/images/*.nii.gz and FOLDER/scans.csv, which `adrenal_shapes.yaml` names as its table.
Shapes have no grey values: inside is soft tissue, outside air, as a CT would show them.
"""

import csv
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

AIR_HU, TISSUE_HU = -1000, 40
SPLITS = ("train", "val", "test")


def main(archive: Path, folder: Path) -> None:
    """Write every shape as a scan of voxels of 1 mm, and the table of all."""
    arrays = np.load(archive)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for split in SPLITS:
        pairs = zip(arrays[f"{split}_images"], arrays[f"{split}_labels"][:, 0], strict=True)
        for number, (shape, target) in enumerate(pairs):
            path = Path("images") / f"{split}_{number:04d}.nii.gz"
            values = np.where(shape > 0, TISSUE_HU, AIR_HU).astype(np.int16)
            nib.save(nib.Nifti1Image(values, np.eye(4)), folder / path)
            rows.append((path, f"{split}{number}", "CT", split, int(target)))
    with open(folder / "scans.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "subject", "modality", "split", "adrenal"))
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
