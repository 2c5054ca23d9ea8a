"""Settings of the monitoring of a run (section `monitoring` of a study); imports no torch."""

from typing import Literal

from pydantic import Field

from ssl_pipeline.config.section import Section

# Votes of nearest neighbours, in a run and in probes: Caron et al. 2021 (arXiv:2104.14294); Wu et
# al. 2018 (arXiv:1805.01978).
NEIGHBOURS, TEMPERATURE = 20, 0.07

Alarm = Literal["diverging", "collapsed", "shortcut", "data_bound"]  # most severe first


class Monitoring(Section):
    """How often snapshots are taken, on how many samples, and the thresholds of alarms.

    An alarm needs `patience` snapshots in a row. `metrics_registry` explains the metrics. Where the
    deliberately broken runs of `make bench-alarms` move a metric, its threshold lies between the
    values that they and sound runs reached on seeds 0 to 2.
    """

    snapshot_every: int = Field(100, ge=1, description="steps between snapshots")
    snapshot_samples: int = Field(
        64, ge=2, description="samples of the fixed set that snapshots are measured on"
    )
    stop_on: tuple[Alarm, ...] = Field(
        ("diverging",), description="diagnoses that end the run early"
    )
    patience: int = Field(3, ge=1, description="snapshots in a row that make an alarm")
    collapse_after: float = Field(
        0.25, ge=0, le=1, description="fraction of the run before which no collapse is diagnosed"
    )
    skill_after: float = Field(
        0.5,
        ge=0,
        le=1,
        description="fraction of the run before which reconstruction skill raises no alarm",
    )
    max_loss_rise: float = Field(
        0.5,
        gt=0,
        description="largest rise of the loss above its best value, as a fraction of its decrease "
        "so far (or of the best value, where that is more)",
    )
    max_gradient_rise: float = Field(
        10.0, gt=1, description="largest gradient norm, as a multiple of its median so far"
    )
    min_dimension_std: float = Field(
        0.15,
        ge=0,
        le=1,
        description="smallest scaled standard deviation per dimension of projections; 1 is even",
    )
    max_uniformity: float = Field(
        -0.1, le=0, description="largest uniformity of projections; 0 is collapse"
    )
    min_rankme: float = Field(
        0.05,
        ge=0,
        le=1,
        description="smallest effective rank (RankMe), as a fraction of its ceiling",
    )
    min_chance_margin: float = Field(
        0.1,
        ge=0,
        description="smallest distance of the loss between subjects below chance, in nats",
    )
    max_teacher_entropy: float = Field(
        1.0,
        ge=0,
        le=1,
        description="largest entropy of the targets of self-distillation, as a fraction of the "
        "largest possible; 1 never alarms, for no limit was calibrated",
    )
    min_prototype_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="smallest effective number of prototypes in use, as a fraction of the largest "
        "possible; 0 never alarms, for no limit was calibrated",
    )
    min_drift: float = Field(
        1e-6, ge=0, description="smallest relative change of the embeddings between snapshots"
    )
    max_position_shortcut: float = Field(
        0.2,
        gt=0,
        description="largest fraction of the local loss that crop positions alone solve",
    )
    max_histogram_retrieval: float = Field(
        0.5, gt=0, le=1, description="largest fraction of views that histograms alone match"
    )
    max_same_subject_loss: float = Field(
        0.01,
        ge=0,
        description="largest loss between subjects, in nats, where all samples are of one subject; "
        "0 is correct",
    )
    max_gradient_outside: float = Field(
        0.3,
        gt=0,
        le=1,
        description="largest fraction of the reconstruction gradient outside the body",
    )
    min_skill: float = Field(
        -0.25, lt=1, description="smallest reconstruction skill; 0 is as good as in-painting"
    )
    max_data_wait: float = Field(
        0.5, gt=0, le=1, description="largest fraction of time that a device waits for data"
    )
