"""Dials of the training loop (section `training` of a study); imports no torch."""

from typing import Literal

from pydantic import Field, model_validator

from ssl_pipeline.config.section import Section


class ParentRun(Section):
    """The finished run of this study that is gone on from."""

    steps: int = Field(ge=1, description="steps of that run")
    cohort: int = Field(1, ge=1, description="its cohort")
    continue_from: "ParentRun | None" = Field(
        None, description="the run that it went on from itself"
    )


class Training(Section):
    """How long, how large, how fast to learn, and on what."""

    steps: int = Field(1000, ge=1, description="optimizer steps of the whole run")
    batch_size: int = Field(48, ge=1, description="places a step, each seen in two views")
    gradient_accumulation: int = Field(
        1,
        ge=1,
        description="parts that a rank's pairs are computed in, one after the other, where memory "
        "is too small for all; the same step but for rounding, a third slower where subjects are "
        "contrasted",
    )
    learning_rate: float = Field(1e-3, gt=0, description="largest learning rate of AdamW")
    min_learning_rate: float = Field(
        1e-6, ge=0, description="learning rate at the end of the cosine"
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="share of steps to reach the largest rate")
    weight_decay: float = Field(0.05, ge=0, description="none on biases, norms and tokens")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's averaging factors")
    max_grad_norm: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="the encoder that is kept is a moving average of its weights with this factor; "
        "0 keeps the last ones",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="auto times fp32 and bf16 (on GPUs without it fp16, with a scaled loss) once, "
        "and keeps the faster one for the whole run",
    )
    compile: bool = Field(
        False, description="compile the model first: a minute or more, for long runs"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes a GPU if there is"
    )
    threads: int = Field(0, ge=0, description="CPU threads of the model; 0 takes all cores")
    loader_threads: int = Field(
        1, ge=1, description="threads that read crops ahead; no result changes"
    )
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="how many of the newest are kept")
    log_every: int = Field(20, ge=1, description="steps between lines of the metrics log")
    cohort: int = Field(
        1,
        ge=1,
        description="raise by 1 to train on all volumes that have come since, anew or by `extends`",
    )
    continue_from: ParentRun | None = Field(
        None,
        description="go on from the end of a finished run of this study, which had so many steps, "
        "to `steps`, with a new warm-up; with a raised cohort, on more volumes",
    )

    @model_validator(mode="after")
    def _goes_on(self) -> "Training":
        if self.continue_from and self.steps <= self.continue_from.steps:
            raise ValueError(
                f"steps is {self.steps}, not above continue_from.steps, {self.continue_from.steps}: steps "
                "counts those of the run that is gone on from too"
            )
        return self

    @property
    def first_step(self) -> int:
        """Steps that lie behind when it begins: 0, or those of the run that it extends."""
        return self.continue_from.steps if self.continue_from else 0


# Dials that a run may be gone on with under other values: it ends the same, but for rounding.
RESUMABLE_KEYS = frozenset(
    {"gradient_accumulation", "loader_threads", "checkpoint_every", "keep_checkpoints", "log_every"}
)
