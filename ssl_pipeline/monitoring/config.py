"""Dials of the flight recorder (section `flight` of a study); imports no torch."""

from typing import Literal

from pydantic import Field

from ssl_pipeline.config.section import Section

Alarm = Literal["collapsed", "shortcut", "data_bound", "diverging"]


class Monitoring(Section):
    """How often a run is looked at, on how many places, and what counts as an alarm.

    An alarm needs `patience` records in a row. What a sign means is told in `flight.signs`. Where
    spoilt runs of `make bench-verdict` move a sign, its limit lies between what they and sound ones
    reached on seeds 0 to 2.
    """

    snapshot_every: int = Field(100, ge=1, description="steps between records")
    snapshot_samples: int = Field(
        64, ge=2, description="places of the fixed bank that records are taken on"
    )
    stop_on: tuple[Alarm, ...] = Field(
        ("diverging",), description="verdicts that end the run early"
    )
    patience: int = Field(3, ge=1, description="records in a row that make an alarm")
    collapse_after: float = Field(
        0.25, ge=0, le=1, description="share of the run before which no collapse is judged"
    )
    skill_after: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the run before which no skill of rebuilding is judged",
    )
    max_loss_rise: float = Field(
        0.5,
        gt=0,
        description="largest rise of the loss above its best, as a share of what it had gained "
        "(or of its best, where that is more)",
    )
    max_gradient_rise: float = Field(
        10.0, gt=1, description="largest gradient norm, in multiples of its median so far"
    )
    min_dimension_std: float = Field(
        0.15, ge=0, le=1, description="least spread a dimension of projected vectors; 1 is healthy"
    )
    max_uniformity: float = Field(
        -0.1, le=0, description="largest uniformity of projected vectors; 0 is collapse"
    )
    min_rankme: float = Field(
        0.05, ge=0, le=1, description="least effective rank, as a share of its ceiling"
    )
    min_chance_margin: float = Field(
        0.1, ge=0, description="least gap of the loss between subjects to chance, in nats"
    )
    min_drift: float = Field(
        1e-6, ge=0, description="least change of the embeddings between records, as a share"
    )
    max_position_shortcut: float = Field(
        0.2,
        gt=0,
        description="largest share of the local loss that is solved by where crops lie alone",
    )
    max_histogram_retrieval: float = Field(
        0.5, gt=0, le=1, description="largest share of views that histograms alone match"
    )
    max_same_subject_loss: float = Field(
        0.01,
        ge=0,
        description="largest loss between subjects, in nats, where all places are of one subject; "
        "0 is sound",
    )
    max_gradient_outside: float = Field(
        0.3,
        gt=0,
        le=1,
        description="largest share of rebuilding's gradient that lies outside the body",
    )
    min_skill: float = Field(
        -0.25, lt=1, description="least skill of rebuilding; 0 is as good as in-painting"
    )
    max_data_wait: float = Field(
        0.5, gt=0, le=1, description="largest share of time that a device waits for data"
    )
