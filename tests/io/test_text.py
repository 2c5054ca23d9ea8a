"""Text that people write: encodings are read or refused in a sentence, words are normalized."""

import gzip
import unicodedata

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.text import normalize_word, parse_number, parse_vector, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_in_unicode_is_read_whatever_its_line_ends(encoding, tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("Müller\r\n007\r008\n".encode(encoding))
    assert read_text(path) == "Müller\n007\n008\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a\nMüller\n".encode("cp1252"), r"list.txt is no text in UTF-8 \(line 2\), but cp1252"),
        ("a\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        ("a\n".encode("utf-16")[:-1], "a torn utf-16"),
        (b"PK\x03\x04...", "is an Excel workbook"),
        (gzip.compress(b"a,b\n", mtime=0), "is compressed by gzip"),
        (None, r"list.txt cannot be read \(No such file or directory\)"),
    ],
)
def test_other_files_are_refused_in_one_sentence(content, sentence, tmp_path):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read_text(path)


def test_words_that_look_the_same_are_the_same():
    assert normalize_word("\ufeff007\u200b ") == normalize_word(" 007\u00a0") == "007"
    assert normalize_word(unicodedata.normalize("NFD", "Müller")) == "Müller"
    assert normalize_word("Doe \u00a0Jane") == "Doe Jane"
    assert [normalize_word(word) for word in ("7.0", "-3.00", "1.5", "v1.0", "007")] == [
        "7", "-3", "1.5", "v1.0", "007",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "word", ["", " ", "n/a", "NA", "NaN", "null", "None", "#N/A", "-", "Unknown"]
)
def test_words_for_a_missing_value_are_none(word):
    assert normalize_word(word) == ""


@pytest.mark.parametrize(
    ("text", "number"),
    [("067Y", 67), ("018M", 1.5), ("052W", 52 * 7 / 365.25), ("3Y", 3), ("-1.5e3", -1500)],
)
def test_ages_of_headers_are_numbers_in_years(text, number):
    assert parse_number(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "67 years", "1067Y", "67y", "inf", "nan", "1e31"])
def test_other_words_are_no_numbers(text):
    assert parse_number(text) is None


def test_a_vector_is_a_list_of_numbers_in_any_brackets():
    assert parse_vector("[0.5, -2, 3e-1]") == parse_vector("0.5 -2 0.3") == [0.5, -2, 0.3]
    for text in ("0.5 1", "0.5 nan 1", "no effusion 1", ""):
        assert parse_vector(text) is None
