"""Typed records: one JSON file a record, with a format version that its type declares.

A record's type is a frozen model with a field `format`. All files of the pipeline's own are read
here (tables in ssl_pipeline/io/parquet.py): one that is empty, cut, no text, or of another format
is refused in one sentence that names the remedy, or counts as missing where it is made again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import create_json, write_json


class RecordPart(BaseModel):
    """A frozen part of a record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Record(RecordPart):
    """A frozen record. Its type narrows `format` to a literal with a default."""

    format: int


RecordType = TypeVar("RecordType", bound=Record)
Content = TypeVar("Content")
parse_object = TypeAdapter(dict[str, Any]).validate_json  # where any keys may be


def read_record(record_type: type[RecordType], path: Path, remedy: str) -> RecordType:
    """Read a record. Raises UserError, with the remedy, if it is damaged or of another format."""
    try:
        return record_type.model_validate_json(path.read_bytes())
    except ValidationError:
        raise UserError(f"{path} is damaged, or of another format version: {remedy}.") from None


def read_record_if_whole(record_type: type[RecordType], path: Path) -> RecordType | None:
    """Read a record that is made again; None where there is none, or none that can be read."""
    try:
        return record_type.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def read_json(parse: Callable[[bytes], Content], path: Path, remedy: str) -> Content:
    """Read JSON by a parser of pydantic. Raises UserError, with the remedy, if it is damaged."""
    try:
        return parse(path.read_bytes())
    except ValidationError as error:
        raise UserError(f"{path} is damaged ({_first_error(error)}): {remedy}.") from None


def read_json_if_whole(parse: Callable[[bytes], Content], path: Path) -> Content | None:
    """Read JSON that is made again; None where there is none, or none that can be read."""
    try:
        return parse(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return "it is not JSON"
    return f"{'.'.join(map(str, first['loc'])) or 'the whole file'}: {first['msg']}"


def write_record(path: Path, record: Record) -> None:
    """Write a record whole, or not at all."""
    write_json(path, record.model_dump(mode="json"))


def create_record(path: Path, record: Record) -> None:
    """Write a record whole, or not at all. Raises FileExistsError where the name is taken."""
    create_json(path, record.model_dump(mode="json"))
