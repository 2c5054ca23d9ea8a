"""Settings of the training loop (section `training` of a study); imports no torch."""

from typing import Any, Literal

from pydantic import Field, model_validator

from ssl_pipeline.config.section import Section
from ssl_pipeline.training.replay import Replay


def _is_none(value: object) -> bool:
    return value is None


class RunLength(Section):
    """The length of a run, in steps or in hours.

    Where hours are given, steps are 0 until the run has started: it then measures how many fit.
    """

    steps: int = Field(0, ge=0, description="steps of that run, where it was given steps")
    hours: float | None = Field(
        None,
        gt=0,
        description="hours of that run, where it was given hours",
        exclude_if=_is_none,  # a run by steps keeps its hash
    )

    @model_validator(mode="after")
    def _check_length(self) -> "RunLength":
        if bool(self.steps) == bool(self.hours):
            raise ValueError(
                f"steps is {self.steps} and hours is {self.hours or 0:g}: give one of them, for "
                "hours become steps when the run starts"
            )
        return self

    @property
    def length(self) -> str:
        """The setting that gives the length, in words: `8 hours`."""
        return f"{self.hours:g} hours" if self.hours else f"{self.steps} steps"


class LowRankUpdates(Section):
    """Low-rank updates of the encoder's layers, which are trained in place of its weights (LoRA).

    Hu et al. 2022, arXiv:2106.09685.
    """

    rank: int = Field(8, ge=1, description="rank of the update of a layer")
    alpha: float = Field(16.0, gt=0, description="the update is multiplied by alpha / rank")


class ParentRun(RunLength):
    """A finished run of this study that another run continues from."""

    cohort: int = Field(1, ge=1, description="its cohort")
    roots: tuple[str, ...] = Field(
        (), description="names of the roots that the study had then; empty where it had all"
    )
    replay: Replay | None = Field(None, description="its replay")
    keep_moments: bool = Field(True, description="its keep_moments", exclude_if=bool)
    low_rank: LowRankUpdates | None = Field(None, description="its low_rank", exclude_if=_is_none)
    continue_from: "ParentRun | None" = Field(
        None, description="the run that it continued from itself"
    )

    @model_validator(mode="after")
    def _check_replay(self) -> "ParentRun":
        _check_replay(self)
        return self


class Training(RunLength):
    """Length, batch size, optimizer, precision, device and checkpoints of a pretraining run."""

    steps: int = Field(1000, ge=0, description="optimizer steps of the whole run")
    hours: float | None = Field(
        None,
        gt=0,
        description="wall-clock hours of the whole run on its ranks, in place of `steps`: how many "
        "fit is measured when the run starts, and stays",
        exclude_if=_is_none,
    )
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
        "or hours and this cohort, up to `steps` or `hours`, with a new warm-up; with a raised "
        "cohort, on more volumes",
    )

    replay: Replay | None = Field(
        None,
        description="with `continue_from` and a raised cohort: train on the subjects that came, "
        "with some of the earlier ones in every step; without it, on all by their weights",
    )
    keep_moments: bool = Field(
        True,
        description="with `continue_from`: keep AdamW's moments as that run left them; false "
        "begins with none, as `low_rank` does too",
        exclude_if=bool,  # a run that keeps them keeps its hash
    )
    low_rank: LowRankUpdates | None = Field(
        None,
        description="with `continue_from` or `init_from`: train low-rank updates of the encoder's "
        "blocks, and all heads, and add the updates to the weights at the end; the rest of the "
        "encoder stays as it is",
        exclude_if=_is_none,
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_steps_open(cls, content: Any) -> Any:
        """Hours replace the steps that are the default."""
        has_hours = isinstance(content, dict) and content.get("hours") is not None
        return {"steps": 0, **content} if has_hours else content

    @model_validator(mode="after")
    def _check_continuation(self) -> "Training":
        for key in ("steps", "hours"):
            whole, before = getattr(self, key), getattr(self.continue_from, key, None)
            if whole and before and whole <= before:
                raise ValueError(
                    f"{key} is {whole:.10g}, not above continue_from.{key}, {before:.10g}: {key} "
                    "counts those of the earlier run too"
                )
        return self

    @model_validator(mode="after")
    def _check_average(self) -> "Training":
        if self.ema_decay and self.steps and self.added_steps == 1:
            raise ValueError(
                f"ema_decay is {self.ema_decay:g}, and the run has one step, of which there is "
                "no average: give more steps, or set ema_decay to 0"
            )
        return self

    @model_validator(mode="after")
    def _check_updates(self) -> "Training":
        if self.low_rank and self.ema_decay:
            raise ValueError(
                f"ema_decay is {self.ema_decay:g}, and low_rank trains updates in place of the "
                "weights, of which there is no average: set one of them to its default"
            )
        return self

    @model_validator(mode="after")
    def _check_replay(self) -> "Training":
        _check_replay(self)
        return self

    def shortened(self, share: float) -> "Training":
        """The same for a share of the hours, or of the steps, at least one."""
        if self.hours:
            return self.model_copy(update={"hours": share * self.hours})
        return self.model_copy(update={"steps": max(1, round(share * self.steps))})

    @property
    def first_step(self) -> int:
        """The step that the run begins at: 0, or the last one of the run that it continues from."""
        return self.continue_from.steps if self.continue_from else 0

    @property
    def added_steps(self) -> int:
        """The steps of the run without those of the run that it continues from."""
        return self.steps - self.first_step

    @property
    def added_hours(self) -> float | None:
        """The hours of the run without those of the run that it continues from, as far as given."""
        before = self.continue_from.hours if self.continue_from else None
        return self.hours - (before or 0) if self.hours else None

    def with_steps(self, steps: int, first_step: int = 0) -> "Training":
        """The section with the steps that its hours have become, from this step on."""
        parent = self.continue_from and self.continue_from.model_copy(update={"steps": first_step})
        return self.model_copy(update={"steps": steps, "continue_from": parent})


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
