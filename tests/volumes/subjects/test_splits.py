"""Splits of subjects, and grouping of scans by subject."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes.config import Root, Splits
from ssl_pipeline.volumes.discovery import Candidate
from ssl_pipeline.volumes.metadata_rules import Fractions
from ssl_pipeline.volumes.pseudonyms import coder
from ssl_pipeline.volumes.readers import Source
from ssl_pipeline.volumes.review import Decisions, pair_sha256
from ssl_pipeline.volumes.subjects.groups import SubjectGroup, group_subjects
from ssl_pipeline.volumes.subjects.splits import assign_splits, read_subject_list
from tests.volumes.inventory_helpers import (
    build,
    by_name,
    by_person,
    data_of,
    of_people,
    pseudonyms_of,
    subject_name,
    with_noise,
)
from tests.volumes.volume_writers import save_dicom, save_itk, save_nifti


def test_lists_beat_fractions_and_hold_nobody_else(folder):
    (folder / "test.txt").write_text("# held out\n2\n\n3  # as published\n")
    data = data_of(folder, {"lists": {"test": "test.txt"}, "fractions": {"val": 0, "test": 0.9}})
    splits = {subject_name(folder, scan): scan.split for scan in build(data, folder).scans}
    assert splits == {"1": "train", "2": "test", "3": "test"}


def test_who_is_on_no_list_is_in_no_split_that_has_one(folder):
    (folder / "train.txt").write_text("1\n")
    data = data_of(folder, {"lists": {"train": "train.txt"}, "fractions": {"val": 0, "test": 0}})
    splits = {subject_name(folder, scan): scan.split for scan in build(data, folder).scans}
    assert splits == {"1": "train", "2": "", "3": ""}


def test_the_table_beats_a_list_for_all_scans_of_a_subject(folder):
    (folder / "test.txt").write_text("1\n2\n")
    (folder / "t.csv").write_text("path,split\nraw/s_01.nii.gz,train\n")
    data = data_of(folder, {"lists": {"test": "test.txt"}}).model_copy(update={"table": "t.csv"})
    scans = by_name(folder, build(data, folder))
    assert scans["s_01.nii.gz"].split == scans["s_02.nii.gz"].split == "train"
    assert scans["s_03.nii.gz"].split == "test"


@pytest.mark.parametrize(
    ("test", "val", "sentence"),
    [
        ("1\n", "# one\n1\n", "the subject of .*val.txt, line 2, is in the list of test too"),
        (
            "1\n",
            "77\n",
            r"lists.val: 1 of 1 subjects of .*val.txt are not among the scans \(line 1\)",
        ),
        ("1\n01\n# x\n03\n", "2\n", r"lists.test: 2 of 3 subjects of .* \(line 2, 4\)"),
        ("# nobody\n", "2\n", r"lists.test: 0 of 0 subjects of .* \(line none\)"),
        ("1\n", None, "there is no file .*val.txt"),
    ],
)
def test_lists_that_cannot_be_meant(test, val, sentence, folder):
    (folder / "test.txt").write_text(test)
    if val:
        (folder / "val.txt").write_text(val)
    data = data_of(folder, {"lists": {"test": "test.txt", "val": "val.txt"}})
    with pytest.raises(UserError, match=sentence):
        build(data, folder)


@pytest.mark.parametrize(
    "content",
    [
        "P#1\r\nMüller\r\n008 # as published\r\n".encode("utf-8-sig"),
        "P#1\n\u200bMu\u0308ller \n008\u00a0\n".encode(),
        "#\t1\nMüller\nP#1\n8.0 # as published\n008".encode("utf-16"),
    ],
)
def test_a_list_names_the_same_subjects_whatever_program_saved_it(content, tmp_path):
    (tmp_path / "test.txt").write_bytes(content)
    names = {"P#1", "Müller", "008", "8", "P"}
    listed = read_subject_list(tmp_path / "test.txt", names)
    assert {"P#1", "Müller", "008"} <= listed.keys() <= names - {"P"}


def test_without_a_subject_there_is_no_split(folder):
    inventory = build(data_of(folder, subject=None), folder)
    assert {(scan.subject, scan.split) for scan in inventory.scans} == {("", "")}


# subjects under several names


def test_scans_that_show_different_things_are_different_subjects(people):
    scans = build(of_people(people), people.folder).scans
    assert len({scan.subject for scan in scans}) == 4
    assert not any(scan.reason for scan in scans)


def test_a_changed_copy_under_another_name_is_the_same_subject(people):
    alone = by_person(people, build(of_people(people, seed=3), people.folder))
    people.add("p_zoe", 2)
    scans = by_person(people, build(of_people(people, seed=3), people.folder))
    zoe, two = scans["zoe"], scans["2"]
    assert (zoe.subject, zoe.split) == (two.subject, two.split)
    assert zoe.quality == "accepted"
    assert zoe.reason == (
        f"near-duplicate of {two.id}; shares a scanner's visit, voxels or a copy with subject"
        f" {two.subject}, and counts as theirs"
    )
    others = [name for name in alone if name != "2"]
    assert [scans[name].split for name in others] == [alone[name].split for name in others]


def test_equal_voxels_under_another_name_are_the_same_subject(people):
    save_itk(people.folder / "raw" / "p_zoe" / "scan.nrrd", people.parts[1], people.affine)
    scans = by_person(people, build(of_people(people, duplicate_threshold=None), people.folder))
    assert scans["zoe"].subject == scans["1"].subject
    assert scans["zoe"].reason == f"duplicate of {scans['1'].id}: their voxels are equal"


def test_a_published_test_set_stays_and_its_copies_are_not_learned_from(people):
    people.add("p_zoe", 2)
    (people.folder / "test.txt").write_text("2\n")
    (people.folder / "train.txt").write_text("0\nzoe\n")
    lists = {"test": "test.txt", "train": "train.txt"}
    scans = by_person(people, build(of_people(people, lists=lists), people.folder))
    assert (scans["2"].quality, scans["2"].split) == ("accepted", "test")
    assert scans["zoe"].quality == "rejected"
    assert scans["zoe"].reason.startswith("is named for train, and shares")
    assert scans["0"].split == "train"


def test_a_copy_without_a_name_joins_the_subject_that_it_shows(people):
    people.add("nobody", 3)
    (people.folder / "t.csv").write_text(
        "path,subject,split\n" + "".join(f"raw/p_{n},{n},test\n" for n in range(4))
    )
    data = data_of(people.folder, {"duplicate_threshold": 1.4}, subject=None)
    scans = by_person(people, build(data.model_copy(update={"table": "t.csv"}), people.folder))
    assert (scans[""].subject, scans[""].split) == (scans["3"].subject, "test")


def save_visits(people, *visits):
    """A series of each part: of (folder, patient, visit)."""
    for number, (name, patient, visit) in enumerate(visits):
        save_dicom(
            people.folder / "raw" / name,
            people.parts[number % 4] + number,
            people.affine,
            PatientID=patient,
            StudyInstanceUID=visit,
        )
    data = data_of(people.folder, subject={"header": "PatientID"}, include="d*")
    return build(data, people.folder).scans


VISITS = [
    ("d1", "Ann", "1.2.3"),
    ("d2", "Ann", "1.2.4"),
    ("d3", "Cy", "1.2.4"),
    ("d4", "", "1.2.5"),
]


def test_a_header_may_say_whose_it_is_and_one_visit_is_one_subject(people):
    scans = save_visits(people, *VISITS)
    assert [subject_name(people.folder, scan) for scan in scans] == ["Ann", "Ann", "Cy", ""]
    assert len({scan.subject for scan in scans[:3]}) == 1
    assert (scans[3].subject, scans[3].split) == ("", "")


def told_apart(*pairs):
    """The decisions of readers that scans of these pairs show two people."""
    return Decisions(
        distinct_pairs={
            frozenset(scan.id for scan in pair): pair_sha256(scan.sha256 for scan in pair)
            for pair in pairs
        }
    )


def test_two_names_of_one_visit_are_two_subjects_where_a_reader_says_so(people):
    ann, second, cy, _ = save_visits(people, *VISITS)
    assert (cy.visit_of, ann.visit_of, second.visit_of) == (second.id, "", "")
    data = data_of(people.folder, subject={"header": "PatientID"}, include="d*")
    wrong = told_apart((ann, cy))
    for decisions, subjects in ((told_apart((second, cy)), 2), (wrong, 1)):
        after = build(data, people.folder, decisions=decisions).scans
        assert len({scan.subject for scan in after[:3]}) == subjects
        assert after[0].subject == after[1].subject
        assert after[2].visit_of == second.id, "it is asked as before"


def test_three_names_of_one_visit_come_apart_once_no_pair_joins_them(people):
    one, two, three = save_visits(people, *((f"d{name}", name, "1.2.3") for name in "abc"))
    assert len({scan.subject for scan in (one, two, three)}) == 1
    data = data_of(people.folder, subject={"header": "PatientID"}, include="d*")
    first = build(data, people.folder, decisions=told_apart((one, three))).scans
    assert len({scan.subject for scan in first}) == 1 and first[2].visit_of == two.id
    both = told_apart((one, three), (two, three))
    assert [scan.subject for scan in build(data, people.folder, decisions=both).scans] == [
        one.subject, one.subject, people_code(people, "c"),
    ]  # fmt: skip


def people_code(people, name):
    return pseudonyms_of(people.folder).code("subject", name)


def test_a_constant_that_an_anonymiser_wrote_is_no_visit(people):
    scans = save_visits(people, *((f"d{name}", name, "1.2.3") for name in "abcd"))
    assert len({scan.subject for scan in scans}) == 4
    assert scans[0].reason.startswith(
        "4 subjects share its StudyInstanceUID, which therefore is no visit and joins none of them"
    )
    assert {scan.visit for scan in scans} == {""}


def test_a_constant_uid_does_not_overrule_the_subjects_of_the_study(people):
    for number in range(4):
        save_dicom(
            people.folder / "raw" / f"d{number}",
            people.parts[number] + number,
            people.affine,
            PatientID="ANON",
            StudyInstanceUID="1.2.3",
        )
    rule = {"pattern": "(?P<patient>[^/]+)"}
    scans = build(data_of(people.folder, subject=rule, include="d*"), people.folder).scans
    assert len({scan.subject for scan in scans}) == 4


links = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)))


@given(links)
def test_groups_are_what_links_connect(pairs):
    scan = Candidate(Source(Path("x")), Root(path="x"), "x", None, {}, coder(b""))
    groups = group_subjects([scan] * 20, [""] * 20, pairs)
    graph = coo_matrix((np.ones(len(pairs)), tuple(np.array(pairs).reshape(-1, 2).T)), (20, 20))
    count, label = connected_components(graph, directed=False)
    assert len(groups) == count
    assert all(len(set(label[list(group.members)])) == 1 for group in groups)
    assert sorted(at for group in groups for at in group.members) == list(range(20))


def groups_of(names):
    return [SubjectGroup((at,), (name,)) for at, name in enumerate(names)]


strata_of = st.lists(st.sampled_from("abc"), min_size=1, max_size=60)


@given(strata_of, st.integers(0, 5))
def test_in_each_stratum_the_fractions_are_met_to_a_subject(strata, seed):
    fractions = Fractions(val=0.2, test=0.3)
    splits = Splits(stratify=("site",), fractions=fractions, seed=seed)
    names = [f"s{number}" for number in range(len(strata))]
    dealt = assign_splits(groups_of(names), {}, splits, strata, [None] * len(names))
    for stratum in set(strata):
        own = [split for split, of in zip(dealt, strata, strict=True) if of == stratum]
        assert abs(own.count("test") - 0.3 * len(own)) < 2
        assert abs(own.count("val") - 0.2 * len(own)) < 2


@given(strata_of, strata_of)
def test_who_was_dealt_a_split_keeps_it_when_others_come(first, more):
    splits = Splits(stratify=("site",))
    names = [f"s{number}" for number in range(len(first) + len(more))]
    before = assign_splits(groups_of(names[: len(first)]), {}, splits, first, [None] * len(first))
    known = [*before, *[None] * len(more)]
    after = assign_splits(groups_of(names), {}, splits, first + more, known)
    assert after[: len(first)] == before
    for stratum in set(more):
        own = [s for s, of in zip(after, first + more, strict=True) if of == stratum]
        assert abs(own.count("test") - 0.2 * len(own)) < 2


def test_who_was_dealt_nothing_for_a_list_is_not_dealt_again():
    lists = Splits(stratify=("site",), lists={"train": "train.txt"})
    groups, named = groups_of([str(number) for number in range(200)]), {"0": "train", "1": "train"}
    first = assign_splits(groups, named, lists, ["a"] * 200, [None] * 200)
    assert first.count("") > 100
    assert assign_splits(groups, named, lists, ["a"] * 200, first) == first


def test_strata_are_what_scans_are(folder, brain):
    for number in range(7, 41):
        save_nifti(folder / "raw" / f"s_{number:02}.nii", with_noise(brain, number), brain.affine)
    side = {"pattern": r"_(?P<id>\d+)", "expression": "(id + 1) // 2 % 2"}
    data = data_of(folder, {"stratify": ["side"]}, targets={"side": side})
    inventory = build(data, folder)
    for value in "01":
        people = {s.subject: s.split for s in inventory.scans if s.targets["side"] == value}
        assert abs(list(people.values()).count("test") - 2) <= 1
    for number in range(41, 47):
        save_nifti(folder / "raw" / f"a_{number:02}.nii", with_noise(brain, number), brain.affine)
    later = {scan.id: scan.split for scan in build(data, folder, inventory).scans}
    assert all(later[scan.id] == scan.split for scan in inventory.scans)
    with pytest.raises(UserError, match=r"stratify: no scan has `sides`. did you mean side"):
        build(data_of(folder, {"stratify": ["sides"]}, targets={"side": side}), folder)
    with pytest.raises(UserError, match=r"stratify: no scan has `site`. did you mean side"):
        build(data_of(folder, {"stratify": ["site"]}, targets={"side": side}), folder)


def test_who_had_no_name_is_dealt_a_split_when_one_is_given(folder):
    nameless = build(data_of(folder, {"stratify": ["root"]}, subject=None), folder)
    assert {scan.split for scan in nameless.scans} == {""}
    named = build(data_of(folder, {"stratify": ["root"]}), folder, nameless)
    assert "" not in {scan.split for scan in named.scans}
