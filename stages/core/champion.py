"""The champion that a study's encoder is compared with, as the registry's alias points to it.

Where the alias points to the study's own encoder, which was promoted, the champion is the one that
it was compared with then. So a study that has run stays as it was.
"""

from pathlib import Path

from ssl_pipeline.export.manifest import BUNDLE_MANIFEST
from ssl_pipeline.io.atomic import sha256_file
from ssl_pipeline.registry.entry import ENCODER_FOLDER, RegistryEntry
from ssl_pipeline.registry.registry import Registry
from ssl_pipeline.volumes.config import resolve_path
from stages.core.study import Study


def registry_of(study: Study) -> Registry:
    """The registry that a study promotes in."""
    assert study.promote, "it is asked where a study promotes"
    return Registry(resolve_path(study.promote.registry))


def with_champion(study: Study) -> Study:
    """The study with the champion among the encoders that it evaluates, if there is one.

    Raises UserError where the champion is gone or damaged.
    """
    if study.promote is None:
        return study
    registry = registry_of(study)
    current = registry.current(study.promote.name, study.promote.alias)
    if current and is_own_encoder(study, registry.entry(current)):
        promotion = registry.entry(current).content.promotion
        current = promotion.champion if promotion else None
    if not current:
        return study
    registry.entry(current)
    return study.with_champion(current, registry.encoder_folder(current))


def is_own_encoder(study: Study, entry: RegistryEntry) -> bool:
    """Whether an entry is the encoder that the study has now."""
    manifest: Path = study.encoder / BUNDLE_MANIFEST
    recorded = entry.files.get(f"{ENCODER_FOLDER}/{BUNDLE_MANIFEST}")
    return manifest.is_file() and recorded == sha256_file(manifest)
