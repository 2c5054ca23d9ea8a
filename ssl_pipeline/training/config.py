"""Settings of the training loop (section `training` of a study); imports no torch."""

from typing import Literal

from pydantic import Field, model_validator

from ssl_pipeline.config.section import Section
from ssl_pipeline.training.replay import Replay


class ParentRun(Section):
    """A finished run of this study that another run continues from."""

    steps: int = Field(ge=1, description="steps of that run")
    cohort: int = Field(1, ge=1, description="its cohort")
    roots: tuple[str, ...] = Field(
        (), description="names of the roots that the study had then; empty where it had all"
    )
    replay: Replay | None = Field(None, description="its replay")
    continue_from: "ParentRun | None" = Field(
        None, description="the run that it continued from itself"
    )

    @model_validator(mode="after")
    def _check_replay(self) -> "ParentRun":
        _check_replay(self)
        return self


class Training(Section):
    """Length, batch size, optimizer, precision, device and checkpoints of a pretraining run."""

    steps: int = Field(1000, ge=1, description="optimizer steps of the whole run")
    batch_size: int = Field(
        48, ge=1, description="samples per optimizer step; each gives two views"
    )
    gradient_accumulation: int = Field(
        1,
        ge=1,
        description="micro-batches that a rank's samples are split into, where memory is too small "
        "for all at once; the same step but for rounding, a third slower with contrast between "
        "subjects",
    )
    learning_rate: float = Field(
        1e-3,
        gt=0,
        description="largest learning rate of AdamW; in a run that continues another and adds "
        "fewer steps than that had, times the root of their ratio",
    )
    min_learning_rate: float = Field(
        1e-6, ge=0, description="learning rate at the end of the cosine decay"
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="fraction of steps for linear warm-up")
    weight_decay: float = Field(0.05, ge=0, description="AdamW's; none on biases, norms and tokens")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's beta1 and beta2")
    max_grad_norm: float = Field(1.0, gt=0, description="norm that gradients are clipped to")
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of the moving average of the weights, which is exported in their "
        "place; 0 exports the last weights",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="auto times fp32 and bf16 (on GPUs without it fp16, with a scaled loss) once, "
        "and uses the faster one for the whole run",
    )
    compile: bool = Field(
        False, description="compile the model first: a minute or more, for long runs"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="auto takes a GPU if there is one; a run that is resumed stays where it was, "
        "unless this names another device",
    )
    threads: int = Field(
        0,
        ge=0,
        description="CPU threads of the model; 0 takes all cores, and in a run that is resumed as "
        "many as it had",
    )
    loader_threads: int = Field(
        1, ge=1, description="threads that load crops ahead; no result depends on it"
    )
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="number of newest checkpoints to keep")
    log_every: int = Field(20, ge=1, description="steps between lines of the metrics log")
    cohort: int = Field(
        1,
        ge=1,
        description="raise by 1 to train on all volumes added since, from the start or with "
        "`continue_from`",
    )
    continue_from: ParentRun | None = Field(
        None,
        description="continue from the end of a finished run of this study, which had these steps "
        "and this cohort, up to `steps`, with a new warm-up; with a raised cohort, on more volumes",
    )

    replay: Replay | None = Field(
        None,
        description="with `continue_from` and a raised cohort: train on the subjects that came, "
        "with some of the earlier ones in every step; without it, on all by their weights",
    )

    @model_validator(mode="after")
    def _check_steps(self) -> "Training":
        if self.continue_from and self.steps <= self.continue_from.steps:
            raise ValueError(
                f"steps is {self.steps}, not above continue_from.steps, "
                f"{self.continue_from.steps}: steps counts those of the earlier run too"
            )
        _check_replay(self)
        return self

    @property
    def first_step(self) -> int:
        """The step that the run begins at: 0, or the last one of the run that it continues from."""
        return self.continue_from.steps if self.continue_from else 0


def _check_replay(run: Training | ParentRun) -> None:
    """Raise ValueError where a run replays earlier cohorts of which there are none."""
    base = run.continue_from
    if run.replay and (base is None or base.cohort >= run.cohort):
        raise ValueError(
            "replay draws from cohorts before this one: give continue_from a finished run, and "
            "raise cohort above its"
        )


# Settings that may change when a run is resumed: its result is the same, but for rounding.
RESUMABLE_KEYS = frozenset(
    {
        *("device", "threads", "compile", "gradient_accumulation", "loader_threads"),
        *("checkpoint_every", "keep_checkpoints", "log_every"),
    }
)
