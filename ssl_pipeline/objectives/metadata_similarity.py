"""Metadata features of scans, by which similar subjects count less as negatives of each other.

Two healthy chests of one age are false negatives: a loss that pushes them apart learns identities.
Metadata reveal such pairs; targets of tasks are refused (see `stages.core.objective_validation`),
for pretraining must not see them.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.text import parse_number
from ssl_pipeline.store.catalog import ScanRow, check_scan_attribute, scan_attribute

EQUAL: Literal["equal"] = "equal"
WORD_DISTANCE = 1000.0  # between two words, in kernel widths: their kernel is 0 in any precision


def metadata_features(
    entries: Sequence[ScanRow], similar_by: Mapping[str, float | Literal["equal"]]
) -> Float[NDArray[np.float32], "entries features"]:
    """The metadata of each scan that `similar_by` names, in units of their kernel widths.

    exp(-d^2 / 2), where d is the distance of two rows, is the kernel of the pair
    (`losses.metadata_similarity`); nan where a value is missing. Raises UserError for a name that
    no scan has, for a word where a number is required, and where no two scans differ.
    """
    columns = []
    for name, width in similar_by.items():
        where = f"objective.contrast.similar_by.{name}"
        check_scan_attribute(where, entries, name)
        words = [scan_attribute(entry, name) for entry in entries]
        columns.append(
            _word_codes(words) if width == EQUAL else _scaled_numbers(words, width, where)
        )
    found = np.array(columns, np.float32).reshape(len(similar_by), len(entries)).T
    if similar_by and len(entries) > 1 and (found == found[0]).all():
        raise UserError(
            f"objective.contrast.similar_by is {', '.join(similar_by)}, in which no two scans "
            "differ, so that all subjects would be equal: leave it out."
        )
    return found


def _word_codes(words: Sequence[str]) -> list[float]:
    code = {word: WORD_DISTANCE * number for number, word in enumerate(sorted(set(words)))}
    return [code[word] if word else np.nan for word in words]


def _scaled_numbers(words: Sequence[str], width: float, where: str) -> list[float]:
    numbers = [parse_number(word) for word in words]
    known = zip(words, numbers, strict=True)
    if other := next((word for word, number in known if word and number is None), ""):
        raise UserError(
            f"{where} is {width:g}, a width, and {other!r} of a scan is no number: put `{EQUAL}` "
            "there."
        )
    return [np.nan if number is None else number / width for number in numbers]
