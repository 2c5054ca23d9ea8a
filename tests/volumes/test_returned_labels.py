"""Labels that come back: which count, what is wrong with others, and their versions."""

from dataclasses import replace

import numpy as np
import pytest

from ssl_pipeline.io.atomic import sha256_file
from ssl_pipeline.volumes.label_versions import (
    describe_label_changes,
    read_label_versions,
    record_label_changes,
)
from ssl_pipeline.volumes.quality_control import QualityThresholds
from ssl_pipeline.volumes.returned_labels import ReturnedLabel
from ssl_pipeline.volumes.review import pair_sha256
from tests.volumes.inventory_helpers import build, by_name, data_of, decide, pseudonyms_of
from tests.volumes.volume_writers import save_nifti


@pytest.fixture
def labels(folder, brain):
    """A study whose first scan has a label, the file of that label, and all scans by name."""
    own = save_nifti(folder / "seg/s_01.nii.gz", (brain.data > 5000).astype("u1"), brain.affine)
    data = data_of(folder, labels={"organ": {"path": str(folder / "seg")}})
    inventory = build(data, folder)
    return data, own, by_name(folder, inventory), inventory


@pytest.fixture
def finish(folder, brain, labels):
    """Writes a label that came back for a scan, of the classes given."""

    def finish(scan, voxels=None, affine=None, kind="finished", reader="anna", code=None):
        code = code or labels[2][scan].id
        voxels = (brain.data > 4000).astype("u1") if voxels is None else voxels
        affine = brain.affine if affine is None else affine
        name = f"{kind}-{reader}/{code}.nii.gz"
        path = save_nifti(
            folder / "back" / name, voxels, brain.affine if affine is None else affine
        )
        seen = (
            "" if kind == "finished" else pair_sha256((labels[2][scan].sha256, sha256_file(path)))
        )
        return ReturnedLabel(code, "organ", path, kind, reader, frozenset({1}), seen)

    return finish


def rebuild(folder, labels, *returned):
    inventory = build(labels[0], folder, labels[3], returned=returned)
    return inventory, by_name(folder, inventory)


def label_file(folder, scan):
    return pseudonyms_of(folder).label_path(scan.id, "organ")


def test_a_finished_label_is_preferred_to_the_own_file_and_stands_where_there_was_none(
    folder, labels, finish
):
    corrected, new = finish("s_01.nii.gz"), finish("s_02.nii.gz", reader="")
    _, scans = rebuild(folder, labels, corrected, new)
    one, two, three = (scans[f"s_0{number}.nii.gz"] for number in (1, 2, 3))
    assert label_file(folder, one) == corrected.path and label_file(folder, two) == new.path
    assert one.label_versions["organ"] == {
        "sha256": sha256_file(corrected.path), "verdict": "fits", "kind": "corrected",
        "reader": "anna",
    }  # fmt: skip
    assert two.label_versions["organ"] == {
        "sha256": sha256_file(new.path), "verdict": "fits", "kind": "given", "reader": "",
    }  # fmt: skip
    assert one.labels == two.labels == {"organ": True} and two.label_classes == {"organ": [1]}
    assert three.labels == {"organ": False} and not three.label_versions
    before = labels[2]["s_01.nii.gz"].label_versions["organ"]
    assert before["sha256"] == sha256_file(labels[1])
    assert (before["kind"], before["reader"]) == ("given", "")


def many_classes(brain):
    return (brain.data > 4000).astype("u1") * np.uint8(7)


