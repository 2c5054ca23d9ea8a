"""Base class of the settings sections: a frozen pydantic model that refuses unknown keys.

A section lives beside the code that it configures, and a library function takes its own section,
never the whole study. Each field has a unit in its name or text, a default, and one line of help.
"""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen section of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


SectionType = TypeVar("SectionType", bound=Section)


def override_section(section: SectionType, overrides: SectionType | None) -> SectionType:
    """A copy of a section, with the values that were set in `overrides`."""
    given = overrides.model_fields_set if overrides else ()
    return section.model_copy(update={name: getattr(overrides, name) for name in given})
