"""Tables of the dataset: what visits hold."""

from ssl_pipeline.report.sections.dataset import inventory_tables, sequence_table
from ssl_pipeline.volumes.inventory import Inventory, Scan


def scan(number, **fields):
    """A scan of a person of their own unless the fields say otherwise."""
    plain = {"id": str(number), "root": "heads", "modality": "MR", "subject": f"s{number}"}
    rest = {"targets": {}, "labels": {}, "format": "NIfTI", "sha256": str(number)}
    return Scan(**plain | rest | {"quality": "accepted", "split": "train"} | fields)


def inventory(*scans):
    """The inventory of these scans."""
    return Inventory(scans)


def test_scans_are_counted_by_sequence_visit_and_frame():
    first = {"subject": "a", "visit": "v", "frame": "f"}
    found = sequence_table(
        inventory(
            scan(0, **first, sequence="T1"),
            scan(1, **first, sequence="T2"),
            scan(2, **first | {"frame": ""}, sequence="T1"),
            scan(3, subject="a", visit="w", frame="f", sequence="T1", split="test"),
            scan(4),
            scan(5, **first, sequence="T2", quality="rejected"),
        )
    )
    assert found.head[-2:] == ("visits", "with a scan of one frame")
    cells = {row[0]: row[1:] for row in found.rows}
    assert cells["T1"] == ("3", "1", "2", "0", "1", "0", "2", "1")
    assert cells["T2"] == ("1", "1", "1", "0", "0", "0", "1", "1")
    assert cells["unknown"] == ("1", "1", "1", "0", "0", "0", "0", "0")


def test_a_study_without_visits_has_no_such_table():
    plain = inventory(scan(0), scan(1))
    assert sequence_table(plain) is None
    assert not any("sequence" in table.caption for table in inventory_tables(plain))
