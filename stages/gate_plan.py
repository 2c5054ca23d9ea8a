"""Whether the gate of a promotion can decide with the subjects that there are, before training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ssl_pipeline.evaluation.runner.subject_splits import split_subjects
from ssl_pipeline.evaluation.statistics.gate import Criterion, PairedContrast, planned_subjects
from ssl_pipeline.evaluation.statistics.intervals import MIN_SUBJECTS
from ssl_pipeline.registry.domain_losses import criterion_name, mean_loss
from ssl_pipeline.registry.entry import RegistryEntry
from ssl_pipeline.training.domain_bank import HELD_OUT_SPLIT, domain_of
from stages.core.champion import registry_of
from stages.core.resources import DatasetSize
from stages.core.study import Study

# Of differences between encoders, where the champion's promotion measured none: on organs of 34
# subjects of CT, accuracy of probes, it was .04 to .06.
ASSUMED_SD = 0.05


@dataclass(frozen=True)
class _Plan:
    """A criterion, with the number of its subjects here."""

    criterion: Criterion
    subjects: int
    kind: str  # of subjects, in words
    basis: str  # of how much their differences vary, in words


def gate_plan(study: Study, dataset: DatasetSize) -> list[str]:
    """One sentence for each criterion that needs more subjects than there are, or that all suffice.

    Empty where the study promotes nothing, or there is no champion to compare with.
    """
    if study.promote is None or not study.champion:
        return []
    champion = registry_of(study).entry(study.champion)
    plans = [*_task_plans(study, dataset, champion), *_domain_plans(study, dataset, champion)]
    needed = planned_subjects([plan.criterion for plan in plans], study.promote.confidence)
    lines = list(_sentences(plans, needed))
    return lines or ["promote: the subjects are enough for the gate to decide."]


def _sentences(plans: Sequence[_Plan], needed: Sequence[int | None]) -> Iterator[str]:
    for plan, number in zip(plans, needed, strict=True):
        least = MIN_SUBJECTS if plan.criterion.contrast is None else number
        if least is None:
            yield (
                f"promote: {plan.criterion.name} stays undecided with any number of subjects, for "
                f"seeds differ too much{plan.basis}: raise evaluate.seeds."
            )
        elif least > plan.subjects:
            yield (
                f"promote: {plan.criterion.name} needs about {least} {plan.kind} subjects and has "
                f"{plan.subjects}, so the gate would leave it undecided{plan.basis}."
            )


def _task_plans(study: Study, dataset: DatasetSize, champion: RegistryEntry) -> Iterator[_Plan]:
    assert study.promote
    measured = _measured_contrasts(champion)
    for key, section in (("loss", study.promote.keep), ("gain", study.promote.gain)):
        for task, size in section.items():
            split = split_subjects(study.tasks[task], dataset.scans, study.evaluate.split)
            assumed = PairedContrast(
                mean=0.0,
                subject_variance=ASSUMED_SD**2 / MIN_SUBJECTS,
                seed_variance=0.0,
                n_subjects=MIN_SUBJECTS,
                n_seeds=study.evaluate.seeds,
            )
            contrast = measured.get(task, assumed)
            found = "which is assumed" if contrast is assumed else "as at the champion's promotion"
            criterion = Criterion(
                name=task,
                kind="loss" if key == "loss" else "gain",
                margin=size if key == "loss" else 0.0,
                expected=size,
                contrast=contrast,
            )
            basis = (
                f", where differences have a standard deviation of {contrast.subject_sd:.2g}, "
                f"{found}"
            )
            yield _Plan(criterion, len(split.test_subjects), "scored", basis)


def _domain_plans(study: Study, dataset: DatasetSize, champion: RegistryEntry) -> Iterator[_Plan]:
    assert study.promote
    section, measured = study.promote, _measured_contrasts(champion)
    promotion = champion.content.promotion
    losses = {m.bank_sha256: m for m in promotion.measures} if promotion else {}
    for sha256, bank in registry_of(study).banks(section.name).items():
        if promotion and sha256 not in losses:
            continue
        name = criterion_name(bank)
        subjects = {
            scan.subject
            for scan in dataset.scans
            if scan.split == HELD_OUT_SPLIT and domain_of(scan, tuple(bank.domain)) == bank.domain
        }
        before = mean_loss(bank, losses[sha256], section.confidence).mean if losses else None
        criterion = Criterion(
            name=name,
            kind="loss",
            margin=0.0,
            expected=section.forget * (before or 0.0),
            contrast=measured.get(name) if before else None,
        )
        yield _Plan(criterion, len(subjects), "held-out", "")


def _measured_contrasts(champion: RegistryEntry) -> dict[str, PairedContrast]:
    """Differences that the champion's own promotion measured well enough, by criterion."""
    promotion = champion.content.promotion
    contrasts = (
        (finding.criterion.name, finding.criterion.contrast)
        for finding in (promotion.decision.findings if promotion else ())
    )
    return {name: found for name, found in contrasts if found and found.is_defined}
