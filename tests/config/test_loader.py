"""Reading of YAML: words stay words, keys are given once, empty sections are defaults."""

import pytest

from ssl_pipeline.config.loader import parse_section, read_mapping
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.config import Evaluate
from ssl_pipeline.evaluation.tasks import Classification


@pytest.fixture
def read(tmp_path):
    def reader(text):
        path = tmp_path / "study.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_mapping(path)

    return reader


def test_words_and_numbers_are_read_as_they_stand(read):
    text = "{no: off, steps: 010, time: 1:30, day: 2020-01-02, rate: 1e-4, n: -3, x: .5, on: true}"
    assert read(text) == {
        "no": "off", "steps": "010", "time": "1:30", "day": "2020-01-02", "rate": 1e-4, "n": -3,
        "x": 0.5, "on": True,
    }  # fmt: skip


def test_merge_keys_are_merged_and_may_be_overridden(read):
    text = "a: &a {x: 1, y: 1}\nb: &b\n  <<: *a\n  x: 2\nc:\n  d: {<<: *b, y: 3}\n"
    assert read(text)["c"] == {"d": {"x": 2, "y": 3}}


def test_a_key_with_nothing_behind_it_is_an_empty_section_and_null_is_none(read):
    assert read("evaluate:\ntable: null\n") == {"evaluate": {}, "table": None}


@pytest.mark.parametrize(
    "keys", ['{1: a, "1": b}', "{1: a, 01: b}", "{1: a, 1.0: b}", "{x: a, x: b}"]
)
def test_keys_that_mean_the_same_are_refused(keys, read):
    with pytest.raises(UserError, match=r"study.yaml, line 2: (1|01|1.0|x) is given twice"):
        read(f"name: x\nclasses: {keys}\n")


@pytest.mark.parametrize("keys", ["{true: a, false: b}", "{null: a}"])
def test_keys_that_are_no_names_are_refused(keys, read):
    with pytest.raises(UserError, match=r"a key is (true|null): put it into quotes"):
        read(f"classes: {keys}")


def test_the_words_no_and_yes_are_names_of_classes(read, tmp_path):
    content = read("{kind: classification, title: T, target: t, classes: {no: a, yes: b}}")
    task = parse_section(Classification, content, tmp_path / "study.yaml")
    assert task.classes == {"a": "no", "b": "yes"}


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("seeds: 2", "seeds is 2: it should be greater than or equal to 3 (repetitions, at least "),
        ("subjects: [1, 5 %]", "or shares such as 10%; 0 is all) (and 1 more)."),
        ("confidence: 95", "confidence is 95: it should be less than 1 (nominal coverage of int"),
        ("subjects:\n- -1", "greater than or equal to 0 (numbers of labelled training subjects"),
    ],
)
def test_a_refused_value_is_told_with_what_the_setting_is_for(text, sentence, read, tmp_path):
    with pytest.raises(UserError) as error:
        parse_section(Evaluate, read(text), tmp_path / "study.yaml")
    assert sentence in str(error.value)


def test_a_study_in_unicode_is_read_and_another_encoding_is_named(read):
    assert read("name: Müller".encode("utf-16")) == {"name": "Müller"}
    with pytest.raises(UserError, match=r"study.yaml is no text in UTF-8 \(line 1\), but cp1252"):
        read("name: Müller".encode("cp1252"))
