"""The criteria of a study's promotion: which they are, and when they were fixed.

They are fixed when pretraining starts. Each change afterwards is one more version, with what had
been evaluated by then, and each verdict is kept with the criteria that it was by: in the private
folder, where nothing may be purged.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ssl_pipeline.evaluation.records import RESULTS_FILE
from ssl_pipeline.io.atomic import sha256_json
from ssl_pipeline.io.locks import exclusive_lock
from ssl_pipeline.io.records import read_record, write_record
from ssl_pipeline.registry.config import Promote
from ssl_pipeline.registry.promotion import CriteriaHistory, CriteriaVersion, PastVerdict
from stages.core.champion import registry_of
from stages.core.records import up_to_date_record
from stages.core.study import Study

HISTORY_FILE = "promotion_criteria.json"


def compared_tasks(section: Promote) -> tuple[str, ...]:
    """The tasks that the gate asks about, those to keep first."""
    return (*section.keep, *section.gain)


def compared_stage(study: Study, task: str) -> str:
    """The stage by whose results the gate compares encoders on a task."""
    return study.tasks[task].evaluation_stages[0]


def compared_method(study: Study, task: str) -> str:
    """The method by which it compares them: the first."""
    if compared_stage(study, task) == "probe":
        return study.probe_of(task).methods[0].name
    return study.tasks[task].supported_methods(study.finetune_of(task))[0].name


def criteria_of(study: Study) -> dict[str, Any]:
    """All that the gate's verdict depends on beside the encoders, without paths."""
    section = study.promote
    assert section
    tasks = {
        name: {
            "task": study.tasks[name].model_dump(mode="json", exclude={"title"}),
            "stage": compared_stage(study, name),
            "method": compared_method(study, name),
        }
        for name in compared_tasks(section)
    }
    own = section.model_dump(mode="json", exclude={"registry", "places"})
    return {**own, "tasks": tasks, "split": study.evaluate.split, "seeds": study.evaluate.seeds}


def fix_criteria(study: Study) -> tuple[CriteriaVersion, ...]:
    """All versions of the criteria, the present one last, which is added where it is new.

    None where the study promotes nothing.
    """
    if study.promote is None:
        return ()
    path = _history_file(study)
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(path.with_suffix(".lock")):
        history = _read_history(path)
        versions, sha256 = history.versions, sha256_json(criteria_of(study))
        if not versions or versions[-1].sha256 != sha256:
            new = CriteriaVersion(
                sha256=sha256,
                fixed_at=_now(),
                results_before=_results_of_challenger(study),
            )
            versions = (*versions, new)
            write_record(path, history.model_copy(update={"versions": versions}))
    return versions


def other_verdicts(study: Study) -> tuple[PastVerdict, ...]:
    """Verdicts of the study on the present champion, by other criteria than the present ones.

    Those that it has kept, and those of its encoders in the registry.
    """
    assert study.promote
    sha256, salt = sha256_json(criteria_of(study)), study.pseudonyms.salt_fingerprint
    kept = _read_history(_history_file(study)).verdicts
    registered = (
        PastVerdict(
            champion=entry.content.promotion.champion,
            criteria=entry.content.promotion.versions[-1].sha256,
            verdict=entry.content.verdict,
            decided_at=entry.created_at,
        )
        for entry in registry_of(study).entries().values()
        if entry.content.promotion
        and (entry.content.name, entry.content.study) == (study.promote.name, study.name)
        and entry.content.salt_fingerprint == salt
    )
    found = {
        (each.criteria, each.verdict): each
        for each in (*registered, *kept)
        if study.champion and each.champion == study.champion and each.criteria != sha256
    }
    return tuple(found.values())


def keep_verdict(study: Study, verdict: str) -> None:
    """Add a verdict by the present criteria to those that the study keeps, once."""
    path = _history_file(study)
    with exclusive_lock(path.with_suffix(".lock")):
        history = _read_history(path)
        new = PastVerdict(
            champion=study.champion,
            criteria=history.versions[-1].sha256,
            verdict=verdict,
            decided_at=_now(),
        )
        if all(_undated(each) != _undated(new) for each in history.verdicts):
            verdicts = (*history.verdicts, new)
            write_record(path, history.model_copy(update={"verdicts": verdicts}))


def _undated(verdict: PastVerdict) -> PastVerdict:
    return verdict.model_copy(update={"decided_at": ""})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _history_file(study: Study) -> Path:
    return study.pseudonyms.study_folder / HISTORY_FILE


def _read_history(path: Path) -> CriteriaHistory:
    if not path.exists():
        return CriteriaHistory(versions=())
    remedy = "restore it from a backup: it says when the criteria of promotions were fixed"
    return read_record(CriteriaHistory, path, remedy)


def _results_of_challenger(study: Study) -> tuple[str, ...]:
    """Evaluations of the present encoder that there are results of."""
    if up_to_date_record("pretrain", study, {}) is None:
        return ()
    assert study.promote
    return tuple(
        f"{compared_stage(study, task)} {task}"
        for task in compared_tasks(study.promote)
        if (study.stage_folder(compared_stage(study, task), {"task": task}) / RESULTS_FILE).exists()
    )
