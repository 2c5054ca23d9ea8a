"""Findings of reports by a lexicon, with negation."""

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes.findings import DEFAULT_LEXICON, FindingRules, as_codes, read_lexicon

RULES = FindingRules(DEFAULT_LEXICON)


@pytest.mark.parametrize(
    ("report", "finding", "found"),
    [
        ("Small left pleural effusion.", "effusion", True),
        ("No pleural effusion.", "effusion", False),
        ("There is NO EVIDENCE OF\neffusion.", "effusion", False),
        ("No effusion, pneumothorax or nodule.", "nodule", False),
        ("No fracture but a large effusion.", "effusion", True),
        ("No fracture. Effusion on the left.", "effusion", True),
        ("Heart size normal\nEffusion on the left\nNo mass", "effusion", True),
        ("No increase of the effusion.", "effusion", True),
        ("Effusions are absent.", "effusion", False),
        ("A nodule is unlikely.", "nodule", False),
        ("No effusion on the left. Effusion on the right.", "effusion", True),
        ("No change since the last examination, one day ago in the emergency room: nodule.",
         "nodule", True),
        ("No abnormality of the heart or of the great vessels; mass", "mass", True),
        ("no a b c d e mass", "mass", False),
        ("no a b c d e f mass", "mass", True),
        ("No mass\nEffusion on the left", "effusion", True),
        ("No mass\n- effusion on the left", "effusion", True),
        ("1. No mass\n2. effusion", "effusion", True),
        ("No mass\r\n\r\neffusion", "effusion", True),
        ("Without\nmass or\n effusion", "effusion", False),
        ("Pleural effusion: none. Mass: no", "effusion", False),
        ("Pleural effusion: none. Mass: no", "mass", False),
        ("Effusion: small. Mass: absent", "effusion", True),
        ("IMPRESSION: no effusion", "effusion", False),
        ("No previous examination: effusion", "effusion", True),
        ("Massive cardiomegaly.", "mass", None),
        ("Normal chest.", "effusion", None),
        ("", "effusion", None),
    ],
)  # fmt: skip
def test_a_finding_is_asserted_denied_or_not_mentioned(report, finding, found):
    assert RULES.find(report)[finding] is found


def test_a_lexicon_of_the_user_is_in_any_language(tmp_path):
    path = tmp_path / "words.yaml"
    path.write_text(
        "findings: {erguss: ['pleuraerg*', erguss]}\nnegation_before: [kein, keine, ohne]\n"
    )
    rules = FindingRules(read_lexicon(path))
    assert rules.find("Kein Pleuraerguss.") == {"erguss": False}
    assert rules.find("Erguss links, no change.") == {"erguss": True}
    assert as_codes({"a": True, "b": False, "c": None}) == {"a": "1", "b": "0", "c": ""}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("findings: {}", "words.yaml: findings"),
        ("findings: {Left Lung: [lung]}", "write a code of small letters"),
        ("finding: {mass: [mass]}", "findings is missing: add it"),
    ],
)
def test_a_lexicon_that_cannot_be_used_is_refused(content, sentence, tmp_path):
    (tmp_path / "words.yaml").write_text(content)
    with pytest.raises(UserError, match=sentence):
        read_lexicon(tmp_path / "words.yaml")
