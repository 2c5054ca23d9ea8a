"""Findings from reports: which terms of a lexicon a report asserts, and which it denies.

The rules are NegEx's (Chapman et al. 2001, doi:10.1006/jbin.2001.1029): a term is denied where a
phrase of negation stands before it, or behind it, in its sentence, at most five words off, with no
word between that ends the scope. Of a report nothing leaves this module but codes.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from ssl_pipeline.config.loader import parse_section, read_mapping
from ssl_pipeline.config.section import Section

SCOPE_WORDS = 5  # as NegEx has them
# Of lines those begin a sentence that begin with a capital letter or a mark of lists, or follow an
# empty one: others continue a sentence that was broken where the page ends.
SENTENCE_END = re.compile(r"[.;!?]+(?=\s|$)|\n(?=\s*(?:\n|$|[-*•–]|\d+[.)]|[A-ZÀ-ÖØ-Þ][a-zß-ÿ\s]))")
Phrases = Annotated[tuple[str, ...], Field(min_length=1)]


class Lexicon(Section):
    """What reports may say, in any language; phrases are compared without regard to case."""

    findings: dict[str, Phrases] = Field(
        min_length=1, description="phrases by the name of a finding; * stands for letters"
    )
    negation_before: tuple[str, ...] = Field(
        ("no", "not", "without", "denies", "absence of", "free of", "negative for", "ruled out for",
         "rules out", "rule out", "no evidence of", "no sign of", "no signs of", "resolved"),
        description="phrases that deny what follows",
    )  # fmt: skip
    negation_after: tuple[str, ...] = Field(
        ("not seen", "is absent", "are absent", "was ruled out", "is ruled out", "not present",
         "has resolved", "have resolved", "unlikely", "not identified", ": no", ": none",
         ": absent"),
        description="phrases that deny what they follow",
    )  # fmt: skip
    pseudo_negation: tuple[str, ...] = Field(
        ("no increase", "no change", "not only", "no further", "not certain if", "not excluded"),
        description="phrases that look like a negation, and deny nothing",
    )
    scope_ends: tuple[str, ...] = Field(
        ("but", "however", "although", "except", "apart from", "nevertheless", "yet", "though"),
        description="words behind which a negation no longer holds",
    )

    @model_validator(mode="after")
    def _names_are_codes(self) -> "Lexicon":
        for name in self.findings:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(
                    f"findings has the name {name!r}: write a code of small letters, digits and _"
                )
        return self


DEFAULT_LEXICON = Lexicon(
    findings={
        "atelectasis": ("atelecta*",),
        "consolidation": ("consolidation*", "airspace opacit*"),
        "effusion": ("effusion*",),
        "fracture": ("fracture*",),
        "haemorrhage": ("haemorrhag*", "hemorrhag*", "haematoma*", "hematoma*"),
        "mass": ("mass", "masses", "tumour*", "tumor*"),
        "nodule": ("nodule*",),
        "pneumothorax": ("pneumothora*",),
    }
)


def read_lexicon(path: Path | None) -> Lexicon:
    """The lexicon of a YAML file, else a small one in English. Raises UserError for a fault."""
    return parse_section(Lexicon, read_mapping(path), path) if path else DEFAULT_LEXICON


class FindingRules:
    """A lexicon, ready to be asked of many reports."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._findings = {name: _pattern(words) for name, words in lexicon.findings.items()}
        self._before = _pattern(lexicon.negation_before)
        self._after = _pattern(lexicon.negation_after)
        self._pseudo, self._ends = _pattern(lexicon.pseudo_negation), _pattern(lexicon.scope_ends)

    def find(self, report: str) -> dict[str, bool | None]:
        """Whether each finding is asserted: True in any sentence; False if denied alone; or None.

        None says that a report does not mention it, which is not that it is absent.
        """
        found: dict[str, bool | None] = dict.fromkeys(self._findings)
        for sentence in SENTENCE_END.split(report):
            text = self._pseudo.sub(" ", sentence)
            for name, pattern in self._findings.items():
                for term in pattern.finditer(text):
                    is_present = not self._is_denied(text, term.start(), term.end())
                    found[name] = bool(found[name]) or is_present
        return found

    def _is_denied(self, text: str, start: int, end: int) -> bool:
        """Whether a phrase of negation is in scope before or behind the term."""
        before, after = self._ends.split(text[:start])[-1], self._ends.split(text[end:])[0]
        before = before.rpartition(":")[2]  # what stands before a colon is a title
        return any(
            len(before[match.end() :].split()) <= SCOPE_WORDS
            for match in self._before.finditer(before)
        ) or any(
            len(after[: match.start()].split()) <= SCOPE_WORDS
            for match in self._after.finditer(after)
        )


def _pattern(phrases: Iterable[str]) -> re.Pattern[str]:
    """Any of the phrases, as whole words, with any white space between them."""
    words = (
        r"\s+".join(re.escape(word).replace(r"\*", r"\w*") for word in phrase.split())
        for phrase in sorted(phrases, key=len, reverse=True)
    )
    joined = "|".join(words)
    return re.compile(rf"(?<!\w)(?:{joined})(?!\w)" if joined else r"(?!)", re.IGNORECASE)


def as_codes(findings: Mapping[str, bool | None]) -> dict[str, str]:
    """Findings as a table has them: 1 present, 0 absent, empty where nothing is said."""
    return {name: "" if found is None else str(int(found)) for name, found in findings.items()}
