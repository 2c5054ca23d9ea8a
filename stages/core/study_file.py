"""Reading of a study's file: its keys, then what its sections say about each other."""

from pathlib import Path

from ssl_pipeline.config.loader import parse_section, read_mapping
from ssl_pipeline.errors import UserError
from ssl_pipeline.io.records import read_record_if_whole
from ssl_pipeline.preprocess.plan import Plan
from stages.core import layout
from stages.core.champion import with_champion
from stages.core.initial_weights import with_frozen_weights
from stages.core.ownership import check_owner
from stages.core.planning import has_auto, with_plan
from stages.core.study import FORMAT_VERSION, Study
from stages.core.study_validation import check_study


def load_study(path: Path, *, as_written: bool = False) -> Study:
    """Read and check a study. Raises UserError, one sentence for the first mistake.

    The output folder of another study is a mistake too. What is `auto` has its planned value, once
    there is a plan, unless the study is wanted `as_written`.
    """
    if not path.is_file():
        known = ", ".join(str(p) for p in sorted(Path("workflows/studies").glob("*.yaml")))
        start = "" if path.is_absolute() else f" in {Path.cwd()}, from which its path is taken"
        raise UserError(f"There is no study at {path}{start}; here are {known or 'none'}.")
    content = read_mapping(path)
    if content.get("format", FORMAT_VERSION) != FORMAT_VERSION:
        raise UserError(
            f"{path}: format is {content['format']}, this version reads {FORMAT_VERSION}: "
            "use the version of ssl-pipeline that the study was written for."
        )
    study = parse_section(Study, content, path)
    _check_sections(study, path)
    check_owner(study)
    study._source_folder = path.parent
    return study if as_written else complete_study(study, path)


def complete_study(study: Study, path: Path) -> Study:
    """The study as written at `path`, with what was frozen and planned for it meanwhile.

    That are the initial weights that an alias meant, the champion that it is compared with, and the
    values of what is `auto`.
    """
    study = with_champion(with_frozen_weights(study))
    plan = read_record_if_whole(Plan, layout.plan_file(study)) if has_auto(study) else None
    if plan is None:
        return study
    planned = with_plan(study, plan)
    _check_sections(planned, path)
    return planned


def _check_sections(study: Study, path: Path) -> None:
    """Raise UserError for the first contradiction between sections."""
    try:
        check_study(study)
    except (ValueError, UserError) as error:
        raise UserError(f"{path}: {str(error).rstrip('.')}.") from None
