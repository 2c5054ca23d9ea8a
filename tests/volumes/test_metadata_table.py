"""Folder layouts and metadata tables: their values and their faults."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes.config import Data
from ssl_pipeline.volumes.metadata_table import RowLookup, TableRow, read_table
from tests.volumes.inventory_helpers import (
    as_hounsfield,
    build,
    by_name,
    data_of,
    subject_name,
    with_noise,
)
from tests.volumes.volume_writers import save_nifti


def test_bids(brain, tmp_path):
    raw = tmp_path / "raw"
    names = [
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_FLAIR.nii.gz",
        "sub-02/ct/sub-02_ct.nii.gz",
        "sub-02/func/sub-02_task-rest_bold.nii.gz",
        "sub-02/anat/sub-02_dseg.nii.gz",
        "derivatives/clean/sub-01/anat/sub-01_T1w.nii.gz",
    ]
    for number, name in enumerate(names):
        scale = as_hounsfield if "ct" in name else with_noise
        save_nifti(raw / name, scale(brain, number), brain.affine)
    inventory = build(data_of(tmp_path, layout="bids", modality=None, subject=None), tmp_path)
    assert [(subject_name(tmp_path, scan), scan.modality) for scan in inventory.accepted_scans] == [
        ("01", "MR"),
        ("02", "CT"),
        ("02", "MR"),
    ]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_says_more_of_scans_and_adds_others(suffix, folder, brain):
    save_nifti(folder / "other" / "x.nii", with_noise(brain, 70), brain.affine)
    columns = {
        "path": ["raw/s_01.nii.gz", "raw/s_03.nii.gz", "other/x.nii"],
        "subject": ["007", "", "008"],
        "site": ["north", "", "south"],
        "modality": ["", "", "CT"],
        "split": ["test", "", "val"],
        "age": ["61", "", "44"],
        "participant_id": ["Doe_Jane_1961", "", "Roe_Dick_1950"],
    }
    table = folder / f"scans.{suffix}"
    if suffix == "csv":
        rows = zip(*columns.values(), strict=True)
        table.write_text("\n".join(",".join(row) for row in [list(columns), *rows]) + "\n")
    else:
        pq.write_table(pa.table(columns), table)
    data = data_of(folder, site={"column": "site"})
    data = data.model_copy(update={"table": table.name, "targets": ("age",)})
    scans = by_name(folder, build(data, folder))
    assert len(scans) == 7
    one, three, other = scans["s_01.nii.gz"], scans["s_03.nii.gz"], scans["x.nii"]
    assert (subject_name(folder, one), one.site, one.split, one.targets) == (
        "007",
        "north",
        "test",
        {"age": "61"},
    )
    assert (subject_name(folder, three), three.site, three.targets) == ("2", "", {})
    assert (other.modality, other.split, other.root) == ("CT", "val", "scans")
    assert subject_name(folder, other) == "008"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("raw/absent.nii,1,,", r"row 2 names a path that is not in"),
        (",1,,", "row 2 has no `path`"),
        ("raw/s_02.nii.gz,1,PET,", "row 2 has a modality that is none of CT, MR"),
        ("raw/s_02.nii.gz,1,,dev", "row 2 has a split that is none of train, val, test"),
        ("raw/s_01.nii.gz,1,,", "rows 1 and 2 name one path"),
        ("raw/s_02.nii.gz,1,,val", "subject [0-9a-f]{12} is in test and in val"),
        ("notes.txt,1,,", "row 2 names no image of a known format"),
    ],
)
def test_a_wrong_row_is_named(row, sentence, folder):
    (folder / "notes.txt").write_text("")
    (folder / "t.csv").write_text(f"path,subject,modality,split\nraw/s_01.nii.gz,1,,test\n{row}\n")
    with pytest.raises(UserError, match=sentence):
        build(data_of(folder).model_copy(update={"table": "t.csv"}), folder)


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("file,subject", r"t.csv has no column `path` in its first line: name the columns there"),
        ("path,subjct", r"t.csv has a column `subjct`: call it subject if it is that"),
    ],
)
def test_a_wrong_column_is_named(header, sentence, folder):
    (folder / "t.csv").write_text(f"{header}\nraw/s_01.nii.gz,1\n")
    with pytest.raises(UserError, match=sentence):
        build(data_of(folder).model_copy(update={"table": "t.csv"}), folder)


def test_a_scan_may_be_sampled_more_often(folder):
    dataset = data_of(folder).model_copy(update={"table": "t.csv"})
    (folder / "t.csv").write_text("path,sampling_weight\nraw/s_01.nii.gz,2.5\nraw/s_02.nii.gz,\n")
    heavy = dataset.roots[0].model_copy(update={"weight": 4.0})
    scans = by_name(folder, build(dataset.model_copy(update={"roots": (heavy,)}), folder))
    assert "sampling_weight" not in scans["s_01.nii.gz"].targets
    assert scans.pop("s_01.nii.gz").weight == 10
    assert {scan.weight for scan in scans.values()} == {4}
    for wrong in ("-1", "much", "inf"):
        (folder / "t.csv").write_text(f"path,sampling_weight\nraw/s_01.nii.gz,{wrong}\n")
        with pytest.raises(UserError, match="row 1 has a sampling_weight that is no number from 0"):
            build(dataset, folder)


def test_a_row_of_a_folder_speaks_for_all_scans_in_it(folder, brain):
    save_nifti(folder / "raw" / "ann" / "x_11.nii", with_noise(brain, 70), brain.affine)
    save_nifti(folder / "raw" / "ann" / "x_12.nii", with_noise(brain, 71), brain.affine)
    (folder / "t.csv").write_text("path,subject\nraw/ann,ann\n")
    inventory = build(data_of(folder).model_copy(update={"table": "t.csv"}), folder)
    assert [subject_name(folder, scan) for scan in inventory.scans] == [
        "ann",
        "ann",
        "1",
        "1",
        "2",
        "2",
        "3",
        "3",
    ]


def test_a_declared_target_must_be_a_column(tmp_path):
    (tmp_path / "t.csv").write_text("path,age\n")
    with pytest.raises(UserError, match=r"data.targets has agee, .*: did you mean age\?"):
        read_table(tmp_path / "t.csv", ["agee"])


@pytest.mark.parametrize("is_folder_named", [False, True])
@pytest.mark.parametrize("links", ["table", "root", "file"])
def test_a_row_finds_its_scan_by_whatever_links_either_is_named(links, is_folder_named, tmp_path):
    real, link = tmp_path / "real/scans", tmp_path / "raw/link"
    real.mkdir(parents=True)
    (real / "s1.nii").touch()
    link.parent.mkdir()
    link.symlink_to(real)
    (tmp_path / "s1.nii").symlink_to(real / "s1.nii")
    of_row, of_scan = {
        "table": (link / "s1.nii", real / "s1.nii"),
        "root": (real / "s1.nii", link / "s1.nii"),
        "file": (tmp_path / "s1.nii", real / "s1.nii"),
    }[links]
    if is_folder_named and links != "file":
        of_row = of_row.parent
    row = TableRow(1, of_row, {}, {})
    assert RowLookup([row]).find(of_scan) is row
    assert RowLookup([row]).find(tmp_path / "other/s1.nii") is None


def read(folder, name, content):
    """The subjects and the column `grade` of a table of two scans."""
    for scan in "ab":
        (folder / scan).touch()
    if isinstance(content, dict):
        pq.write_table(pa.table({"path": ["a", "b "], **content}), folder / name)
    else:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return [(row.get("subject"), row.get("grade")) for row in read_table(folder / name)]


def test_csv_and_parquet_give_the_same_words(tmp_path):
    from_csv = read(tmp_path, "t.csv", "path,subject,grade\na, 7.0,0.0\nb,s2  ,n/a\n")
    assert from_csv == [("7", "0"), ("s2", "")]
    padded = {"subject": ["7", "s2  "], "grade": [0.0, None]}
    assert read(tmp_path, "t.parquet", padded) == from_csv
    numbers = {"subject": [7.0, float("nan")], "grade": [True, None]}
    assert read(tmp_path, "t.parquet", numbers) == [("7", "True"), ("", "")]
    vectors = {"subject": ["7", "8"], "grade": [[0.5, -2.0, 1 / 3], None]}
    assert read(tmp_path, "t.parquet", vectors) == [("7", "0.5 -2 0.333333"), ("8", "")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_table_of_any_spreadsheet_is_read(delimiter, encoding, tmp_path):
    text = 'path,subject,grade\r\na,Müller,"1"\r\nb,2,\r\n,,\r\n'.replace(",", delimiter)
    assert read(tmp_path, "t.csv", text.encode(encoding)) == [("Müller", "1"), ("2", "")]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("t.csv", "path,subject\na,Müller\n".encode("cp1252"), "t.csv is no text in UTF-8"),
        ("t.xlsx", b"PK\x03\x04", "t.xlsx is an Excel workbook"),
        ("t.csv.gz", b"\x1f\x8b", "t.csv.gz is compressed by gzip"),
        ("t.parquet", b"PAR1 torn", "t.parquet is torn or no Parquet table"),
        ("t.csv", "path,subject\na,Doe, Jane\n", "row 1 has 3 cells, and the first line names 2"),
        ("t.csv", "path,subject,grade\na,1\n", "row 1 has 2 cells, and the first line names 3"),
        ("t.csv", 'path,subject\na,"1\nb,2\n', "line 3 is no line of a CSV table"),
        ("t.csv", "path,subject,subject\na,1,2\n", "has two columns `subject`"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_in_one_sentence(name, content, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        read(tmp_path, name, content)


def test_scans_whose_subject_is_missing_are_not_one_person(folder):
    (folder / "t.csv").write_text(
        "path,subject\nraw/s_01.nii.gz,n/a\nraw/s_02.nii.gz,N/A\nraw/s_03.nii.gz,NaN\n"
    )
    data = data_of(folder, subject=None).model_copy(update={"table": "t.csv"})
    assert {(scan.subject, scan.split) for scan in build(data, folder).scans} == {("", "")}


def test_an_empty_table_is_reported(folder):
    (folder / "t.csv").write_text("path,subject\n")
    with pytest.raises(UserError, match=r"t.csv has no rows"):
        build(Data(table="t.csv"), folder)


def test_a_number_that_a_spreadsheet_shortened_names_nobody(folder):
    (folder / "t.csv").write_text("path,subject\nraw/s_01.nii.gz,1.23457E+12\n")
    with pytest.raises(UserError, match="row 1 has a subject that a spreadsheet has shortened"):
        read_table(folder / "t.csv")


def test_subjects_that_are_called_nearly_alike_are_told(folder):
    rows = "raw/s_01.nii.gz,7\nraw/s_02.nii.gz,007\nraw/s_03.nii.gz,Ann\nraw/s_04.nii.gz,ann\n"
    (folder / "t.csv").write_text(f"path,subject\n{rows}")
    data = data_of(folder, subject=None).model_copy(update={"table": "t.csv"})
    scans = by_name(folder, build(data, folder))
    assert scans["s_02.nii.gz"].reason == (
        f"its subject is called as that of {scans['s_01.nii.gz'].id}, but for letter case or"
        " leading zeros: write one person in one way"
    )
    assert "letter case" in scans["s_04.nii.gz"].reason
    assert scans["s_01.nii.gz"].reason == scans["s_05.nii.gz"].reason == ""
