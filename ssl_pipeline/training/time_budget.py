"""Record of what the hours of a run have become, `time_budget.json`; imports no torch.

It is written once, before the first step, and whoever resumes the run goes by it: the schedules of
learning rate, averages and weights are functions of the number of steps, which no other machine and
no slower day may change.
"""

from typing import Literal

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.records import Record

TIME_BUDGET_FILE = "time_budget.json"  # in the folder of the run
MEASURED_SHARE, MAX_MEASURED_S = 0.01, 60.0  # of the hours, for which the pace is measured


class TimeBudget(Record):
    """The steps of a run of hours, and the pace that they follow from."""

    format: Literal[1] = 1
    hours: float  # without those of the run that it continues from
    steps: int  # the last one, counted from the first step of the first run
    seconds_per_step: float  # with its share of snapshots and checkpoints
    device: str
    ranks: int


def steps_within(hours: float, seconds_per_step: float, checkpoint_every: int) -> int:
    """The steps that fit into so many hours. UserError where not one checkpoint comes of them."""
    steps = int(hours * 3600 / seconds_per_step)
    if steps < checkpoint_every:
        raise UserError(
            f"training.hours leaves {hours:g} hours, in which {steps} steps of "
            f"{seconds_per_step:.3g} s fit here, fewer than training.checkpoint_every, "
            f"{checkpoint_every}: give more hours, or write checkpoints more often."
        )
    return steps
