"""Replay of earlier cohorts; adding a way to choose is one file and one line in this union."""

from typing import Annotated

from pydantic import Field

from ssl_pipeline.config.section import Section
from ssl_pipeline.training.replay.choice import ReplayChoice
from ssl_pipeline.training.replay.random import RandomReplay
from ssl_pipeline.training.replay.typical import TypicalReplay

__all__ = ["RandomReplay", "Replay", "ReplayChoice", "ReplayChoiceConfig", "TypicalReplay"]

ReplayChoiceConfig = Annotated[RandomReplay | TypicalReplay, Field(discriminator="name")]


class Replay(Section):
    """Samples from earlier cohorts in every step of a run that continues on new scans."""

    share: float = Field(
        0.4,
        ge=0,
        lt=1,
        description="share of every step's samples that comes from subjects of earlier cohorts; "
        "the rest is of new subjects alone, all of it where this is 0",
    )
    choose: ReplayChoiceConfig = Field(
        RandomReplay(), description="the earlier subjects that are drawn from"
    )
