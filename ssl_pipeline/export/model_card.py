"""The model card: the README of an encoder bundle, generated from its manifest.

It says what the encoder is, how scans are prepared for it, and what it was not tested for. It names
no path, scan or person. The licence is left to the owner of the data, who edits the file: so no
stage checks its hash.
"""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ssl_pipeline.config.section import Section
from ssl_pipeline.export.manifest import DECODER_FILE, WEIGHTS_FILE, BundleManifest
from ssl_pipeline.formatting import markdown_line
from ssl_pipeline.models.position_encoding import MAX_WAVELENGTH_MM, MIN_WAVELENGTH_MM
from ssl_pipeline.types import Spacing

SUMMARY_KEYS = (
    "study",
    "init_from",
    "continue_from",
    "objective",
    "steps",
    "volumes",
    "subjects",
    "modalities",
    "precision",
)
FOREGROUND_TEXTS = {
    "auto": "cropped to the body, or the head, which is segmented by intensity",
    "all": "the whole scan",
}


def model_card(manifest: BundleManifest) -> str:
    """The text of the README, in Markdown."""
    low, high = manifest.preprocess.ct.window_hu
    settings_of = manifest.preprocess.modality_settings
    return render_card(
        "ssl_pipeline.export",
        "model_card.md",
        manifest=manifest,
        weights=WEIGHTS_FILE,
        decoder=DECODER_FILE,
        kinds=_to_text(manifest.training_summary.get("modalities", ["CT", "MR"]), " and "),
        million=f"{manifest.model.parameter_count / 1e6:.3g}",
        settings=_model_settings(manifest.model),
        crop=_to_text(manifest.crop_voxels, " x "),
        trained={
            key: _to_text(manifest.training_summary[key])
            for key in SUMMARY_KEYS
            if key in manifest.training_summary
        },
        parts=FOREGROUND_TEXTS,
        spacings={name: _spacing_text(settings_of(name).spacing_mm) for name in ("CT", "MR")},
        stored={name: _stored_text(manifest, name) for name in ("CT", "MR")},
        window=[f"{value:g}" for value in (low, high, (low + high) / 2, (high - low) / 4)],
        sizes=manifest.model.sizes if manifest.model.name == "vit" else None,
        shortest=MIN_WAVELENGTH_MM,
        longest=MAX_WAVELENGTH_MM,
    )


def render_card(package: str, template: str, **values: Any) -> str:
    """A card in Markdown, from a template of a package."""
    templates = Environment(
        loader=PackageLoader(package, "."),
        autoescape=False,  # it is Markdown
        finalize=lambda value: markdown_line(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return templates.get_template(template).render(**values)


def _model_settings(section: Section) -> list[tuple[str, str, str]]:
    """Name, value and description of each model setting."""
    fields = type(section).model_fields
    return [
        (name, _to_text(value), fields[name].description or "backbone")
        for name, value in section.model_dump().items()
    ]


def _to_text(value: Any, separator: str = ", ") -> str:
    if isinstance(value, list | tuple):
        return separator.join(map(str, value))
    return "none" if value is None else str(value)


def _stored_text(manifest: BundleManifest, modality: str) -> str:
    """What the values of training files of a modality mean, where they need more than reading."""
    known = [values for values in manifest.stored_values if values.modality == modality]
    if all(not values.intensity_offset and values.missing_value is None for values in known):
        return ""
    return f" (of the training files: {'; '.join(values.description for values in known)})"


def _spacing_text(spacing_mm: Spacing | None) -> str:
    if spacing_mm is None:
        return "not resampled: the encoder takes the spacing as an input"
    return f"resampled to {_to_text([f'{side:g}' for side in spacing_mm], ' x ')} mm (z, y, x)"
