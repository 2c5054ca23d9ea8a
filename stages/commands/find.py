"""Where the place of a click is in every scan of a folder: `ssl-pipeline find`.

Descriptors of each scan are kept beside the results: the next click asks the same scans at once.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_pipeline import load_encoder
from ssl_pipeline.errors import UserError, is_out_of_memory
from ssl_pipeline.evaluation.correspondence.describer import Descriptors
from ssl_pipeline.evaluation.correspondence.encoder_describer import (
    EncoderDescriber,
    describing_network,
    search_window,
)
from ssl_pipeline.evaluation.correspondence.search import (
    ClickedScan,
    DescribedScan,
    Match,
    Query,
    query_of_clicks,
)
from ssl_pipeline.export.bundle import LoadedEncoder
from ssl_pipeline.export.embed import prepare_source
from ssl_pipeline.export.slicer_points import slicer_points
from ssl_pipeline.export.stored_values import ScanHints
from ssl_pipeline.formatting import escape_bytes, format_count
from ssl_pipeline.io.atomic import (
    atomic_write,
    check_writable,
    sha256_json,
    write_bytes,
    write_text,
)
from ssl_pipeline.preprocess.prepare import PreparedVolume, VolumeMeta
from ssl_pipeline.progress import info, progress
from ssl_pipeline.report.render.place_picture import (
    DOUBTED_COLOUR,
    FOUND_COLOUR,
    place_picture,
)
from ssl_pipeline.types import Spacing
from ssl_pipeline.volumes.readers import ReadError, Source, find_sources
from ssl_pipeline.volumes.scan_check import source_sha256
from stages.commands.label_proposal import SourceLabel, read_label
from stages.commands.predict import file_names

TABLE, CLICK_PICTURE, CACHE_FOLDER = "places.csv", "click.png", "descriptors"
COLUMNS = ("path", "series", "error", "answer", "confidence", "right_mm", "front_mm", "top_mm")
DESCRIPTOR_VERSION = 1  # raise it when descriptors of a scan change
PICTURE_PIXELS = 320  # longest side of a scan
POINT_NAME = "place"
Row = dict[str, Any]


@dataclass(frozen=True)
class Click:
    """What is to be found: a place of a scan, or what is drawn on it."""

    scan: Path
    at: str  # R,A,S in mm; of what is drawn its centre, if empty
    label: Path | None = None  # of the drawing, which is carried over


def find_in_folder(encoder: Path, click: Click, folder: Path, out: Path, hints: ScanHints) -> None:
    """Write where a place is in every scan of a folder.

    A table, and for each scan a picture and, where it shows the place, points for 3D Slicer and the
    drawn label. Raises UserError where the encoder, the scan or the place cannot be used, `out`
    cannot be written or lies in the folder, the folder holds no scan, or none could be searched.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give the folder that holds the scans.")
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{out} lies in {folder}: pictures would lie among the scans, so give another --out."
        )
    check_writable(out / TABLE)
    own, sources = find_sources(click.scan), find_sources(folder)
    if len(own) != 1:
        raise UserError(
            f"{click.scan} holds {len(own)} scans: give one file, or one series' folder."
        )
    if not sources:
        raise UserError(f"{folder} holds no scan that can be read: NIfTI, DICOM, NRRD or MHA.")
    label = read_label(click.label) if click.label else None
    at = label.centre if label and not click.at else _world_place(click.at)
    search = _Search(load_encoder(encoder), hints, out / CACHE_FOLDER)
    target = _Target(search.query(own[0], at), at, label)
    rows = []
    with progress("Searching", total=len(sources)) as bar:
        for source, name in zip(sources, file_names(sources, folder), strict=True):
            path = escape_bytes(str(source.path.relative_to(folder)))
            rows.append({"path": path, "series": source.series})
            rows[-1] |= search.find(source, target, out / name)
            bar.advance(path)
    _write_table(out / TABLE, rows)
    _report(rows, out / TABLE)


def _world_place(text: str) -> NDArray[np.float64]:
    """A place (R, A, S) in mm."""
    try:
        found = np.array([float(word) for word in text.split(",")])
    except ValueError:
        found = np.zeros(0)
    if found.shape != (3,) or not np.isfinite(found).all():
        raise UserError(
            f"--at is {text!r}: give three numbers in mm, to the right, the front and the top, as "
            "3D Slicer shows them for R, A and S, such as --at=-31.5,12,40."
        )
    return found


@dataclass(frozen=True)
class _Target:
    """What is searched for: its descriptors, its place (R, A, S) in mm, and what is drawn there."""

    query: Query
    at: NDArray[np.float64]
    label: SourceLabel | None


