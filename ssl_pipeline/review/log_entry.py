"""One decision of a reader: what was asked about which content, and what was answered.

Answers are chosen and never written: free text could name a patient.
"""

import re
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StrictBool, model_validator

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.records import Record, RecordPart

Question = Literal["usable", "same_subject", "label_fits", "prediction_correct"]
Answer = Literal["accept", "reject", "unsure", "withdraw"]
ReasonCode = Literal[
    # of scans
    "motion", "metal", "noise", "artefact", "field_of_view", "missing_slices", "orientation",
    "body_part", "no_image",
    # of labels and predictions
    "shifted", "mirrored", "outline", "class_missing", "wrong_class",
]  # fmt: skip
READER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$"
Reader = Annotated[str, Field(pattern=READER_PATTERN)]
ItemCode = Annotated[str, Field(pattern=r"^[0-9a-f]{12}(-[0-9a-f]{12})?$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Overlay = Literal["", "labels", "foreground", "prediction", "labels beside prediction"]
ItemKey = tuple[str, Question, str, int]  # of an item and what it holds: code, hash, round


def check_reader(reader: str) -> None:
    """Raise UserError for a `--reader` that is no short code."""
    if not re.fullmatch(READER_PATTERN, reader):
        raise UserError(
            f"--reader is {reader!r}: give up to 32 letters, digits, `-` or `_`, which results say."
        )


class View(RecordPart):
    """What stood on the screen: the slices (z, y, x), the window of values, the overlay."""

    slices: tuple[int, int, int]
    window: Annotated[str, Field(pattern=r"^[a-z_]{1,20}$")]
    overlay: Overlay | StrictBool  # in lines of format 1, whether there was one


class ReaderAnswer(RecordPart):
    """What a reader said of one item, in the round 0, or 1 where it was repeated."""

    item: ItemCode  # the scan's code, two of them, or those of a scan and what lies over it
    content_sha256: Sha256  # of what was seen
    question: Question
    round: int = Field(ge=0, le=1)
    answer: Answer  # "withdraw" takes the reader's last answer on the item back
    codes: tuple[ReasonCode, ...] = ()
    dwell_s: float = Field(ge=0, allow_inf_nan=False)  # from the first sight to the answer
    view: View

    @property
    def key(self) -> ItemKey:
        """The item that it answers; another content is another item."""
        return self.item, self.question, self.content_sha256, self.round

    @property
    def is_of_format_1(self) -> bool:
        """Whether it comes from a log of format 1, in whose views overlays have no name."""
        return False

    @model_validator(mode="after")
    def _overlay_has_a_name(self) -> "ReaderAnswer":
        if isinstance(self.view.overlay, bool) and not self.is_of_format_1:
            raise ValueError(f"view.overlay is {self.view.overlay}: give the overlay's name")
        return self

    def withdrawal(self) -> "ReaderAnswer":
        """That its reader takes it back, before the same view; without an overlay's name, none."""
        fields = {name: getattr(self, name) for name in ReaderAnswer.model_fields}
        overlay = "" if self.is_of_format_1 else self.view.overlay
        view = self.view.model_copy(update={"overlay": overlay})
        return ReaderAnswer.model_validate(
            {**fields, "answer": "withdraw", "codes": (), "view": view}
        )


class LogEntry(ReaderAnswer, Record):
    """One line of the log."""

    format: Literal[1, 2] = 2
    number: int  # from 1
    time: AwareDatetime  # UTC; the number says the order, for clocks are wrong
    reader: Reader
    version: str  # of this software
    previous: Sha256  # of the line before, of nothing for the first

    @property
    def is_of_format_1(self) -> bool:
        """Whether it comes from a log of format 1, in whose views overlays have no name."""
        return self.format == 1
