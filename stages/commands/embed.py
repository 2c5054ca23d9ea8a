"""Features of every scan of a folder, as one Parquet file: `ssl-pipeline embed`.

Each scan's features are written down when they are computed, beside the file to be: a run that was
stopped goes on with the next scan.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_pipeline import load_encoder
from ssl_pipeline.errors import UserError
from ssl_pipeline.export.bundle import LoadedEncoder
from ssl_pipeline.export.embed import prepare_source
from ssl_pipeline.export.stored_values import ScanHints
from ssl_pipeline.formatting import escape_bytes, format_count
from ssl_pipeline.io.atomic import atomic_write, check_writable
from ssl_pipeline.progress import info, progress
from ssl_pipeline.volumes.readers import Source, find_sources
from stages.commands.finished_scans import FinishedScans

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("path", "series", "error")),
        ("features", pa.list_(pa.float32())),
    ]
)
EMBEDDING_VERSION = 1  # raise it when the features of a scan change their meaning


def embed_folder(encoder: Path, folder: Path, out: Path, hints: ScanHints) -> None:
    """Write a row a scan: path, series, error (empty where all went well) and features (dim,).

    Raises UserError where `out` cannot be written, the folder holds no scan, or none could be
    embedded.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give the folder that holds the scans.")
    check_writable(out)
    loaded, sources = load_encoder(encoder), find_sources(folder)
    if not sources:
        raise UserError(f"{folder} holds no scan that can be read: NIfTI, DICOM, NRRD or MHA.")
    finished = finished_scans(loaded, out, hints)
    rows = list(embed_all(loaded, folder, sources, hints, finished))
    failed = [row for row in rows if row["error"]]
    if len(failed) == len(rows):
        raise UserError(f"No scan of {folder} could be embedded: {failed[0]['error']}")
    with atomic_write(out) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), temporary)
    finished.remove()
    embedded = format_count(len(rows) - len(failed), "scan")
    info(f"{embedded} embedded, {len(failed)} failed: {out}")
    if failed:
        info(f"The column `error` says why; the first is {failed[0]['path']}: {failed[0]['error']}")


def finished_scans(loaded: LoadedEncoder, out: Path, hints: ScanHints) -> FinishedScans:
    """The scans whose features an earlier start has computed."""
    manifest = loaded.manifest.model_dump(mode="json")
    return FinishedScans(out, [EMBEDDING_VERSION, manifest, vars(hints)])


def embed_all(
    loaded: LoadedEncoder,
    folder: Path,
    sources: list[Source],
    hints: ScanHints,
    finished: FinishedScans,
) -> Iterator[dict[str, Any]]:
    """A row for each scan; what is computed is added to those that are `finished`."""
    with progress("Embedding", total=len(sources)) as bar:
        for source in sources:
            path = escape_bytes(str(source.path.relative_to(folder)))
            row: dict[str, Any] = {
                "path": path,
                "series": source.series,
                "error": "",
                "features": [],
            }
            try:
                key = finished.key(source)
                result = finished.get(key)
                if result is None:
                    prepared = prepare_source(loaded.manifest, source, hints)
                    result = {"features": loaded.embed_prepared(prepared).vector.tolist()}
                    finished.add(key, result)
                row |= result
            except UserError as error:
                row["error"] = escape_bytes(str(error))
            except OSError as error:
                row["error"] = escape_bytes(f"{source.path.name} cannot be read: {error.strerror}.")
            bar.advance(escape_bytes(source.path.name))
            yield row
