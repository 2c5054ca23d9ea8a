"""Validation of objectives: what their terms ask of the rest of the study."""

from ssl_pipeline.errors import suggest_name
from ssl_pipeline.objectives import ObjectiveConfig
from ssl_pipeline.objectives.config import DistillingObjective
from ssl_pipeline.store.catalog import SCAN_ATTRIBUTES
from stages.core.study import Study


def check_objectives(study: Study) -> None:
    """Raise ValueError, in one sentence, for the first term that does not fit the study."""
    for key, objective in objectives_of(study):
        _check_batch_size(study, key, objective)
        check_teacher(study, key, objective)
        _check_label_leakage(study, key, objective)
        _check_retention(study, key, objective)
        _check_partner_terms(study, key, objective)
        _check_low_rank(study, key, objective)


def objectives_of(study: Study) -> list[tuple[str, ObjectiveConfig]]:
    """The study's objective and those of an ablation's arms, each with its place in the study."""
    arms = study.ablate.arms if study.ablate else {}
    return [("objective", study.objective), *((f"ablate.arms.{n}", arm) for n, arm in arms.items())]


def _check_batch_size(study: Study, key: str, objective: ObjectiveConfig) -> None:
    """Each term needs enough samples in a step, over all ranks and parts."""
    for term in objective.list_terms():
        if study.training.batch_size < term.min_batch_size():
            raise ValueError(
                f"{key} has the term {term.name} with weight {term.weight:g}, which means little "
                f"with fewer than {term.min_batch_size()} samples a step, and training.batch_size "
                f"is {study.training.batch_size}: raise it (training.gradient_accumulation "
                "computes a step in parts), or set the weight to 0"
            )


def check_teacher(study: Study, key: str, objective: ObjectiveConfig) -> None:
    """The average that is a teacher must be of fewer steps than the run has, once it has any."""
    if not isinstance(objective, DistillingObjective) or not study.training.steps:
        return
    averaged = 1 / (1 - objective.teacher_momentum)
    taught = [term.name for term in objective.list_terms() if "teacher" in term.passes]
    share = study.scaling.shares[0] if study.scaling and key == "objective" else 1.0
    steps = study.training.shortened(share).steps
    if taught and steps <= averaged:
        what = "training.steps is" if share == 1 else "the shortest run of scaling has steps:"
        raise ValueError(
            f"{key} has the term {taught[0]}, whose teacher is an average over about "
            f"{averaged:.0f} steps, and {what} {steps}: train for more, or lower "
            f"{key}.teacher_momentum"
        )


def _check_retention(study: Study, key: str, objective: ObjectiveConfig) -> None:
    """What is to be kept must have been learned."""
    if study.init_from is None and any("initial" in t.passes for t in objective.list_terms()):
        raise ValueError(
            f"{key} has the term retain, which keeps tokens near those of the encoder that the run "
            "starts from: give init_from, such as the champion of a registry, or leave it out"
        )


def _check_partner_terms(study: Study, key: str, objective: ObjectiveConfig) -> None:
    """What is predicted from another scan of the visit must be drawn beside it."""
    needy = [term.name for term in objective.list_terms() if term.NEEDS_PARTNERS]
    if needy and study.views.partner != "visit":
        raise ValueError(
            f"{key} has the term {needy[0]}, which learns from two scans of a visit, and "
            f"views.partner is {study.views.partner}: set it to visit, or leave the term out"
        )


def _check_low_rank(study: Study, key: str, objective: ObjectiveConfig) -> None:
    """Updates are of weights that were trained, and no teacher can follow them."""
    if study.training.low_rank is None:
        return
    if not (study.training.continue_from or study.init_from):
        raise ValueError(
            "training.low_rank updates weights that were trained before: give "
            "training.continue_from or init_from, or leave it out"
        )
    taught = [term.name for term in objective.list_terms() if "teacher" in term.passes]
    if taught:
        raise ValueError(
            f"{key} has the term {taught[0]}, whose teacher averages the encoder's weights, and "
            "training.low_rank trains updates in place of them: leave out one of them"
        )


def _check_label_leakage(study: Study, key: str, objective: ObjectiveConfig) -> None:
    """Metadata that terms read must be known, and be no target of a task."""
    known = declared_metadata(study)
    for term in objective.list_terms():
        for name in term.metadata_used():
            for task, section in study.tasks.items():
                if any(t.kind == "target" and t.name == name for t in section.truth_names()):
                    raise ValueError(
                        f"{key} has the term {term.name}, which reads {name}, the target of "
                        f"tasks.{task}: pretraining would see what it is evaluated on, so leave "
                        "one of them out"
                    )
            if name not in known:
                raise ValueError(
                    f"{key} has the term {term.name}, which reads {name}: "
                    f"{suggest_name(name, known)}"
                )


def declared_metadata(study: Study) -> set[str]:
    """The attributes of scans, and the targets that roots and table declare."""
    of_roots = (target for root in study.data.roots for target in root.targets)
    return {*SCAN_ATTRIBUTES, *study.data.targets, *of_roots}
