"""Own files that are empty, cut, no text or of another kind: one sentence, or made again."""

from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.parquet import read_metadata, read_table
from ssl_pipeline.io.records import (
    Record,
    read_json,
    read_json_if_whole,
    read_record,
    read_record_if_whole,
    write_record,
)


class Sample(Record):
    format: Literal[1] = 1
    counts: dict[str, int]


parse_counts = TypeAdapter(dict[str, int]).validate_json
WHOLE = Sample(counts={"a": 1})
DAMAGES = [b"", b"\0\0\0", b'{"counts": {"a', b"\xff\xfe{}", b"[]", b"null", b"7", b'{"format": 2}']


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sample.json"


def test_a_whole_record_is_read_back(path):
    write_record(path, WHOLE)
    assert read_record(Sample, path, "run it again") == read_record_if_whole(Sample, path) == WHOLE


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_one_sentence_with_the_remedy_or_counts_as_missing(path, damage):
    path.write_bytes(damage)
    with pytest.raises(UserError, match=f"^{path} is damaged.*: run it again.$"):
        read_record(Sample, path, "run it again")
    assert read_record_if_whole(Sample, path) is None


@pytest.mark.parametrize("damage", DAMAGES[:-1])
def test_damaged_json_is_one_sentence_with_the_remedy_or_counts_as_missing(path, damage):
    path.write_bytes(damage)
    with pytest.raises(UserError, match=f"^{path} is damaged .*: run it again.$"):
        read_json(parse_counts, path, "run it again")
    assert read_json_if_whole(parse_counts, path) is None


def test_what_is_missing_counts_as_missing(path):
    assert read_record_if_whole(Sample, path) is None
    assert read_json_if_whole(parse_counts, path / "below a file") is None


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"PAR1" * 9])
def test_a_damaged_table_is_one_sentence_with_the_remedy(path, damage):
    path.write_bytes(damage)
    for read in (read_table, read_metadata):
        with pytest.raises(UserError, match=f"^{path} is missing or damaged: run it again.$"):
            read(path, "run it again")


def test_another_table_or_a_folder_in_place_of_a_table_is_a_damaged_one(path):
    pq.write_table(pa.table({"id": ["a"]}), path)
    assert read_table(path, "run it again", ("id",)).num_rows == 1
    path.with_suffix(".folder").mkdir()
    for place in (path, path.with_suffix(".folder")):
        with pytest.raises(UserError, match="is missing or damaged: run it again"):
            read_table(place, "run it again", ("id", "subject"))
