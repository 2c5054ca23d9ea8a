"""Initial weights that an alias names, frozen with the cohort.

An alias such as `chest@champion` moves, most likely to the very encoder that the study trains from
it; a run that has started means what the alias meant then, until the study raises the cohort.
"""

from typing import Any, Literal

from ssl_pipeline.io.atomic import sha256_json
from ssl_pipeline.io.records import Record, read_record, write_record
from stages.core import layout
from stages.core.study import Study


class FrozenWeights(Record):
    """What `init_from` meant when the cohort was frozen."""

    format: Literal[1] = 1
    section_sha256: str  # of `init_from` as the study has it
    resolved: dict[str, Any]  # keys of `init_from` in place of those of the study


def freeze_initial_weights(study: Study) -> None:
    """Write what an alias in `init_from` means now, unless that of this cohort is written."""
    start = study.init_from
    path = layout.initial_weights_file(study, study.training.cohort)
    if start is None or start.resolve() == start:
        return
    resolved = start.resolve().model_dump(mode="json", exclude={"path"})
    write_record(
        path, FrozenWeights(section_sha256=sha256_json(start.model_dump()), resolved=resolved)
    )


def with_frozen_weights(study: Study) -> Study:
    """The study with the initial weights that an alias meant when its cohort was frozen."""
    start = study.init_from
    path = layout.initial_weights_file(study, study.training.cohort)
    if start is None or not path.exists():
        return study
    frozen = read_record(FrozenWeights, path, "remove it, and the next run freezes what it means")
    if frozen.section_sha256 != sha256_json(start.model_dump()):
        return study
    return study.model_copy(update={"init_from": start.model_copy(update=frozen.resolved)})
