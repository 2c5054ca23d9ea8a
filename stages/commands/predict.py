"""Predictions of a task model for every scan of a folder: `ssl-pipeline predict`.

A segmentation is written as NIfTI in the scan's own grid, as an overlay to look at, and for a DICOM
series as DICOM SEG; `predictions.csv` has a row a scan. What is finished is written down at once: a
run that was stopped goes on with the next scan.
"""

import gzip
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl_pipeline import __version__, load_model
from ssl_pipeline.errors import UserError, is_out_of_memory
from ssl_pipeline.export.dicom_seg import write_dicom_seg
from ssl_pipeline.export.embed import prepare_source
from ssl_pipeline.export.stored_values import ScanHints
from ssl_pipeline.export.task_model.bundle import LoadedModel, ScanPrediction
from ssl_pipeline.export.task_model.calibration_note import calibration_note
from ssl_pipeline.formatting import escape_bytes, format_count
from ssl_pipeline.io.atomic import (
    check_writable,
    sha256_file,
    write_bytes,
    write_csv,
)
from ssl_pipeline.preprocess.labels import label_on_grid
from ssl_pipeline.preprocess.prepare import model_input
from ssl_pipeline.progress import info, progress
from ssl_pipeline.report.render.segmentation_overlay import paint_classes
from ssl_pipeline.review.predictions import PREDICTIONS_TABLE, REVIEW_COLUMNS
from ssl_pipeline.volumes.readers import (
    ReadError,
    Source,
    dicom,
    find_sources,
    format_of,
    source_files,
    strip_suffix,
)
from ssl_pipeline.volumes.scan_check import source_sha256
from ssl_pipeline.volumes.volume import Volume
from stages.commands.finished_scans import FinishedScans, Result

PREDICTION_VERSION = 5  # raise it when predictions or their files change
FIRST_COLUMNS = ("path", "series", "error", "warning", "note", "distance", *REVIEW_COLUMNS)
OVERLAY_PIXELS = 512  # longest side


@dataclass(frozen=True)
class Models:
    """A task model, or several as an ensemble, and where they compute."""

    folders: Sequence[Path]
    device: str

    def load(self) -> LoadedModel:
        """Load and check them. Raises UserError."""
        import torch

        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("There is no CUDA device here: use --device cpu.")
        return load_model(*self.folders).to(self.device)

    @property
    def hashes(self) -> list[str]:
        """Hash of each model's manifest, which has those of its files."""
        from ssl_pipeline.export.task_model.manifest import MODEL_MANIFEST

        return [sha256_file(folder / MODEL_MANIFEST) for folder in self.folders]


def predict_folder(models: Models, folder: Path, out: Path, hints: ScanHints) -> None:
    """Write predictions of all scans of a folder below `out`, and the table.

    Raises UserError where a model cannot be used, `out` cannot be written or lies in the folder,
    the folder holds no scan, or none could be predicted.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give the folder that holds the scans.")
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{out} lies in {folder}: predictions would be taken for scans, so give another --out."
        )
    table = out / PREDICTIONS_TABLE
    check_writable(table)
    model, sources = models.load(), find_sources(folder)
    if not sources:
        raise UserError(f"{folder} holds no scan that can be read: NIfTI, DICOM, NRRD or MHA.")
    finished = FinishedScans(table, [PREDICTION_VERSION, models.hashes, vars(hints)])
    names = file_names(sources, folder)
    rows: list[Result] = []
    with progress("Predicting", total=len(sources)) as bar:
        for source, name in zip(sources, names, strict=True):
            path = escape_bytes(str(source.path.relative_to(folder)))
            rows.append({"path": path, "series": source.series})
            columns = partial(_predict_scan, model, source, out, name, hints, finished)
            rows[-1] |= _within_memory(columns, source)
            bar.advance(path)
    _write_table(table, rows)
    finished.remove()
    failed = [row for row in rows if row["error"]]
    if len(failed) == len(rows):
        raise UserError(
            f"No scan of {folder} could be predicted, for the reasons in {table}; the first "
            f"is: {failed[0]['error']}"
        )
    _report(rows, failed, table)
    if len(models.folders) == 1 and (note := calibration_note(model.manifest)):
        info(note)  # of an ensemble nothing was measured


def _report(rows: list[Result], failed: list[Result], table: Path) -> None:
    predicted = format_count(len(rows) - len(failed), "scan")
    info(f"{predicted} predicted, {len(failed)} failed: {table}")
    if failed:
        info(f"The column `error` says why; the first is {failed[0]['path']}: {failed[0]['error']}")
    unlike = [row for row in rows if row["warning"]]
    if unlike:
        info(
            f"The column `warning` has {format_count(len(unlike), 'scan')} unlike those that the "
            f"model was trained on, such as {unlike[0]['path']}: check such predictions first."
        )


def _within_memory(columns: Callable[[], Result], source: Source) -> Result:
    """The columns of a scan, or that it needs more memory than there is."""
    try:
        return columns()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _failure(f"{escape_bytes(source.path.name)} needs more memory than there is.")


def _predict_scan(
    model: LoadedModel,
    source: Source,
    out: Path,
    name: Path,
    hints: ScanHints,
    finished: FinishedScans,
) -> Result:
    """The columns of a scan's row but its path; its files are written below `out` by this name."""
    stem = out / name
    try:
        key, sha256 = finished.key(source, str(stem)), source_sha256(source)
        done = finished.get(key)
        if done is not None and all(Path(name).exists() for name in done["files"]):
            return {**done["columns"]}
        found = model.predict_prepared(prepare_source(model.manifest, source, hints))
    except ReadError as error:
        return _failure(f"{escape_bytes(source.path.name)} {error.reason}")
    except UserError as error:
        return _failure(escape_bytes(str(error)))
    except OSError as error:
        return _failure(f"{escape_bytes(source.path.name)} cannot be read: {error.strerror}.")
    notes, files = _write_files(model, source, stem, found)
    columns: Result = {"error": "", "warning": found.warning, "note": "; ".join(notes)}
    columns |= {"distance": round(found.distance, 4), "scan_sha256": sha256}
    if found.prediction.entropy is not None:
        columns["entropy"] = float(f"{found.prediction.entropy:.6g}")
    if files:
        label_map = files[0]
        columns |= {
            "label_map": str(label_map.relative_to(out)),
            "label_map_sha256": sha256_file(label_map),
        }
    columns |= {name: float(f"{value:.6g}") for name, value in found.prediction.values.items()}
    finished.add(key, {"columns": columns, "files": [str(path) for path in files]})
    return columns


