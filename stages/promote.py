"""The gate: let the study's encoder replace the champion of a registry, or say why not.

Champion and challenger are compared on the same scored subjects and the same held-out places, by
criteria that were fixed before. A promoted encoder is added to the registry first, and the alias is
moved last, if it still points to the champion: killed anywhere, the alias is old or new.
"""

from collections.abc import Iterator
from pathlib import Path

from ssl_pipeline.evaluation.paired_scores import paired_scores
from ssl_pipeline.evaluation.records import RESULTS_FILE, read_results
from ssl_pipeline.evaluation.statistics.gate import Criterion, GateDecision, decide
from ssl_pipeline.export.manifest import weights_hash
from ssl_pipeline.init_from.registry import RegistryWeights
from ssl_pipeline.io.atomic import sha256_json
from ssl_pipeline.io.records import write_record
from ssl_pipeline.progress import info
from ssl_pipeline.registry.aliases import rolled_back
from ssl_pipeline.registry.entry import SHORT_ID, EntryContent
from ssl_pipeline.registry.promotion import PROMOTION_FILE, Promotion, PromotionRecord
from ssl_pipeline.registry.registry import CHAMPION, Registry
from ssl_pipeline.training.run_record import read_run_record
from ssl_pipeline.volumes.config import resolve_path
from stages.commands.registry import add_study_encoder
from stages.core.champion import is_own_encoder, registry_of
from stages.core.pretraining_runs import pretraining_run
from stages.core.records import manifest_hash
from stages.core.resources import (
    RECORD_FILE_COUNT,
    DatasetSize,
    Hardware,
    ResourceEstimate,
    assumed,
    counted,
)
from stages.core.stage import StageResult
from stages.core.study import Study
from stages.criteria import (
    compared_method,
    compared_stage,
    compared_tasks,
    criteria_of,
    fix_criteria,
    keep_verdict,
    other_verdicts,
)
from stages.domain_measures import DomainMeasures

HEALTHY = "healthy"
TITLE = "Let the encoder replace the champion of a registry, or say why not"
CONFIG_KEYS = ("name", "seed", "promote", "tasks", "evaluate", "probe", "finetune", "objective")
DEPENDS_ON = ("preprocess", "pretrain", "probe", "finetune")
VERSION = 1
OUTPUTS = (PROMOTION_FILE,)
WILDCARDS: tuple[str, ...] = ()
USES_GPU, USES_WORKERS, DISTRIBUTED = True, False, False
SHARDED, PER_TRIAL = False, False


def is_needed(study: Study) -> bool:
    """Whether the study promotes its encoder."""
    return study.promote is not None


def inputs(study: Study) -> dict[str, str]:
    """The encoder, the champion, and the results of the tasks that the criteria name."""
    assert study.promote
    found = {name: manifest_hash(study, name) for name in ("preprocess", "pretrain")}
    for task in compared_tasks(study.promote):
        stage = compared_stage(study, task)
        found[f"{stage} {task}"] = manifest_hash(study, stage, task=task)
    return {**found, "champion": study.champion, "criteria": sha256_json(criteria_of(study))}


def estimate_resources(study: Study, dataset: DatasetSize, hardware: Hardware) -> ResourceEstimate:
    """A few hundred crops through two encoders, and copies of encoder and checkpoint."""
    bytes_copied = 4 * 4 * study.model.parameter_count
    return ResourceEstimate(
        disk=assumed(bytes_copied, "encoder and checkpoint, in the registry"),
        files=counted(RECORD_FILE_COUNT + len(OUTPUTS), "a record"),
        memory=assumed(1e9 + bytes_copied, "one crop at a time"),
        seconds=assumed(120.0 * hardware.cores, "64 places of a domain, one by one"),
        gpu_memory=assumed(1e9 + bytes_copied, "one crop") if hardware.gpus else None,
    )


def run(study: Study, out: Path) -> StageResult:
    """Decide, promote where that is the verdict, and write the record of it."""
    domains = DomainMeasures(study)
    promotion = evaluate_gate(study, domains)
    keep_verdict(study, promotion.decision.verdict)
    entry = ""
    if promotion.decision.verdict == "promoted":
        entry = _promote(study, promotion)
    record = PromotionRecord(promotion=promotion, entry=entry, domains=domains.table())
    write_record(out / PROMOTION_FILE, record)
    summary = f"{promotion.decision.verdict}: {promotion.reason}"
    return StageResult([out / PROMOTION_FILE], summary)


