"""What an encoder bundle says of itself, readable without torch.

A bundle is a folder of the weights and this card; beside them may lie whom the encoder was trained
on (`trained_on`). The card holds a format version, the model's section, the crop, and the
preprocessing section, so that features of a new scan are computed as those of pretraining were.
"""

from pathlib import Path
from typing import Any

from ssl_pipeline.atomic import read_json
from ssl_pipeline.errors import UserError

FORMAT_VERSION = 1
WEIGHTS, CARD = "encoder.safetensors", "encoder.json"


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a bundle.

    Raises UserError where the folder is no bundle or was written by another format version.
    """
    if not (folder / CARD).exists() or not (folder / WEIGHTS).exists():
        raise UserError(
            f"{folder} is no encoder bundle: give the folder that holds {WEIGHTS} and {CARD}, "
            "such as build/demo/pretrain/encoder."
        )
    card: dict[str, Any] = read_json(folder / CARD)
    if card.get("format") != FORMAT_VERSION:
        raise UserError(
            f"{folder / CARD} has format {card.get('format')}, this version reads "
            f"{FORMAT_VERSION}: use the version of ssl-pipeline that wrote it."
        )
    return card
