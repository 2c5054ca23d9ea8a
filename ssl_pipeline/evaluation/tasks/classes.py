"""Classes of a task: their values in a target or in label files, and their names.

A study writes `{0: healthy, 1: ill}` where values are numbers, `{healthy: NOR, ill: DCM}` where
they are words, or a list of values that are their own names. A number is the value on whichever
side it stands.
"""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from ssl_pipeline.io.text import normalize_word

NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
WHOLE = re.compile(r"0|[1-9][0-9]*")


def _names_by_value(given: Any) -> Any:
    """The names of classes by their values; what is neither mapping nor list is left to pydantic.

    Raises ValueError for a value that two classes have, and for one that is neither word nor
    number.
    """
    if isinstance(given, dict):
        pairs = [_value_and_name(*pair) for pair in given.items()]
    elif isinstance(given, list | tuple):
        pairs = [(_as_value(value), str(value)) for value in given]
    else:
        return given
    values = [value for value, _ in pairs]
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise ValueError(f"classes has the value {twice} twice: give each class its own")
    return dict(pairs)


def _value_and_name(key: Any, other: Any) -> tuple[int | str, Any]:
    if NUMBER.fullmatch(str(key)):
        return _as_value(key), other
    return _as_value(other), key


def _as_value(given: Any) -> int | str:
    """The value of a class: a whole number from 0 on, or a word."""
    word = _as_word(given)
    return int(word) if WHOLE.fullmatch(word) else word


def _as_word(given: Any) -> str:
    """A value of a study as tables hold it. Raises ValueError where it is no single one."""
    if isinstance(given, dict | list | tuple):
        raise ValueError(f"{given} is no value of a target: write one word or number")
    return normalize_word(str(given))


def _as_written(classes: dict[int | str, str]) -> dict[int | str, int | str]:
    """Classes as a study writes them."""
    pairs = classes.items()
    return dict(
        (value, name) if NUMBER.fullmatch(str(value)) else (name, value) for value, name in pairs
    )


TargetValue = Annotated[
    str, BeforeValidator(_as_word, json_schema_input_type=str | int | float | bool)
]
Classes = Annotated[
    dict[int | str, str],
    BeforeValidator(
        _names_by_value,
        json_schema_input_type=dict[str, str | int | float | bool] | list[str | int | float | bool],
    ),
    PlainSerializer(_as_written),
]
