"""How the files of pretraining store their values, so that those of a new scan mean the same.

A root of raw scans may state an offset to Hounsfield units and a value that stands for nothing
measured. An encoder learned from values with both applied, so a new scan needs them too; and a scan
from elsewhere, which needs none, is not to be shifted. Quality control tells the two apart: it
accepts a CT only where its values can be Hounsfield units.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from pydantic import Field

from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.volumes.config import Modality, Root
from ssl_pipeline.volumes.inventory import Scan
from ssl_pipeline.volumes.quality_control import QualityThresholds, check_quality
from ssl_pipeline.volumes.volume import Volume


class StoredValues(Section):
    """What the values of files mean, of one modality."""

    root: str = Field("", description="whose files they are; empty where all roots agree")
    modality: Modality = Field(description="CT or MR")
    intensity_offset: float = Field(0.0, description="added to stored values, to give HU for CT")
    missing_value: float | None = Field(None, description="stored value of unmeasured voxels")

    @property
    def description(self) -> str:
        """The meaning in words, the root's name first."""
        missing = "none" if self.missing_value is None else f"{self.missing_value:g}"
        meaning = f"intensity_offset {self.intensity_offset:g}, missing_value {missing}"
        return f"{self.root}: {meaning}" if self.root else meaning

    def effect_on(self, volume: Volume) -> tuple[float, float | None]:
        """What it changes in a volume: the offset of a CT, and a missing value that occurs.

        The offset of an MR changes nothing, for its values are scaled by their own statistics.
        """
        offset = self.intensity_offset if self.modality == "CT" else 0.0
        occurs = self.missing_value is not None and bool(np.any(volume.data == self.missing_value))
        return offset, self.missing_value if occurs else None

    def as_root(self) -> Root:
        """A root with these values, for quality control."""
        return Root(
            path="", intensity_offset=self.intensity_offset, missing_value=self.missing_value
        )


@dataclass(frozen=True)
class ScanHints:
    """What the caller knows of a scan: its modality, the root that it is like, or its values."""

    modality: str | None = None
    root: str | None = None
    intensity_offset: float | None = None
    missing_value: float | None = None


def stored_values_of(scans: Iterable[Scan]) -> tuple[StoredValues, ...]:
    """The stored values of an inventory's scans: one for a modality, or each root if they differ.

    Roots are named only where a user must choose between them.
    """
    by_modality: dict[str, dict[tuple[float, float | None], set[str]]] = defaultdict(dict)
    for scan in scans:
        meaning = (scan.intensity_offset, scan.missing_value)
        by_modality[scan.modality].setdefault(meaning, set()).add(scan.root)
    return tuple(
        StoredValues(root=root, modality=name, intensity_offset=offset, missing_value=missing)
        for name in get_args(Modality)
        for (offset, missing), roots in by_modality[name].items()
        for root in (sorted(roots) if len(by_modality[name]) > 1 else ("",))
    )


def choose_stored_values(
    known: Sequence[StoredValues],
    volume: Volume,
    modality: Modality,
    hints: ScanHints,
    thresholds: QualityThresholds,
) -> StoredValues:
    """The meaning of a volume's values, of those `known` from pretraining, or of the hints.

    Raises UserError, without the name of the scan, where quality control rejects the volume
    whatever its values mean, or where they may mean several things.
    """
    faults: list[str] = []
    fitting: dict[tuple[float, float | None], StoredValues] = {}
    for values in _candidates(known, modality, hints):
        fault = check_quality(volume, values.as_root(), thresholds, modality).fault
        if fault:
            faults.append(fault)
        else:
            fitting.setdefault(values.effect_on(volume), values)
    if not fitting:
        raise UserError(f"{faults[0]}.")
    if len(fitting) > 1:
        meanings = "; ".join(values.description for values in fitting.values())
        raise UserError(
            f"its values may mean different things, as those of the training scans did ({meanings})"
            ": name the root that it is like, or give its intensity_offset or missing_value."
        )
    return next(iter(fitting.values()))


def _candidates(
    known: Sequence[StoredValues], modality: Modality, hints: ScanHints
) -> list[StoredValues]:
    """What the values of a scan may mean, the most likely first."""
    if hints.intensity_offset is not None or hints.missing_value is not None:
        offset = hints.intensity_offset or 0.0
        return [
            StoredValues(
                modality=modality, intensity_offset=offset, missing_value=hints.missing_value
            )
        ]
    own = [values for values in known if values.modality == modality]
    if hints.root is not None:
        _check_root(known, hints.root)
        own = [values for values in own if values.root in ("", hints.root)]
    elif modality == "CT" and all(values.intensity_offset for values in own):
        own.append(StoredValues(modality=modality))  # a CT of Hounsfield units, from elsewhere
    return own or [StoredValues(modality=modality)]


def _check_root(known: Sequence[StoredValues], root: str) -> None:
    """Raise UserError where no root of this name is known."""
    names = {values.root for values in known} - {""}
    if not names:
        raise UserError(
            "this encoder's training scans were all stored in the same way: name no root."
        )
    if root not in names:
        raise UserError(f"root {root!r} is none of the encoder's: {suggest_name(root, names)}")
