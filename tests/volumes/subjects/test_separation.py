"""A deleted or excluded copy takes the join of two names with it, which is reported."""

from dataclasses import replace

from ssl_pipeline.volumes.subjects.separation import separated_subjects
from tests.volumes.inventory_helpers import build, by_person, of_people

COPY, SEED = "00zoe", 4  # a name, and a seed by which it and the original's call for two splits


def test_people_who_come_apart_are_told_where_their_splits_differ(people):
    file = people.add(f"p_{COPY}", 2)
    other = people.add(f"p_{COPY}", 3, "other.nii")
    own = people.folder / "raw/p_3/scan.nii.gz"
    own.rename(people.folder / "own.nii.gz")  # so that only the copy of 2 joins anybody
    data = of_people(people, seed=SEED)
    before = build(data, people.folder)
    assert by_person(people, before)["2"].subject == by_person(people, before)[COPY].subject
    assert list(separated_subjects(before, before)) == []
    file.unlink()
    after = build(data, people.folder, before)
    ((one, two),) = separated_subjects(before, after)
    assert {one.id, two.id} == {by_person(people, after)[name].id for name in ("2", COPY)}
    assert one.split != two.split and other.exists()
    together = [replace(scan, split="test") for scan in after.scans]
    assert list(separated_subjects(before, replace(after, scans=tuple(together)))) == []
