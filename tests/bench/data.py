"""`make bench-data`: preprocessing and crops against peers, in one run, as ratios.

It works on the demo's own scans; `build/bench/data.json` gets the rows.
"""

import shutil
from pathlib import Path

from stages.core.runner import run_stage
from stages.core.study_file import load_study
from tests.bench import crops, near_duplicates, planted_defects, preprocess_baselines
from tests.bench.table import BenchmarkRow, write_table

STUDY = Path("workflows/studies/demo.yaml")
SCAN = "download/raw/ct/patient2.nii.gz"  # 233 x 167 x 191 voxels of 1.5 mm
OUT = Path("build/bench")


def main() -> None:
    study = load_study(STUDY)
    run_stage("download", study, {})
    work = OUT / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    path = study.folder / SCAN
    rows = [*preprocess_baselines.rows(path, work)]
    prepared = preprocess_baselines.ours(path)
    rows += crops.rows(prepared, work)
    rows += _sizes(work)
    rows += [*near_duplicates.rows(), *planted_defects.rows(path, work)]
    write_table(rows, OUT / "data.json")
    shutil.rmtree(work)


def _sizes(work: Path) -> list[BenchmarkRow]:
    """Files and bytes of a stored volume."""
    found = []
    for codec in crops.CODECS:
        files = [p for p in (work / f"ours-{codec}" / "0.zarr").rglob("*") if p.is_file()]
        size = sum(file.stat().st_size for file in files)
        peer = (work / "0.b2nd").stat().st_size
        found.append(
            BenchmarkRow(
                f"a stored volume, {codec}",
                f"{len(files)} files, {size / 1e6:.1f} MB",
                f"blosc2, nnU-Net's settings: 1 file, {peer / 1e6:.1f} MB",
                peer / size,
            )
        )
    return found


if __name__ == "__main__":
    main()
