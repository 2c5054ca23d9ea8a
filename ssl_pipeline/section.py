"""What every section of a study is: a frozen pydantic model that refuses unknown keys.

A section lives beside the code that it configures, and a library function takes its own section,
never the whole study. Each field has a unit in its name or text, a default, and one line of help.
"""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen part of a study."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