@dataclass(frozen=True)
class _Search:
    """An encoder, and where the descriptors that it has computed lie."""

    loaded: LoadedEncoder
    hints: ScanHints
    cache: Path

    @property
    def describer(self) -> EncoderDescriber:
        """Computes descriptors in the windows that suit the encoder."""
        model = self.loaded.model
        network = describing_network(model, self.loaded.decoder)
        return EncoderDescriber(network, search_window(model, self.loaded.crop_voxels))

    def query(self, source: Source, world: NDArray[np.float64]) -> Query:
        """What is to be found, with a picture of it. Raises UserError where the scan ends."""
        scan, described = self._described(source)
        place = to_voxel(world, scan.meta)
        outside = (place < -0.5) | (place > np.array(scan.meta.shape) - 0.5)
        if outside.any():
            ends = [
                to_world(np.array(corner), scan.meta) for corner in ((0, 0, 0), scan.meta.shape)
            ]
            low, high = np.min(ends, axis=0), np.max(ends, axis=0)
            spans = ", ".join(
                f"{axis} {a:.0f} to {b:.0f}" for axis, a, b in zip("RAS", low, high, strict=True)
            )
            raise UserError(
                f"--at lies outside of the body in {source.path.name}, which spans {spans} mm: give"
                " a place inside."
            )
        _write_picture(
            self.cache.with_name(CLICK_PICTURE),
            place_picture(scan, [(place, FOUND_COLOUR)], PICTURE_PIXELS),
        )
        clicked = ClickedScan(scan, place[None])
        return query_of_clicks(self.describer, [clicked], [described], seed=0)

    def find(self, source: Source, target: _Target, stem: Path) -> Row:
        """The columns of a scan's row but its path; its files are written at `stem`."""
        try:
            scan, described = self._described(source)
            (match,) = DescribedScan(self.describer, scan, described).find(target.query)
            assert match is not None
            return _write_files(scan, match, target, stem)
        except ReadError as error:
            return {"error": f"{escape_bytes(source.path.name)} {error.reason}"}
        except UserError as error:
            return {"error": escape_bytes(str(error))}
        except OSError as error:
            return {"error": f"{escape_bytes(source.path.name)} cannot be read: {error.strerror}."}
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return {"error": f"{escape_bytes(source.path.name)} needs more memory than there is."}

    def _described(self, source: Source) -> tuple[PreparedVolume, Descriptors]:
        """A scan and its descriptors, computed once."""
        known = [
            DESCRIPTOR_VERSION,
            self.loaded.manifest.model_dump(mode="json"),
            vars(self.hints),
            source.series,
            source_sha256(source),
        ]
        path = self.cache / f"{sha256_json(known)[:16]}.npz"
        if not path.exists():
            scan = prepare_source(self.loaded.manifest, source, self.hints)
            found = self.describer.describe(scan)
            text = np.frombuffer(json.dumps(scan.meta.to_json()).encode(), np.uint8)
            with atomic_write(path) as temporary, open(temporary, "wb") as file:
                np.savez(
                    file,
                    data=scan.data,
                    meta=text,
                    values=found.values.astype(np.float16),
                    places=found.places,
                )
        with np.load(path) as kept:
            meta = VolumeMeta.from_json(json.loads(kept["meta"].tobytes()))
            values = kept["values"].astype(np.float32)
            return PreparedVolume(kept["data"], meta), Descriptors(values, kept["places"])


def to_voxel(world: NDArray[np.float64], meta: VolumeMeta) -> NDArray[np.float64]:
    """The voxel (z, y, x) of a stored volume at a place of the world (R, A, S) in mm."""
    inverse = np.linalg.inv(np.array(meta.affine))
    voxel: NDArray[np.float64] = (inverse[:3, :3] @ world + inverse[:3, 3])[::-1]
    return voxel


def to_world(voxel: NDArray[Any], meta: VolumeMeta) -> Spacing:
    """The place of the world (R, A, S) in mm of a voxel (z, y, x) of a stored volume."""
    affine = np.array(meta.affine)
    right, front, top = (affine[:3, :3] @ voxel[::-1] + affine[:3, 3]).tolist()
    return right, front, top


def _write_files(scan: PreparedVolume, match: Match, target: _Target, stem: Path) -> Row:
    """Write the picture of a match, and points and label where it is here; returns its columns.

    The most similar place is in the table and, grey, in the picture also where it is not here.
    """
    colour = FOUND_COLOUR if match.is_here else DOUBTED_COLOUR
    picture = place_picture(scan, [(match.place, colour)], PICTURE_PIXELS)
    _write_picture(stem.with_name(f"{stem.name}.png"), picture)
    world = to_world(match.place, scan.meta)
    points, proposal = (stem.with_name(stem.name + end) for end in (".mrk.json", ".nii.gz"))
    for earlier in (points, proposal):
        earlier.unlink(missing_ok=True)  # of another click
    if match.is_here:
        write_text(points, slicer_points({POINT_NAME: world}))
    if match.is_here and target.label:
        write_bytes(proposal, target.label.carried(target.at, world, scan.meta))
    row: Row = {"error": "", "answer": "here" if match.is_here else "not here"}
    row["confidence"] = round(match.confidence, 3)
    names = ("right_mm", "front_mm", "top_mm")
    return row | {name: round(value, 2) for name, value in zip(names, world, strict=True)}


def _write_picture(path: Path, picture: Image.Image) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    write_bytes(path, buffer.getvalue())


def _write_table(path: Path, rows: Sequence[Row]) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())


def _report(rows: Sequence[Row], table: Path) -> None:
    failed = [row for row in rows if row.get("error")]
    if len(failed) == len(rows):
        raise UserError(
            f"No scan could be searched, for the reasons in {table}; the first is: "
            f"{failed[0]['error']}"
        )
    here = sum(row.get("answer") == "here" for row in rows)
    searched = format_count(len(rows) - len(failed), "scan")
    info(f"{here} of {searched} show the place, {len(failed)} failed: {table}")
