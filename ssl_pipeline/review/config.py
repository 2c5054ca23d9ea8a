"""The section `review` of a study: what people are asked before preprocessing begins."""

from typing import Literal

from pydantic import Field

from ssl_pipeline.config.section import Section


class ReviewedPredictions(Section):
    """Which predictions readers are asked about."""

    path: str = Field(
        description="folder that `ssl-pipeline predict` wrote for scans of the study, by a model of"
        " segmentation"
    )
    count: int = Field(
        20, ge=1, description="so many are asked about, those of which the model is least certain"
    )
    label: str | None = Field(
        None,
        description="label that accepted predictions become, of training scans without one; by"
        " them nothing is scored or chosen. None by default",
    )


class Review(Section):
    """What readers are asked; preprocessing waits until every item is answered."""

    verdicts: tuple[Literal["repaired", "rejected"], ...] = Field(
        ("repaired", "rejected"),
        description="scans of these qualities are asked about, as far as they hold an image",
    )
    accepted_share: float = Field(
        0.02,
        ge=0,
        le=1,
        description="random share of the accepted scans, and of the labels that fit, that is asked"
        " about",
    )
    copies: bool = Field(
        True, description="whether a suspected copy is asked about, beside the scan that it copies"
    )
    merged_subjects: bool = Field(
        True,
        description="whether two names that one study of a scanner joins are asked about, by a scan"
        " of each",
    )
    labels: bool = Field(
        True,
        description="whether labels that are empty, or on another grid than their scan, are asked"
        " about, among a share of those that fit",
    )
    predictions: ReviewedPredictions | None = Field(
        None, description="predictions of a model that are asked about; none by default"
    )
    planted_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="corrupted scans, and moved labels and predictions, among the questions, which"
        " a reader must reject, as a share of them",
    )
    repeated_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of the scans, labels and predictions that each reader is asked twice",
    )
    readers: int = Field(1, ge=1, le=9, description="readers that each item needs")
    blinded: bool = Field(
        True, description="whether the page keeps to itself what quality control found"
    )
