"""The owner of an output folder: one study, by name, which the folder's record states.

Two studies that named one `output` would each overwrite the other's encoder, results and page, and
`status` of one would show what the other has made.
"""

from pathlib import Path
from typing import Literal

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.records import Record, read_record, read_record_if_whole, write_record
from stages.core.layout import STUDY_RECORD, OutputFolders, study_record


class StudyRecord(Record):
    """The study that an output folder belongs to."""

    format: Literal[1] = 1
    name: str


def check_owner(study: OutputFolders) -> None:
    """Raise UserError where the output folder belongs to another study, or its record is torn.

    So does a folder within another study's output.
    """
    path = study_record(study)
    owner = _owner(path)
    if owner not in (None, study.name):
        raise UserError(
            f"{study.folder} belongs to the study {owner}, and this one is {study.name}: give this "
            f"one another `output`, or remove {path} if it is the same study with a new name."
        )
    for above in study.folder.absolute().parents:
        outer = read_record_if_whole(StudyRecord, above / STUDY_RECORD)
        if outer is not None:
            raise UserError(
                f"output is {study.folder}, which lies in the output of the study {outer.name}, "
                f"{above}: name another `output`."
            )


def claim_output(study: OutputFolders) -> None:
    """State whose folder it is, where nothing does yet. Raises UserError as `check_owner`."""
    check_owner(study)
    path = study_record(study)
    if not path.exists():
        write_record(path, StudyRecord(name=study.name))


def _owner(path: Path) -> str | None:
    if not path.exists():
        return None
    return read_record(StudyRecord, path, "remove it, and the next stage writes it again").name
