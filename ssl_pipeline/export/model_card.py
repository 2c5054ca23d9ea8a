"""The README of an encoder bundle: its model card, made of what the bundle's card says.

Whoever gets the folder alone should know what the encoder is, how scans are prepared for it, and
what nobody has claimed of it. It names no path, scan or person. The licence is left to the owner of
the data, who writes it there: so it is no file that a stage checks.
"""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ssl_pipeline.export.card import WEIGHTS, Card
from ssl_pipeline.models.positions import LONGEST_MM, SHORTEST_MM
from ssl_pipeline.models.vit_config import SIZES
from ssl_pipeline.preprocess.config import Spacing
from ssl_pipeline.section import Section

TOLD = (
    "study",
    "init_from",
    "extends",
    "objective",
    "steps",
    "volumes",
    "subjects",
    "modalities",
    "precision",
)
PARTS = {
    "auto": "cropped to the body, or the head, which is found by its values",
    "all": "the whole scan",
}


def model_card(card: Card) -> str:
    """The text of the README, in Markdown."""
    templates = Environment(
        loader=PackageLoader("ssl_pipeline.export", "."),
        autoescape=False,  # it is Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    (low, high), dials = card.preprocess.ct.window_hu, card.preprocess.modality_dials
    return templates.get_template("model_card.md").render(
        card=card,
        weights=WEIGHTS,
        kinds=_words(card.trained.get("modalities", ["CT", "MR"]), " and "),
        million=f"{card.model.parameters / 1e6:.3g}",
        dials=_dials(card.model),
        crop=_words(card.crop_voxels, " x "),
        trained={key: _words(card.trained[key]) for key in TOLD if key in card.trained},
        parts=PARTS,
        spacings={name: _spacing(dials(name).spacing_mm) for name in ("CT", "MR")},
        window=[f"{value:g}" for value in (low, high, (low + high) / 2, (high - low) / 4)],
        heads=SIZES[card.model.preset][2] if card.model.name == "vit" else None,
        shortest=SHORTEST_MM,
        longest=LONGEST_MM,
    )


def _dials(section: Section) -> list[tuple[str, str, str]]:
    """Name, value and meaning of each dial of the backbone."""
    fields = type(section).model_fields
    return [
        (name, _words(value), fields[name].description or "backbone")
        for name, value in section.model_dump().items()
    ]


def _words(value: Any, between: str = ", ") -> str:
    if isinstance(value, list | tuple):
        return between.join(map(str, value))
    return "none" if value is None else str(value)


def _spacing(spacing_mm: Spacing | None) -> str:
    if spacing_mm is None:
        return "as it has them, for the encoder is told their size"
    return f"resampled to {_words([f'{side:g}' for side in spacing_mm], ' x ')} mm (R, A, S)"
