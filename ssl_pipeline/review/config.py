"""The section `review` of a study: what people are asked before preprocessing begins."""

from typing import Literal

from pydantic import Field

from ssl_pipeline.config.section import Section


class Review(Section):
    """What readers are asked; preprocessing waits until every item is answered."""

    verdicts: tuple[Literal["repaired", "rejected"], ...] = Field(
        ("repaired", "rejected"),
        description="scans of these qualities are asked about, as far as they hold an image",
    )
    accepted_share: float = Field(
        0.02, ge=0, le=1, description="random share of the accepted scans that is asked about"
    )
    copies: bool = Field(
        True, description="whether a suspected copy is asked about, beside the scan that it copies"
    )
    planted_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="corrupted copies of accepted scans among the questions, which a reader must"
        " reject, as a share of them",
    )
    repeated_share: float = Field(
        0.1, ge=0, le=1, description="share of the scans that each reader is asked about twice"
    )
    readers: int = Field(1, ge=1, le=9, description="readers that each item needs")
    blinded: bool = Field(
        True, description="whether the page keeps to itself what quality control found"
    )
