"""Features of whole scans that another encoder made: how they are read, and what probes score."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import PIXELS, RANDOM
from ssl_pipeline.evaluation.data.features import extract_features
from ssl_pipeline.evaluation.data.scan_features import ScanNames, read_scan_features
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.runner.probe import run_probe
from tests.evaluation.conftest import QUICK_PROBE, build_test_encoder
from tests.evaluation.test_probe import CORNER

SCANS = [
    ScanNames("aaa", "ct", "", ("/data/ct/a.nii", "a.nii")),
    ScanNames("bbb", "ct", "1.2", ("/data/ct/b", "b")),
    ScanNames("ccc", "ct", "1.3", ("/data/ct/b", "b")),
    ScanNames("ddd", "mr", "", ("/data/mr/a.nii", "a.nii")),
]


def read(tmp_path, table):
    path = tmp_path / "features.parquet"
    pq.write_table(pa.table(table), path)
    return read_scan_features("evaluate.features.merlin", path, SCANS)


@pytest.mark.parametrize(
    "names",
    [
        {"scan": ["ddd", "aaa", "bbb", "ccc"]},
        {"path": ["a.nii", "a.nii", "b", "b"], "root": ["mr", "ct", "", ""],
         "series": [None, "", "1.2", "1.3"]},
        {"path": ["/data/mr/a.nii", "/data/ct/a.nii", "/data/ct/b", "b"],
         "series": ["", "", "1.2", "1.3"]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["list", "fixed list", "columns"])
def test_rows_find_their_scans_by_code_or_path_whatever_the_columns(tmp_path, names, form):
    rows = np.arange(48, dtype=np.float32).reshape(4, 12)
    flat = pa.array(rows.ravel())
    columns = {
        "list": {"features": pa.array(rows.tolist(), pa.list_(pa.float64()))},
        "fixed list": {"features": pa.FixedSizeListArray.from_arrays(flat, 12)},
        # In the order of numbers, not of letters; and no other column is a feature.
        "columns": {f"feature_{i}": rows[:, i] for i in reversed(range(12))}
        | {"age": [1, 2, 3, 4]},
    }
    found = read(tmp_path, {**names, **columns[form]})
    for scan, row in zip(("ddd", "aaa", "bbb", "ccc"), rows, strict=True):
        assert found.vectors[scan].tolist() == row.tolist()
    found.check(["aaa", "bbb", "ccc", "ddd"], "task 'Side'")


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"scan": ["aaa", "bbb"], "features": [[1.0, 2], [1.0]]},
         "has vectors of 1 and 2 numbers, such as that of scan bbb"),
        ({"scan": ["aaa", "bbb"], "features": [[1.0, np.nan], [1.0, 2]]},
         "has numbers that are not finite, for 1 scan, such as aaa"),
        ({"scan": ["aaa"], "feature_0": [np.inf]}, "not finite, for 1 scan, such as aaa"),
        ({"scan": ["aaa"], "feature_0": [1.0], "feature_1": [None]}, "not finite, for 1 scan"),
        ({"path": ["/data/ct/a.nii", "x", "/data/ct/a.nii"], "features": [[1.0]] * 3},
         "has two rows of scan aaa, 1 and 3: keep one"),
        ({"path": ["a.nii"], "features": [[1.0]]}, "names 2 scans by one path in row 1: add a col"),
        ({"path": ["b"], "features": [[1.0]]}, "`root` or `series`, or name scans by code"),
        ({"name": ["aaa"], "features": [[1.0]]}, "has neither a column `scan` nor `path`"),
        ({"scan": ["aaa"], "vector": [[1.0]]}, "nor columns feature_0, feature_1 and so on"),
        ({"scan": ["aaa"], "features": [["x"]]}, "has features that are no numbers"),
        ({"scan": ["aaa"], "features": [1.0]}, "has features that are no numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_sentence(tmp_path, table, sentence):
    with pytest.raises(UserError) as error:
        read(tmp_path, table)
    assert str(error.value).startswith("evaluate.features.merlin ")
    assert sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("content", "sentence"), [(None, "no file is"), (b"x", "no Parquet file")])
def test_a_file_that_is_no_table_is_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "features.parquet"
    if content:
        path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read_scan_features("evaluate.features.merlin", path, SCANS)


def test_a_row_without_any_number_has_failed(tmp_path):
    table = {"scan": ["aaa", "bbb"], "feature_0": [1.0, None], "feature_1": [2.0, None]}
    assert read(tmp_path, table).vectors.keys() == {"aaa"}


def test_missing_scans_are_counted_with_the_rows_that_name_none(tmp_path):
    """A row that failed has no vector, and those of other scans do no harm."""
    table = {
        "path": ["b", "nobody.nii", "other.nii", "b"],
        "series": ["1.2", "", "", "1.3"],
        "features": [[1.0], [2.0], [3.0], []],
        "error": ["", "", "", "cannot be read"],
    }
    found = read(tmp_path, table)
    found.check(["bbb"], "task 'Side'")
    with pytest.raises(UserError) as error:
        found.check(["aaa", "bbb", "ccc", "ddd"], "task 'Side'")
    assert "lacks 3 of 4 scans of task 'Side', such as aaa, ccc, ddd" in str(error.value)
    assert "2 rows of it name no scan of the study, the first is row 2" in str(error.value)


def test_rows_of_vectors_equal_those_of_the_encoder_that_made_them(planted, tmp_path):
    """To the last digit, in all probes, and so their difference is 0."""
    context = planted.context(tmp_path / "inner")
    cells = CORNER.probe_cells(TaskRunner(CORNER, context))
    crops = [*cells.train_crops, *cells.test_crops]
    encoder = build_test_encoder("pretrained", 0)
    vectors = extract_features(encoder, cells.crop_batches(crops, 32), "cpu")[:, 0]
    path = tmp_path / "features.parquet"
    pq.write_table(
        pa.table({"scan": [crop.scan for crop in crops], "features": list(vectors)}), path
    )
    names = [ScanNames(entry.id, entry.root, "", ()) for entry in planted.catalog.entries]
    features = read_scan_features("evaluate.features.twin", path, names)
    results = run_probe(
        CORNER,
        QUICK_PROBE,
        planted.context(
            tmp_path / "out",
            initializations={
                "pretrained": "of a test", "twin": "of a file", RANDOM: "of all tests", PIXELS: "",
            },
            scan_features={"twin": features},
        ),
    )  # fmt: skip
    own, twin = (
        [row.model_copy(update={"initialization": ""}) for row in results.rows
         if row.initialization == name]
        for name in ("pretrained", "twin")
    )  # fmt: skip
    assert len(own) == 4 and own == twin
    between = [
        d for d in results.differences if (d.initialization, d.against) == ("twin", "pretrained")
    ]
    assert len(between) == 4
    assert all((d.mean, d.low, d.high) == (0, 0, 0) for d in between)
    assert any(note.startswith("twin: vectors of whole scans") for note in results.notes)
