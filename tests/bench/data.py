"""`make bench-data`: preprocessing and crops against peers, in one run, as ratios.

It works on the demo's own scans; `build/bench/data.json` gets the rows.
"""

import shutil
from pathlib import Path

from stages.contract import perform
from stages.study import load
from tests.bench import chains, copies, crops, defects
from tests.bench.table import Row, show

STUDY = Path("workflows/studies/demo.yaml")
SCAN = "sample/raw/ct/patient2.nii.gz"  # 233 x 167 x 191 voxels of 1.5 mm
OUT = Path("build/bench")


def main() -> None:
    study = load(STUDY)
    perform("sample", study, {})
    work = OUT / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    path = study.folder / SCAN
    rows = [*chains.rows(path, work)]
    prepared = chains.ours(path)
    rows += crops.rows(prepared, work)
    rows += _sizes(work)
    rows += [*copies.rows(), *defects.rows(path, work)]
    show(rows, OUT / "data.json")
    shutil.rmtree(work)


def _sizes(work: Path) -> list[Row]:
    """Files and bytes of a stored volume."""
    found = []
    for codec in crops.CODECS:
        files = [p for p in (work / f"ours-{codec}" / "0.zarr").rglob("*") if p.is_file()]
        size = sum(file.stat().st_size for file in files)
        peer = (work / "0.b2nd").stat().st_size
        found.append(
            Row(
                f"a stored volume, {codec}",
                f"{len(files)} files, {size / 1e6:.1f} MB",
                f"blosc2, nnU-Net's settings: 1 file, {peer / 1e6:.1f} MB",
                peer / size,
            )
        )
    return found


if __name__ == "__main__":
    main()