def _failure(error: str) -> Result:
    return dict.fromkeys(FIRST_COLUMNS[2:], "") | {"error": error}


def _write_files(
    model: LoadedModel, source: Source, stem: Path, found: ScanPrediction
) -> tuple[list[str], list[Path]]:
    """Write the files of a prediction; notes on what could not be written, and the files."""
    label_map, meta = found.prediction.label_map, found.prepared.meta
    if label_map is None:
        return [], []
    affine = np.array(meta.source_affine)
    image = nib.Nifti1Image(label_map, affine)
    nifti, overlay, seg = (stem.with_name(stem.name + end) for end in (".nii.gz", ".png", ".dcm"))
    write_bytes(nifti, gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))
    write_bytes(overlay, _overlay(model, found))
    if format_of(source) != dicom.READER.name:
        return [], [nifti, overlay]
    if find_spec("highdicom") is None:
        return ["no DICOM SEG, for highdicom is not installed"], [nifti, overlay]
    classes = model.manifest.task.names_by_value
    try:
        write_dicom_seg(seg, source_files(source), label_map, affine, classes, __version__)
    except UserError as error:
        return [escape_bytes(str(error))], [nifti, overlay]
    return [], [nifti, overlay, seg]


def _overlay(model: LoadedModel, found: ScanPrediction) -> bytes:
    """A PNG of the slice with most labelled voxels, or the middle one, with the classes."""
    assert found.prediction.label_map is not None
    meta = found.prepared.meta
    labels = label_on_grid(Volume(found.prediction.label_map, np.array(meta.source_affine)), meta)
    values = model.manifest.task.class_values
    area = np.isin(labels, values).sum(axis=(1, 2))
    height = int(area.argmax()) if area.any() else len(area) // 2
    plane = model_input(found.prepared.data[:, height : height + 1], meta)[0]
    picture = paint_classes(plane, labels[height], values, meta.spacing_mm, OVERLAY_PIXELS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def file_names(sources: Sequence[Source], folder: Path) -> list[Path]:
    """Where each scan's files go below `out`, without their endings; no two are the same."""
    names = [
        escape_bytes(strip_suffix(str(source.path.relative_to(folder)))).replace("\\", "_")
        for source in sources
    ]
    names = [folder.name if name == "." else name for name in names]
    often = Counter(names)
    return [
        Path(name if often[name] == 1 else f"{name}-{_short_hash(source)}")
        for name, source in zip(names, sources, strict=True)
    ]


def _short_hash(source: Source) -> str:
    """Distinguishes series of one folder, and files of one name in two formats."""
    whole = f"{source.path.name} {source.series}"
    return hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _write_table(path: Path, rows: list[Result]) -> None:
    columns = dict.fromkeys(FIRST_COLUMNS) | dict.fromkeys(name for row in rows for name in row)
    write_csv(path, list(columns), rows)
