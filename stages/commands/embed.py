"""Features of every scan of a folder, as one Parquet file: `ssl-pipeline embed`."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_pipeline import load_encoder
from ssl_pipeline.errors import UserError
from ssl_pipeline.export.embed import prepare_source
from ssl_pipeline.io.atomic import atomic_write
from ssl_pipeline.progress import info, progress
from ssl_pipeline.volumes.readers import find_sources


def embed_folder(encoder: Path, folder: Path, out: Path, modality: str | None) -> None:
    """Write a row a scan: path, series, error (empty where all went well) and features (dim,).

    Raises UserError where the folder holds no scan or none could be embedded.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give the folder that holds the scans.")
    loaded, sources = load_encoder(encoder), find_sources(folder)
    if not sources:
        raise UserError(f"{folder} holds no scan that can be read: NIfTI, DICOM, NRRD or MHA.")
    rows = []
    with progress("Embedding", total=len(sources)) as bar:
        for source in sources:
            row = {"path": str(source.path.relative_to(folder)), "series": source.series}
            try:
                prepared = prepare_source(loaded.preprocess, source, modality)
                features = loaded.embed_prepared(prepared)
                rows.append({**row, "error": "", "features": features.vector.tolist()})
            except UserError as error:
                rows.append({**row, "error": str(error), "features": []})
            bar.advance(source.path.name)
    failed = [row for row in rows if row["error"]]
    if len(failed) == len(rows):
        raise UserError(f"No scan of {folder} could be embedded: {failed[0]['error']}")
    with atomic_write(out) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)
    info(f"{len(rows) - len(failed)} scans embedded, {len(failed)} failed: {out}")
    if failed:
        info(f"The column `error` says why; the first is {failed[0]['path']}: {failed[0]['error']}")
