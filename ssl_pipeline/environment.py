"""Numbers in environment variables, which launchers, schedulers and users set.

A variable that is set to nothing counts as not set, as it does for a shell.
"""

import os
from typing import TypeVar

from ssl_pipeline.errors import UserError

Number = TypeVar("Number", int, float)


def read_number(name: str, default: Number, smallest: Number) -> Number:
    """The number in a variable, of the type of `default`, which stands for none.

    Raises UserError for what is no such number, or less than `smallest`.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    kind = "whole number" if isinstance(default, int) else "number"
    try:
        value = type(default)(text)
    except ValueError:
        value = None
    if value is None or not value >= smallest:
        raise UserError(
            f"The environment variable {name} is {text!r}, which is no {kind} from {smallest} on: "
            "correct it, or unset it."
        )
    return value
