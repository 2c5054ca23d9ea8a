"""Record of a finished pretraining run, `run.json`: what was trained, on what, and its diagnosis.

It holds nothing that two equal runs do not share: rates and times are in the provenance.
"""

from pathlib import Path
from typing import Literal

from ssl_pipeline.io.records import Record, RecordPart, read_record

RUN_RECORD = "run.json"


class TrainingSummary(RecordPart):
    """What an encoder was trained on, and how."""

    study: str
    objective: str
    steps: int
    hours: float | None = None  # that became these steps
    volumes: int
    subjects: int
    modalities: tuple[str, ...]
    ranks: int
    device: str
    precision: str
    fused_attention: bool
    threads: int
    diagnosis: str
    init_from: str = ""  # weights that the run started from, in words
    continue_from: str = ""  # run that it continued, in words


class RunRecord(TrainingSummary, Record):
    """The summary of the run that an encoder comes from, and where its files are."""

    format: Literal[1] = 1
    folder: str  # of the run, below that of the stage
    salt: str  # fingerprint of the salt of its pseudonyms


def read_run_record(pretrain_folder: Path) -> RunRecord | None:
    """The run record in a folder of the stage pretrain; None where no run has ended."""
    path = pretrain_folder / RUN_RECORD
    if not path.exists():
        return None
    return read_record(RunRecord, path, "delete it and run the stage pretrain again")
