"""What the command line's modules share: groups of commands, and options that many take."""

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

INSPECT_GROUP = Group("Inspect", sort_key=2)
ENCODER_GROUP = Group("Use an encoder", sort_key=3)
EXAMPLE_STUDY = "study.yaml"

StudyFile = Annotated[Path, Parameter("--config", metavar="STUDY", help="YAML file of the study")]
