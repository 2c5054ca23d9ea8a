"""Triples that a study may leave to the plan: `auto` in its file, AUTO until the plan is there."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer

from ssl_pipeline.types import Spacing, Triple

AUTO: Triple = (0, 0, 0)  # no size of anything, so that it can stand for the word
WORD = "auto"


def is_auto(value: Spacing | Triple | None) -> bool:
    """Whether a size or spacing is left to the plan."""
    return value == AUTO


def _from_word(value: Any) -> Any:
    return AUTO if value == WORD else value


def _to_word(value: Any) -> Any:
    return WORD if value == AUTO else value


AutoTriple = Annotated[
    Triple,
    BeforeValidator(_from_word, json_schema_input_type=Triple | Literal["auto"]),
    PlainSerializer(_to_word, when_used="json"),
]
AutoSpacing = Annotated[
    Spacing,
    BeforeValidator(_from_word, json_schema_input_type=Spacing | Literal["auto"]),
    PlainSerializer(_to_word, when_used="json"),
]
