"""Corruptions of scans; adding one is one file and one line in this union."""

from typing import Annotated, get_args

from pydantic import Field

from ssl_pipeline.evaluation.corruptions.anisotropy import Anisotropy
from ssl_pipeline.evaluation.corruptions.bias_field import BiasField
from ssl_pipeline.evaluation.corruptions.blur import Blur
from ssl_pipeline.evaluation.corruptions.cut_field import CutField
from ssl_pipeline.evaluation.corruptions.gamma import Gamma
from ssl_pipeline.evaluation.corruptions.ghosting import Ghosting
from ssl_pipeline.evaluation.corruptions.hu_offset import HuOffset
from ssl_pipeline.evaluation.corruptions.low_dose import LowDose
from ssl_pipeline.evaluation.corruptions.metal_streak import MetalStreak
from ssl_pipeline.evaluation.corruptions.motion import Motion
from ssl_pipeline.evaluation.corruptions.sharp_kernel import SharpKernel
from ssl_pipeline.evaluation.corruptions.smooth_kernel import SmoothKernel
from ssl_pipeline.evaluation.corruptions.spike import Spike
from ssl_pipeline.evaluation.corruptions.thick_slices import ThickSlices

CorruptionConfig = Annotated[
    Anisotropy
    | BiasField
    | Blur
    | CutField
    | Gamma
    | Ghosting
    | HuOffset
    | LowDose
    | MetalStreak
    | Motion
    | SharpKernel
    | SmoothKernel
    | Spike
    | ThickSlices,
    Field(discriminator="name"),
]
ALL_CORRUPTIONS = tuple(kind() for kind in get_args(get_args(CorruptionConfig)[0]))
