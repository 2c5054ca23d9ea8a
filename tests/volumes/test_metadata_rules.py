"""Rules, splits and paths: their values, and the message where they fail."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes.config import Data, LabelSource, Root, resolve_path
from ssl_pipeline.volumes.metadata_rules import Fractions, Rule, split_of_draw, uniform_draw

PAIRS = Rule(pattern=r"scan_(?P<id>\d+)", expression="(id + 1) // 2")


@pytest.mark.parametrize(
    ("name", "subject"), [("scan_001.nii", "1"), ("scan_002.nii", "1"), ("a/scan_117.nii", "59")]
)
def test_both_sides_of_a_subject_have_one_name(name, subject):
    assert PAIRS.value(name, None, "ab12") == subject


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (None, "007"),
        ("id", "7"),
        ("id % 2", "1"),
        ("'left' if id % 2 == 1 else 'right'", "left"),
        ("id > 5", "True"),
        ("'s' + str(id)", "s7"),
        ("-id * 1.5", "-10.5"),
    ],
)
def test_expressions(expression, value):
    rule = Rule(pattern=r"(?P<id>\d+)", expression=expression)
    assert rule.value("x007.nii", None, "ab12") == value


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "id.real",
        "id ** 9",
        "[id]",
        "open(id)",
        "(lambda: id)()",
        "id if",
        "1 < id < 3",
        "str(id, id)",
    ],
)
def test_anything_but_a_sum_is_refused(expression):
    with pytest.raises(ValidationError, match=r"expression|may hold"):
        Rule(pattern=r"(?P<id>\d+)", expression=expression)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({}, "one of `column`, `pattern` and `header`"),
        ({"column": "a", "pattern": "(?P<b>c)"}, "one of `column`, `pattern` and `header`"),
        ({"column": "a", "expression": "a"}, "needs a `pattern`"),
        ({"pattern": "(?P<a"}, "not a regular expression"),
        ({"pattern": "abc"}, "needs one named group"),
        ({"pattern": "(?P<a>.)(?P<b>.)"}, "needs one named group"),
        ({"pattern": "(?P<a>.)", "expression": "b"}, "uses b, which .* does not name"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_at_once(keys, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Rule(**keys)


def test_a_pattern_that_does_not_match_names_scan_and_pattern():
    with pytest.raises(UserError, match=r"^Scan ab12: the pattern `scan_.*does not match"):
        PAIRS.value("odd.nii", None, "ab12")


def test_an_expression_that_fails_names_the_scan():
    rule = Rule(pattern=r"(?P<id>\w+)", expression="id // 2")
    with pytest.raises(
        UserError, match=r"^Scan ab12: the expression `id // 2` .*; id is no number there"
    ):
        rule.value("abc.nii", None, "ab12")


def test_a_column():
    rule = Rule(column="who")
    assert rule.value("x", {"who": "ann"}, "ab12") == "ann"
    assert rule.value("x", None, "ab12") == ""
    with pytest.raises(UserError, match=r"no column `who`; its columns are path, subject"):
        rule.value("x", {"path": "x", "subject": ""}, "ab12")


def split_of(name, fractions, seed=0):
    return split_of_draw(uniform_draw(name, seed), fractions)


@given(st.text(), st.integers(0, 9))
def test_a_draw_depends_on_name_and_seed_alone(name, seed):
    assert uniform_draw(name, seed) == uniform_draw(name, seed)
    assert 0 <= uniform_draw(name, seed) < 1
    assert uniform_draw(name, seed) != uniform_draw(name, seed + 1)


def test_fractions_are_met_and_the_seed_matters():
    names = [f"s{number}" for number in range(4000)]
    splits = [split_of(name, Fractions(val=0.1, test=0.3)) for name in names]
    assert splits.count("test") == pytest.approx(1200, abs=100)
    assert splits.count("val") == pytest.approx(400, abs=70)
    assert splits != [split_of(name, Fractions(val=0.1, test=0.3), 1) for name in names]


@given(st.floats(0, 1, exclude_max=True))
def test_a_larger_test_share_moves_nobody_out_of_it(draw):
    small, large = Fractions(val=0.1, test=0.2), Fractions(val=0.1, test=0.4)
    assert split_of_draw(draw, small) != "test" or split_of_draw(draw, large) == "test"


def test_fractions_leave_somebody_to_train_on():
    with pytest.raises(ValidationError, match="less than 1"):
        Fractions(val=0.5, test=0.5)


def test_paths_are_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("SCANS", str(tmp_path))
    assert resolve_path("$SCANS/a/../b") == tmp_path / "b"
    assert resolve_path("${SCANS}/b", Path("else")) == tmp_path / "b"
    assert resolve_path("~/b") == Path.home() / "b"
    assert resolve_path("b", tmp_path) == tmp_path / "b"


def test_an_unset_variable_is_named(monkeypatch):
    monkeypatch.delenv("SCANS", raising=False)
    with pytest.raises(UserError, match="environment variable SCANS, which is not set"):
        resolve_path("$SCANS/a")


def test_two_roots_of_one_name_are_refused():
    with pytest.raises(ValidationError, match="two roots, or one and the table, are called images"):
        Data(roots=(Root(path="a/images"), Root(path="b/images")))
    assert Data(roots=(Root(path="a/images"), Root(path="b/images", name="b"))).roots
    with pytest.raises(ValidationError, match="two roots, or one and the table, are called images"):
        Data(roots=(Root(path="a/images"),), table="tables/images.csv")


@pytest.mark.parametrize("name", ["site", "root", "split", "", "\u200b", "dose\n"])
def test_a_target_has_a_name_that_is_visible_and_its_own(name):
    rule = {"pattern": "(?P<id>x)"}
    with pytest.raises(ValidationError, match="targets has"):
        Root.model_validate({"path": "a", "targets": {name: rule}})
    with pytest.raises(ValidationError, match="targets has"):
        Data.model_validate({"table": "b.csv", "targets": [name]})
    assert Root.model_validate({"path": "a", "targets": {"Leukocytes [/µl]": rule}}).targets


def test_a_label_has_a_visible_name_that_is_no_place_of_crops():
    source = {"path": "b"}
    for name in ("", " brain", "volume", "foreground"):
        with pytest.raises(ValidationError, match="labels has"):
            Root.model_validate({"path": "a", "labels": {name: source}})
    mask = {"labels": {"foreground": source}, "masks": {"foreground": "foreground"}}
    assert Root.model_validate({"path": "a", **mask}).labels


def test_a_label_pattern_names_its_image():
    with pytest.raises(ValidationError, match=r"must be built of {folder}, {stem}"):
        LabelSource(path="x", pattern="{case}")
    assert LabelSource(path="x", pattern="{case}", image_pattern="(?P<case>.*)_0000").pattern