def evaluate_gate(study: Study, domains: DomainMeasures) -> Promotion:
    """The verdict on the study's encoder, with all that it was decided by."""
    assert study.promote
    criteria = [*_task_criteria(study), *domains.criteria()] if study.champion else []
    decision = decide(criteria, list(_obstacles(study)), study.promote.confidence)
    return Promotion(
        champion=study.champion,
        criteria=criteria_of(study),
        versions=fix_criteria(study),
        decision=_without_champion(decision) if not study.champion else decision,
        measures=tuple(domains.challenger.values()),
        champion_measures=domains.new_of_champion,
        random_measures=tuple(domains.random.values()),
        other_verdicts=other_verdicts(study),
    )


def _without_champion(decision: GateDecision) -> GateDecision:
    """The decision where there is nobody to compare with."""
    if decision.verdict != "promoted":
        return decision
    reason = "There is no champion yet, so nothing was compared."
    return decision.model_copy(update={"reason": reason})


def _task_criteria(study: Study) -> Iterator[Criterion]:
    """What is asked of each task, with the difference of the challenger from the champion."""
    assert study.promote
    own = next(name for name, path in study.encoders.items() if path == study.encoder)
    weights = {name: weights_hash(study.encoders[name]) for name in (own, CHAMPION)}
    for task in compared_tasks(study.promote):
        stage = compared_stage(study, task)
        folder = study.stage_folder(stage, {"task": task})
        contrast = paired_scores(
            *(folder, read_results(folder), compared_method(study, task), weights),
            study.tasks[task].score,
        )
        allowed, worth = study.promote.keep.get(task), study.promote.gain.get(task)
        yield Criterion(
            name=task,
            kind="gain" if worth else "loss",
            margin=allowed or 0.0,
            expected=allowed or worth or 0.0,
            contrast=contrast,
            absence="" if contrast else f"cells of {stage} failed or have no score",
        )


def _obstacles(study: Study) -> Iterator[str]:
    """What forbids a promotion whatever the scores are, in sentences."""
    assert study.promote
    record = read_run_record(study.stage_folder("pretrain", {}))
    if record is None or record.diagnosis != HEALTHY:
        found = record.diagnosis if record else "not known"
        yield f"The pretraining run is {found}, not {HEALTHY}."
    for task in compared_tasks(study.promote):
        folder = study.stage_folder(compared_stage(study, task), {"task": task})
        if (folder / RESULTS_FILE).exists() and (warning := read_results(folder).warning):
            yield f"{study.tasks[task].title}: {warning}"
            return
    yield from _rollbacks(study)


def _rollbacks(study: Study) -> Iterator[str]:
    """That the encoder was promoted before, and taken back by a person."""
    assert study.promote
    registry = registry_of(study)
    alias = registry.alias_folder(study.promote.name, study.promote.alias)
    for entry, reason in rolled_back(alias).items():
        if is_own_encoder(study, registry.entry(entry)):
            yield f"It was {study.promote.reference} before, and was rolled back: {reason}."


def _promote(study: Study, promotion: Promotion) -> str:
    """Add the encoder to the registry, point the alias to it, and return its ID.

    Raises AliasMovedError where another study has moved the alias meanwhile.
    """
    assert study.promote
    registry, section = registry_of(study), study.promote
    current = registry.current(section.name, section.alias)
    if current and is_own_encoder(study, registry.entry(current)):
        return current
    content = EntryContent(
        name=section.name,
        parent=_parent(study),
        verdict=promotion.decision.verdict,
        reason=promotion.reason,
        promotion=promotion,
    )
    entry = add_study_encoder(study, registry, content)
    expected = study.champion or None
    registry.move(section.name, section.alias, entry, expected, promotion.reason)
    info(f"promote: {section.reference} points to {entry[:SHORT_ID]}")
    return entry


def _parent(study: Study) -> str:
    """ID of the entry that the encoder's training continued; empty where it is none."""
    start = study.init_from
    if isinstance(start, RegistryWeights):
        return Registry(resolve_path(start.path)).resolve(start.of)
    if not study.champion or not study.training.continue_from:
        return ""
    before = {cohort.sha256 for cohort in registry_of(study).entry(study.champion).content.cohorts}
    earlier = list(pretraining_run(study).lineage)[1:]
    continued = any(sha256_json(each.cohort_items) in before for each in earlier)
    return study.champion if continued else ""
