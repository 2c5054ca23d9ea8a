"""The sequence of a scan by the physics that its DICOM header states: no description is read.

The limits are those of radiology's textbooks (short and long echo, repetition and inversion time),
wide enough for 1.5 and 3 tesla. What fits none of them has no name; a study may give it one.
"""

import math
from dataclasses import dataclass

AFTER_CONTRAST = "c"  # behind the name of a sequence, such as T1c
DIFFUSION = "DWI"
SHORT_ECHO_MS, LONG_ECHO_MS = 35.0, 60.0
SHORT_REPETITION_MS, LONG_REPETITION_MS = 1200.0, 1500.0
FAT_NULL_MS, FLUID_NULL_MS = 300.0, 1500.0  # inversion times below and from which they are nulled
T2STAR_ECHO_MS = 15.0  # of gradient echoes


@dataclass(frozen=True)
class Acquisition:
    """What a header states of how an image was acquired; NaN and "" where it does not."""

    modality: str
    echo_ms: float = math.nan
    repetition_ms: float = math.nan
    inversion_ms: float = math.nan
    b_value: float = math.nan  # s/mm2
    scanning_sequence: tuple[str, ...] = ()  # such as SE, GR, IR, EP
    has_contrast_agent: bool = False


def sequence_name(acquisition: Acquisition) -> str:
    """Such as "T1", "T1c", "T2", "FLAIR" or "CT"; "" where the header does not tell."""
    if acquisition.modality == "CT":
        name = "CT"
    elif acquisition.modality == "MR":
        name = _mr_name(acquisition)
    else:
        return ""
    return name + AFTER_CONTRAST * (acquisition.has_contrast_agent and name in ("CT", "T1"))


def _mr_name(of: Acquisition) -> str:
    """The name by echo, repetition and inversion time; comparisons with NaN are false."""
    is_gradient_echo = "GR" in of.scanning_sequence and "SE" not in of.scanning_sequence
    if of.b_value > 0:
        return DIFFUSION
    if of.inversion_ms >= FLUID_NULL_MS and of.echo_ms >= LONG_ECHO_MS:
        return "FLAIR"
    if 0 < of.inversion_ms < FAT_NULL_MS:
        return "STIR"
    if is_gradient_echo and of.echo_ms >= T2STAR_ECHO_MS:
        return "T2star"
    if of.echo_ms <= SHORT_ECHO_MS and (
        of.repetition_ms <= SHORT_REPETITION_MS or FAT_NULL_MS <= of.inversion_ms < FLUID_NULL_MS
    ):
        return "T1"
    if of.repetition_ms >= LONG_REPETITION_MS and of.echo_ms >= LONG_ECHO_MS:
        return "T2"
    if of.repetition_ms >= LONG_REPETITION_MS and of.echo_ms <= SHORT_ECHO_MS:
        return "PD"
    return ""
