"""Values of targets that may say who a person is, or are written in two ways, are refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes.config import Root
from ssl_pipeline.volumes.discovery import Candidate
from ssl_pipeline.volumes.metadata_table import TableRow
from ssl_pipeline.volumes.pseudonyms import coder
from ssl_pipeline.volumes.readers import Source
from ssl_pipeline.volumes.target_values import check_targets


def scans_with(*values):
    """A scan of another subject for each value of one target."""
    return [
        Candidate(
            Source(Path(f"s{number}")),
            Root(path="raw", subject={"pattern": "(?P<id>.+)"}),
            f"s{number}",
            TableRow(number, Path(f"s{number}"), {}, {"note": value}),
            {},
            coder(b""),
        )
        for number, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("Doe_Jane_1961", "a person's name"),
        ("Doe^Jane", "a person's name"),
        ("J. Doe", "a person's name"),
        ("DOE, JANE", "a person's name"),
        ("Anne-Marie O'Neill", "a person's name"),
        ("1.2.840.10008.1", "a UID"),
        ("1961-04-07", "a date"),
        ("born 7.4.1961", "a date"),
        ("April 7, 1961", "a date"),
        ("19610407", "a date"),
        ("7-APR-61", "a date"),
        ("9434765919", "a number of identity"),
        ("078-05-1120", "a number of identity"),
        ("jane@example.org", "an address"),
    ],
)
def test_a_value_that_may_say_who_a_person_is_is_refused(value, kind):
    with pytest.raises(UserError, match=f"`note` of scan .* looks like {kind}") as error:
        check_targets(scans_with("healthy", value))
    assert value not in str(error.value)


def test_classes_and_numbers_are_no_persons():
    words = ["Lung Cancer", "Lung Cancer", "stage IIIb", "T2w", "left", "61", "0.123456789012"]
    check_targets(scans_with(*words, "1.5.2", "12/13", "-3", "1234567"))


def test_text_of_a_report_is_refused_and_not_shown():
    text = "no effusion, heart of normal size, unchanged since the last examination of the chest"
    with pytest.raises(UserError, match=r"`note` of scan .* is text of 84 characters") as error:
        check_targets(scans_with("healthy", text))
    assert "effusion" not in str(error.value)
    many = [f"finding {number}a" for number in range(65)]
    with pytest.raises(UserError, match="`note` has more than 64 different words") as error:
        check_targets(scans_with(*many))
    assert "64a" not in str(error.value)
    check_targets(scans_with(*many[:64], *map(str, range(100)), "067Y"))


def test_a_vector_is_no_text():
    check_targets(scans_with(*("0.125 " * 40 + str(number) for number in range(70))))


def test_a_value_in_letters_of_two_sizes_is_refused():
    with pytest.raises(UserError, match="`note` is 'f' for some scans and 'F' for others"):
        check_targets(scans_with("f", "m", "F"))


@pytest.mark.parametrize("folder", ["Doe^Jane", "1961-04-07", "1.2.840.10008.1"])
def test_a_root_that_is_called_as_a_person_is_needs_a_name(folder):
    scan = Candidate(Source(Path("s")), Root(path=f"raw/{folder}"), "s", None, {}, coder(b""))
    with pytest.raises(UserError, match="give it another `name`") as error:
        check_targets([scan])
    assert folder not in str(error.value)
    check_targets([replace(scan, root=Root(path=f"raw/{folder}", name="clinic"))])
