"""What encoders and models compute of stored scans for commands.

Each scan's values are written down when they are computed: a command that was stopped goes on, and
the next one computes no more than new scans need. Embeddings of one encoder are shared by all.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.export.manifest import WEIGHTS_FILE
from ssl_pipeline.io.atomic import sha256_file, sha256_json
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.progress import progress
from ssl_pipeline.store.catalog import Catalog, Entry
from stages.commands.finished_scans import FinishedScans
from stages.core import layout
from stages.core.study import Study
from stages.evaluation_inputs import evaluation_device
from stages.preprocess import crop_reader

MEASUREMENT_VERSION = 1  # raise it when embeddings or entropies of a scan change their meaning
Measure = Callable[[PreparedVolume], Sequence[float]]


def embed_scans(
    study: Study, catalog: Catalog, entries: Sequence[Entry], bundle: Path
) -> NDArray[np.float64]:
    """Embeddings (n, dim) of stored scans by an encoder, as `ssl-pipeline embed` computes them."""
    from ssl_pipeline.export.bundle import load_encoder

    loaded = load_encoder(bundle)
    loaded.model.to(evaluation_device(study))
    return measure_scans(
        study,
        catalog,
        entries,
        _embeddings_file(study, bundle),
        lambda prepared: loaded.embed_prepared(prepared).vector.tolist(),
    )


def known_embeddings(study: Study) -> dict[str, NDArray[np.float64]]:
    """Embeddings (dim,) of scans by code, as far as this encoder's have been computed.

    None with a catalog of another version: a review comes before the volumes are stored anew.
    """
    bundle = next(iter(study.encoders.values()))
    table = layout.catalog_table(study)
    if not (bundle / WEIGHTS_FILE).exists() or not table.exists():
        return {}
    try:
        entries = Catalog.read(table).entries
    except UserError:
        return {}
    finished = FinishedScans(_embeddings_file(study, bundle), MEASUREMENT_VERSION)
    found = {entry.id: finished.get(_measured_key(entry)) for entry in entries}
    return {code: np.array(result["values"]) for code, result in found.items() if result}


def measure_scans(
    study: Study, catalog: Catalog, entries: Sequence[Entry], path: Path, measure: Measure
) -> NDArray[np.float64]:
    """Values (n, values) of stored scans; those that the file `path` lacks are computed."""
    finished = FinishedScans(path, MEASUREMENT_VERSION)
    keys = {entry.id: _measured_key(entry) for entry in entries}
    missing = [entry for entry in entries if finished.get(keys[entry.id]) is None]
    reader = crop_reader(study, catalog, missing)
    with progress("Measuring scans", total=len(missing)) as bar:
        for entry in missing:
            prepared = PreparedVolume(reader.read_volume(entry.id), entry.meta)
            finished.add(keys[entry.id], {"values": list(measure(prepared))})
            bar.advance(entry.id)
    return np.array([(finished.get(key) or {})["values"] for key in keys.values()])


def _embeddings_file(study: Study, bundle: Path) -> Path:
    """Where embeddings of the encoder are written down."""
    return layout.next_folder(study) / f"embeddings-{sha256_file(bundle / WEIGHTS_FILE)[:8]}"


def _measured_key(entry: Entry) -> str:
    """What a measurement of a scan depends on, beside the encoder."""
    return sha256_json([entry.sha256, entry.meta_json])