FAULTS = {
    "another grid": (
        lambda brain: {"affine": np.diag([2.0, 2, 2, 1])},
        "label organ (finished, anna) lies in another place than the image",
    ),
    "another shape": (
        lambda brain: {"voxels": np.eye(33, 41, dtype="u1")[..., None].repeat(24, 2)},
        "label organ (finished, anna) has another shape, 33 x 41 x 24 for an image of",
    ),
    "empty": (
        lambda brain: {"voxels": np.zeros(brain.data.shape, "u1")},
        "label organ (finished, anna) is empty: correct or remove it",
    ),
    "class": (
        lambda brain: {"voxels": many_classes(brain)},
        "label organ (finished, anna) holds 7, which is no class of its task",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_finished_label_that_does_not_fit_has_a_sentence_and_the_own_file_stays(
    folder, brain, labels, finish, case
):
    options, sentence = FAULTS[case]
    inventory, scans = rebuild(folder, labels, finish("s_01.nii.gz", **options(brain)))
    scan = scans["s_01.nii.gz"]
    (fault,) = inventory.label_faults
    assert fault.scan == scan.id and fault.text.startswith(sentence)
    assert scan.reason.startswith(sentence) and scan.quality == "accepted"
    assert label_file(folder, scan) == labels[1] and scan.labels == {"organ": True}


def test_a_file_that_cannot_be_read_has_a_sentence(folder, labels, finish):
    label = finish("s_02.nii.gz")
    label.path.write_bytes(b"drawn by hand")
    inventory, scans = rebuild(folder, labels, label)
    (fault,) = inventory.label_faults
    assert fault.text.startswith(
        "label organ (finished, anna) was dropped: does not begin like a NIfTI file"
    )
    assert not scans["s_02.nii.gz"].labels.get("organ")


def test_a_class_that_the_own_file_has_may_stay(folder, brain, labels, finish):
    save_nifti(labels[1], (brain.data > 5000).astype("u1") * np.uint8(7), brain.affine)
    label = finish("s_01.nii.gz", many_classes(brain))
    inventory, scans = rebuild(folder, labels, label)
    assert not inventory.label_faults
    assert scans["s_01.nii.gz"].label_versions["organ"]["kind"] == "corrected"


def test_a_label_of_an_unknown_scan_has_a_sentence(folder, labels, finish):
    inventory, scans = rebuild(folder, labels, finish("", code="0123456789ab"))
    (fault,) = inventory.label_faults
    assert fault == (
        "0123456789ab",
        "label organ (finished, anna) is of no scan of the study: rename or remove it",
    )
    assert scans == labels[2]


def test_two_finished_labels_that_differ_are_both_left_out(folder, brain, labels, finish):
    anna = finish("s_01.nii.gz")
    ben = finish("s_01.nii.gz", (brain.data > 6000).astype("u1"), reader="ben")
    inventory, scans = rebuild(folder, labels, anna, ben)
    (fault,) = inventory.label_faults
    assert "there are 2 labels organ (finished, anna) that differ" in fault.text
    assert label_file(folder, scans["s_01.nii.gz"]) == labels[1]
    save_nifti(ben.path, (brain.data > 4000).astype("u1"), brain.affine)
    inventory, scans = rebuild(folder, labels, anna, ben)
    assert not inventory.label_faults and label_file(folder, scans["s_01.nii.gz"]) == anna.path


def test_a_prediction_is_a_label_of_training_scans_without_any_other(folder, labels, finish):
    data = labels[0]
    lists = folder / "test.txt"
    lists.write_text(f"{pseudonyms_of(folder).origins[labels[2]['s_05.nii.gz'].id].subject_name}\n")
    data = data.model_validate(
        data.model_dump() | {"splits": {"duplicate_threshold": None, "lists": {"test": str(lists)}}}
    )
    names = ("s_01.nii.gz", "s_03.nii.gz", "s_05.nii.gz", "s_04.nii.gz")
    predictions = [finish(name, kind="prediction") for name in names]
    finished = finish("s_04.nii.gz", reader="ben")
    inventory = build(data, folder, labels[3], returned=[*predictions, finished])
    scans = by_name(folder, inventory)
    assert scans["s_05.nii.gz"].split == "test" and scans["s_03.nii.gz"].split == "train"
    kinds = {
        name: scans[name].label_versions.get("organ", {}).get("kind", "none") for name in names
    }
    assert kinds == dict(zip(names, ("given", "prediction", "none", "given"), strict=True))
    assert label_file(folder, scans["s_04.nii.gz"]) == finished.path
    assert "organ" not in {name for name, fits in scans["s_05.nii.gz"].labels.items() if fits}
    assert not inventory.label_faults


def test_an_acceptance_is_void_where_scan_or_prediction_is_another(folder, brain, labels, finish):
    predictions = [finish(f"s_0{number}.nii.gz", kind="prediction") for number in (2, 3, 4)]
    predictions[0].path.unlink()
    save_nifti(predictions[1].path, (brain.data > 6000).astype("u1"), brain.affine)
    save_nifti(folder / "raw/s_04.nii.gz", brain.data, brain.affine)
    inventory, scans = rebuild(folder, labels, *predictions)
    assert {fault.text for fault in inventory.label_faults} == {
        "label organ (prediction, anna) is gone: predict again, and ask a reader again",
        "label organ (prediction, anna) or its scan was changed since: ask a reader again",
    }
    assert len(inventory.label_faults) == 3
    assert not any(scans[f"s_0{number}.nii.gz"].label_versions for number in (2, 3, 4))


def test_each_change_is_added_once_with_who_and_when(folder, labels, finish):
    path = folder / "versions.jsonl"
    first = labels[3]
    assert not record_label_changes(path, first, first) and not read_label_versions(path)
    label = finish("s_01.nii.gz")
    second, scans = rebuild(folder, labels, label, finish("s_02.nii.gz", reader=""))
    changes = record_label_changes(path, first, second)
    assert record_label_changes(path, first, second)[0].change == changes[0].change, "once more"
    assert read_label_versions(path) == changes and len(changes) == 2
    corrected, new = sorted(changes, key=lambda each: not each.before)
    assert corrected.scan == scans["s_01.nii.gz"].id and corrected.label == "organ"
    files = sha256_file(labels[1]), sha256_file(label.path)
    assert corrected.change == (*files, "corrected", "anna")
    assert (new.before, new.kind, new.reader) == ("", "given", "")
    assert describe_label_changes(changes) == (
        f"At the inventory of {new.recorded_at:%Y-%m-%d}, 2 labels had changed since the one before"
        " (1 by anna, 1 unsigned)"
    )
    record_label_changes(path, second, first)
    back = read_label_versions(path)[2:]
    assert {(each.after, each.before) for each in back} == {each.change[:2] for each in changes}
    assert oct(path.stat().st_mode)[-3:] == "600"


def test_a_label_that_is_signed_later_has_a_line_and_no_new_content(folder, labels, finish):
    path = folder / "versions.jsonl"
    unsigned = finish("s_01.nii.gz", reader="")
    first, _ = rebuild(folder, labels, unsigned)
    second, _ = rebuild(folder, labels, replace(unsigned, reader="anna"))
    (signed,) = record_label_changes(path, first, second)
    sha256 = sha256_file(unsigned.path)
    assert signed.change == (sha256, sha256, "corrected", "anna")
    record_label_changes(path, first, second)
    record_label_changes(path, second, first)
    assert [each.reader for each in read_label_versions(path)] == ["anna", ""]


def test_of_several_accepted_predictions_that_counts_which_is_still_there(folder, labels, finish):
    earlier, later = (finish("s_02.nii.gz", kind="prediction", reader=name) for name in "ab")
    earlier.path.unlink()
    for both in ((earlier, later), (later, earlier)):
        inventory, scans = rebuild(folder, labels, *both)
        assert not inventory.label_faults
        assert label_file(folder, scans["s_02.nii.gz"]) == later.path


def test_a_scan_that_is_not_used_for_a_while_keeps_its_label(folder, labels, finish):
    path, label = folder / "versions.jsonl", finish("s_01.nii.gz")
    first, scans = rebuild(folder, labels, label)
    rejected = build(
        labels[0], folder, first, decisions=decide(scans["s_01.nii.gz"], "reject"), returned=[label]
    )
    scan = by_name(folder, rejected)["s_01.nii.gz"]
    assert scan.quality == "rejected" and scan.label_versions["organ"]["kind"] == "corrected"
    strict = QualityThresholds(min_axis_voxels=30)  # the scans have 25
    unused = build(labels[0], folder, first, strict, returned=[label])
    assert not unused.accepted_scans
    for one, other in ((first, rejected), (first, unused), (unused, first)):
        assert not record_label_changes(path, one, other)


def test_a_line_that_was_torn_does_not_count_and_spoils_no_other(folder, labels, finish):
    path = folder / "versions.jsonl"
    second, _ = rebuild(folder, labels, finish("s_01.nii.gz"))
    (change,) = record_label_changes(path, labels[3], second)
    path.write_bytes(path.read_bytes()[:-20])
    assert read_label_versions(path) == []
    record_label_changes(path, labels[3], second)
    (again,) = read_label_versions(path)
    assert replace_time(again, change) == change


def replace_time(version, other):
    return version.model_copy(update={"recorded_at": other.recorded_at})


def test_a_new_scan_has_no_earlier_version(folder, labels):
    first = labels[3]
    fewer = replace(first, scans=first.scans[1:])
    assert not record_label_changes(folder / "versions.jsonl", fewer, first)
