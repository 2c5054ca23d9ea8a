"""DoRA: LoRA for the direction of each weight, with a trained magnitude.

Liu et al. 2024, arXiv:2402.09353.
"""

from typing import ClassVar, Literal

from ssl_pipeline.evaluation.adaptation.lora import LowRank


class Dora(LowRank):
    """Weight-decomposed low-rank adaptation."""

    TITLE: ClassVar[str] = "DoRA"
    USES_DORA: ClassVar[bool] = True

    name: Literal["dora"] = "dora"
