"""The encoder as a user takes it away: weights, sizes, and how a scan must be prepared for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from ssl_pipeline.atomic import replacing, sha256_file, write_json
from ssl_pipeline.export.card import CARD, FORMAT_VERSION, WEIGHTS, read_card
from ssl_pipeline.models import ModelConfig
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.views.config import Triple

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder


@dataclass(frozen=True)
class Features:
    """What the encoder says of a scan.

    `vector` (dim,) is the mean over the tokens inside the body; `tokens` (n, dim) are those tokens
    and `centres_mm` (n, 3) their middles in the scan's world, RAS, in mm.
    """

    vector: NDArray[np.float32]
    tokens: NDArray[np.float32]
    centres_mm: NDArray[np.float32]


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder with the preprocessing that it was trained on."""

    model: "Encoder"
    preprocess: Preprocess
    crop_voxels: Triple
    sha256: str

    def embed(self, scan: str | Path, modality: str | None = None) -> Features:
        """Features of one scan: a file, or the folder of a DICOM series.

        `modality` ("CT" or "MR") is needed where the file does not say it. Raises UserError for a
        scan that cannot be read or used.
        """
        from ssl_pipeline.export.embed import embed

        return embed(self, Path(scan), modality)


def save_bundle(
    folder: Path,
    encoder: "Encoder",
    model: ModelConfig,
    preprocess: Preprocess,
    crop_voxels: Triple,
    trained: dict[str, Any],
) -> None:
    """Write the bundle whole; `trained` says what the encoder was trained on, for its card."""
    card = {
        "format": FORMAT_VERSION,
        "model": model.model_dump(mode="json"),
        "preprocess": preprocess.model_dump(mode="json"),
        "crop_voxels": list(crop_voxels),
        "trained": trained,
    }
    with replacing(folder) as temporary:
        temporary.mkdir()
        weights = {
            name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()
        }
        save_file(weights, temporary / WEIGHTS)
        write_json(temporary / CARD, card)


def load_encoder(path: str | Path) -> LoadedEncoder:
    """Load an encoder bundle, ready to embed scans.

    Raises UserError where the folder is no bundle or was written by another format version.
    """
    folder = Path(path)
    card = read_card(folder)
    section: ModelConfig = TypeAdapter(ModelConfig).validate_python(card["model"])
    model = section.build()
    model.load_state_dict(load_file(folder / WEIGHTS))
    z, y, x = card["crop_voxels"]
    return LoadedEncoder(
        model.eval(),
        Preprocess.model_validate(card["preprocess"]),
        (z, y, x),
        sha256_file(folder / WEIGHTS),
    )
