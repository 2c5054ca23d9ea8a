"""Text that people write: studies, tables, lists and records, whatever program saved them.

All of it is read by `read_text` and compared by `normalize_word`, so that one word is one word, in
a CSV and a Parquet table, in a list and in a path.
"""

import codecs
import re
import unicodedata
from pathlib import Path

from ssl_pipeline.errors import UserError

# The mark of UTF-32 begins as that of UTF-16 does, and is tried first.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
# How files begin that are given in place of text.
BINARY_FORMATS = {
    b"PK\x03\x04": "an Excel workbook or a ZIP archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\x1f\x8b": "compressed by gzip",
}
# What spreadsheets, pandas, R, BIDS, databases and anonymisers write where they know no value.
MISSING_WORDS = frozenset(
    (
        "", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nan", "-nan", "nat", "null", "<null>",
        "nil", "none", "-", "--", "---", ".", "?", "unknown", "missing", "not available",
        "not applicable", "anonymous", "anonymized", "anonymised",
    )
)  # fmt: skip
LARGEST_NUMBER = 1e30  # whose square, summed over scans, is still a number
MIN_VECTOR = 3  # numbers; fewer may be a date or a size
AGE = re.compile(r"([0-9]{1,3})([DWMY])")  # the value representation AS of DICOM PS3.5
UNITS_PER_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}
WHOLE_NUMBER = re.compile(r"([+-]?[0-9]+)\.0+")  # as a column of numbers with gaps is written


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with its mark, with line feeds alone.

    Raises UserError for a file that cannot be opened, or is in no such encoding.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or "unknown error"
        raise UserError(f"{path} cannot be read ({reason}): correct path or rights.") from None
    for start, what in BINARY_FORMATS.items():
        if content.startswith(start):
            raise UserError(f"{path} is {what}, and text is needed: save it as text in UTF-8.")
    marks = (name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark))
    encoding = next(marks, "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        seems = "cp1252, as Windows writes it," if encoding == "utf-8" else f"a torn {encoding}"
        raise UserError(
            f"{path} is no text in UTF-8 (line {line}), but {seems} or another encoding: save it"
            " as UTF-8, in Excel as `CSV UTF-8`."
        ) from None
    if "\0" in text:
        raise UserError(
            f"{path} is no text in UTF-8, but UTF-16 without a byte order mark, or no text at all:"
            " save it as UTF-8, in Excel as `CSV UTF-8`."
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def compose(text: str) -> str:
    """The text in composed characters (NFC): two names of a file may differ in nothing else."""
    return unicodedata.normalize("NFC", text)


def clean_text(text: str) -> str:
    """The text in composed characters (NFC), without invisible ones and without outer spaces.

    Zero-width spaces and byte order marks are invisible; inner white space becomes one space.
    """
    composed = compose(text)
    return " ".join("".join(each for each in composed if not _is_invisible(each)).split())


def normalize_word(text: str) -> str:
    """A word as it is compared with others: clean, a whole number without `.0`.

    Empty where it is one of MISSING_WORDS, in letters of any size.
    """
    word = clean_text(text)
    if number := WHOLE_NUMBER.fullmatch(word):
        word = number[1]
    return "" if word.casefold() in MISSING_WORDS else word


def parse_number(text: str) -> float | None:
    """The number that a word is, an age as DICOM writes it (`067Y`, `018M`) in years.

    None where it is none, or beyond LARGEST_NUMBER.
    """
    if age := AGE.fullmatch(text):
        return int(age[1]) / UNITS_PER_YEAR[age[2]]
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) <= LARGEST_NUMBER else None


def parse_vector(text: str) -> list[float] | None:
    """The numbers of `[0.1, -2, 3]` or `0.1 -2 3`; None where it is no such list."""
    words = text.strip("[]() ").replace(",", " ").split()
    numbers = [parse_number(word) for word in words]
    found = [number for number in numbers if number is not None]
    return found if len(found) == len(words) >= MIN_VECTOR else None


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in ("Cf", "Cc") and not character.isspace()
