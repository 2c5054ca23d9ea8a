"""Settings of a promotion (section `promote` of a study); imports no torch."""

from typing import Annotated

from pydantic import Field, PositiveFloat, model_validator

from ssl_pipeline.config.section import Section
from ssl_pipeline.evaluation.config import Identifier
from ssl_pipeline.registry.registry import CHAMPION

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=80)]


class Promote(Section):
    """When the study's encoder replaces the champion of a registry: criteria for the gate."""

    registry: str = Field(min_length=1, description="folder of the registry")
    name: Name = Field(description="family of encoders, such as chest")
    alias: Name = Field(CHAMPION, description="alias that points to the encoder in use")
    keep: dict[Identifier, PositiveFloat] = Field(
        {}, description="tasks to keep, with the largest loss allowed, in the task's own metric"
    )
    gain: dict[Identifier, PositiveFloat] = Field(
        min_length=1,
        description="tasks of which one at least must be better, with the gain that would be worth "
        "a promotion: it says how many scored subjects are enough, and when to give up",
    )
    forget: float = Field(
        0.1, gt=0, description="largest rise of the held-out loss in any old domain, as a share"
    )
    domains: tuple[str, ...] = Field(
        ("root", "site"),
        min_length=1,
        description="root, site, modality or targets whose values make up a domain",
    )
    places: int = Field(64, ge=3, description="held-out places of a domain")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="nominal coverage of intervals")

    @model_validator(mode="after")
    def _either(self) -> "Promote":
        both = sorted(self.keep.keys() & self.gain.keys())
        if both:
            raise ValueError(f"{both[0]} is to be kept and to gain: name it once")
        return self

    @property
    def reference(self) -> str:
        """The alias as the registry names it."""
        return f"{self.name}@{self.alias}"
