"""Typed records: one JSON file a record, with a format version that its type declares.

A record's type is a frozen model with a field `format`. A file that is damaged, or of another
format, is refused in one sentence instead of a KeyError far from here.
"""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import write_json


class RecordPart(BaseModel):
    """A frozen part of a record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Record(RecordPart):
    """A frozen record. Its type narrows `format` to a literal with a default."""

    format: int


RecordType = TypeVar("RecordType", bound=Record)


def read_record(record_type: type[RecordType], path: Path, remedy: str) -> RecordType:
    """Read a record. Raises UserError, with the remedy, if it is damaged or of another format."""
    try:
        return record_type.model_validate_json(path.read_bytes())
    except ValidationError:
        raise UserError(f"{path} is damaged, or of another format version: {remedy}.") from None


def write_record(path: Path, record: Record) -> None:
    """Write a record whole, or not at all."""
    write_json(path, record.model_dump(mode="json"))
