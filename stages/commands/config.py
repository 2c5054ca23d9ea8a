"""Check of a study's file, its settings with every default, and their schema."""

import json
from pathlib import Path

import yaml

from ssl_pipeline.errors import UserError
from ssl_pipeline.formatting import format_count
from ssl_pipeline.progress import console
from stages.core.study import Study
from stages.core.study_file import load_study
from stages.evaluation_check import check_before_inventory


def print_config(path: Path | None, *, show: bool, schema: bool) -> None:
    """Check a study, print it with every default, or print the JSON schema. Raises UserError."""
    if schema:
        print(json.dumps(Study.model_json_schema(), indent=1))
        return
    if path is None:
        raise UserError("Which study? Name it with --config workflows/studies/demo.yaml.")
    study = load_study(path)
    if show:
        print(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False), end="")
    check_before_inventory(study)
    if not show:
        tasks = format_count(len(study.tasks), "task")
        console.print(f"{path} is valid: {study.name}, {tasks}.", soft_wrap=True)
