"""Measures of a study's encoder, and of the champion, on the banks of their domains."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from ssl_pipeline.evaluation.statistics.gate import Criterion
from ssl_pipeline.export import training_subjects
from ssl_pipeline.formatting import format_count
from ssl_pipeline.objectives import ObjectiveConfig
from ssl_pipeline.progress import debug
from ssl_pipeline.registry.domain_losses import (
    DomainTable,
    criterion_name,
    domain_table,
    forgetting_criterion,
    missing_criterion,
)
from ssl_pipeline.registry.entry import SHORT_ID, RegistryEntry
from ssl_pipeline.registry.registry import CHALLENGER
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.training.domain_bank import (
    NO_LOSS_OF_DATA,
    DomainBank,
    DomainMeasure,
    domain_title,
    held_out_by_domain,
)
from ssl_pipeline.volumes.inventory import Inventory
from stages import preprocess
from stages.core import layout
from stages.core.champion import registry_of
from stages.core.pretraining_runs import run_folder
from stages.core.study import Study
from stages.evaluation_inputs import evaluation_device
from stages.trainer import build_objective, random_encoder

if TYPE_CHECKING:
    from ssl_pipeline.objectives.objective import Objective

Measures = dict[str, DomainMeasure]  # by the SHA-256 of the bank


class DomainMeasures:
    """The banks of the study's family of encoders; each measure is computed once."""

    def __init__(self, study: Study) -> None:
        """Freezes the bank of each domain that has held-out volumes and no bank yet."""
        assert study.promote
        self.study, self.section, self.registry = study, study.promote, registry_of(study)
        self.catalog = Catalog.read(layout.catalog_table(study))
        self._freeze_banks()
        self.banks: dict[str, DomainBank] = self.registry.banks(self.section.name)

    def criteria(self) -> Iterator[Criterion]:
        """That the challenger forgets no domain that the champion was measured on.

        Of a champion that no gate has promoted it is not known which it was trained on: all count.
        """
        if self.champion_entry is None:
            return
        promotion = self.champion_entry.content.promotion
        for sha256, bank in self.banks.items():
            if promotion and sha256 not in self._recorded:
                continue
            reason = self._absence(bank) or self._incomparable(sha256)
            if reason:
                yield missing_criterion(bank, reason)
                continue
            debug(f"promote: {criterion_name(bank)}")
            measured = (self.champion[sha256], self.challenger[sha256])
            yield forgetting_criterion(bank, *measured, self.section.forget)

    @cached_property
    def challenger(self) -> Measures:
        """Of the study's own encoder, on all banks that it can be measured on."""
        checkpoints = layout.checkpoints_folder(run_folder(self.study))
        objective = self._trained_objective(self.study.objective, self.study.encoder, checkpoints)
        return self._measure(objective, self.banks) if objective else {}

    @cached_property
    def champion(self) -> Measures:
        """Of the champion: as recorded by its own promotion, else measured now."""
        more = {sha: bank for sha, bank in self.banks.items() if sha not in self._recorded}
        if not more or self._other_objective or not self.study.champion:
            return self._recorded
        objective = self._trained_objective(
            self._champion_objective,
            self.registry.encoder_folder(self.study.champion),
            self.registry.checkpoint_folder(self.study.champion),
        )
        return self._recorded | (self._measure(objective, more) if objective else {})

    @property
    def new_of_champion(self) -> tuple[DomainMeasure, ...]:
        """Of the champion, where its own record has none."""
        return tuple(m for sha, m in self.champion.items() if sha not in self._recorded)

    @cached_property
    def random(self) -> Measures:
        """Of random weights, on banks that the champion's record does not know."""
        more = {sha: bank for sha, bank in self.banks.items() if sha not in self._recorded}
        return self._measure(self._random_objective(self.study.objective), more)

    def table(self) -> DomainTable:
        """The losses of all champions of the family up to the challenger, by domain."""
        encoders: dict[str, Measures] = {}
        identifier = self.study.champion
        while identifier and identifier[:SHORT_ID] not in encoders:
            promotion = self.registry.entry(identifier).content.promotion
            own = promotion.measures if promotion else ()
            encoders[identifier[:SHORT_ID]] = {each.bank_sha256: each for each in own}
            identifier = promotion.champion if promotion else ""
        if self.study.champion:
            encoders[self.study.champion[:SHORT_ID]] = self.champion
        oldest_first = dict(reversed(encoders.items()))
        new = {each.bank_sha256: each for each in self.new_of_champion}
        return domain_table(
            self.banks,
            {**oldest_first, CHALLENGER: self.challenger},
            new,
            self.random,
            self.section.confidence,
        )

    @cached_property
    def champion_entry(self) -> RegistryEntry | None:
        """The champion in the registry; None where there is none."""
        champion = self.study.champion
        return self.registry.entry(champion) if champion else None

    @cached_property
    def _recorded(self) -> Measures:
        promotion = self.champion_entry.content.promotion if self.champion_entry else None
        measures = promotion.measures if promotion else ()
        return {each.bank_sha256: each for each in measures if each.bank_sha256 in self.banks}

    @cached_property
    def _other_objective(self) -> bool:
        """Whether the champion was trained by other losses of data, or is another model."""
        if self.champion_entry is None:
            return False
        then = self.champion_entry.content.configuration
        own = _losses_of_data(self.study.objective)
        return (
            then["model"] != self.study.redacted_config["model"]
            or _losses_of_data(self._champion_objective) != own
        )

    @property
    def _champion_objective(self) -> ObjectiveConfig:
        assert self.champion_entry
        then = self.champion_entry.content.configuration["objective"]
        section: ObjectiveConfig = TypeAdapter(ObjectiveConfig).validate_python(then)
        return section

    def _incomparable(self, sha256: str) -> str:
        """Why the losses of both encoders on a bank cannot be compared; empty where they can."""
        if self._other_objective:
            return "the champion was trained by another objective, or is another model"
        if sha256 not in self.champion:
            return "the champion's entry holds no checkpoint that this version reads"
        if sha256 not in self.challenger:
            return "the checkpoint of the study's run is gone"
        return ""

    def _absence(self, bank: DomainBank) -> str:
        """Why no encoder of the study is measured on a bank; empty where it is."""
        if bank.patch_voxels != self.study.model.patch_voxels:
            return f"its places are for patches of {list(bank.patch_voxels)} voxels"
        entries = bank.entries(self.catalog.entries)
        if not entries:
            return "none of its held-out volumes is stored here as it was"
        bundles = [self.study.encoder]
        if self.study.champion:
            bundles.append(self.registry.encoder_folder(self.study.champion))
        return next(filter(None, (self._leak(bundle, entries) for bundle in bundles)), "")

    def _leak(self, bundle: Path, entries: list[Entry]) -> str:
        """Whether an encoder was, or may have been, trained on subjects of a bank."""
        known = training_subjects.read(bundle)
        whose = "the challenger" if bundle == self.study.encoder else "the champion"
        if known is None or known.is_unknown:
            return f"{whose} does not say which subjects it was trained on"
        inventory = self._inventory
        overlap = known.overlapping_subjects(inventory.scans, inventory.salt_fingerprint)
        learned = {entry.subject for entry in entries} & overlap
        if learned:
            return f"{whose} was trained on {format_count(len(learned), 'subject')} of it"
        salts = {known.salt_fingerprint} | known.other_salt_fingerprints
        if salts != {inventory.salt_fingerprint}:
            return f"{whose} was trained on subjects that were coded with another salt"
        return ""

    @cached_property
    def _inventory(self) -> Inventory:
        return Inventory.read(layout.inventory_table(self.study))

    def _freeze_banks(self) -> None:
        from ssl_pipeline.training.held_out import freeze_bank

        known = [bank.domain for bank in self.registry.banks(self.section.name).values()]
        for domain, entries in held_out_by_domain(self.catalog.entries, self.section.domains):
            if domain not in known:
                debug(f"promote: freezes the bank of {domain_title(domain)}")
                reader = preprocess.crop_reader(self.study, self.catalog, entries)
                views, patch = self.study.views, self.study.model.patch_voxels
                bank = freeze_bank(domain, entries, reader, views, patch, self.section.places)
                self.registry.add_bank(self.section.name, bank)

    def _measure(self, objective: "Objective", banks: dict[str, DomainBank]) -> Measures:
        from ssl_pipeline.training.held_out import bank_sampler, measure_bank

        found, device = {}, evaluation_device(self.study)
        for sha256, bank in banks.items():
            if self._absence(bank):
                continue
            entries = bank.entries(self.catalog.entries)
            reader = preprocess.crop_reader(self.study, self.catalog, entries)
            features = self.study.objective.metadata_features(entries)
            sampler = bank_sampler(bank, entries, reader, features)
            found[sha256] = measure_bank(objective, bank, sha256, sampler, device)
        return found

    def _random_objective(self, section: ObjectiveConfig) -> "Objective":
        study = self.study.model_copy(update={"objective": section})
        return build_objective(random_encoder(study, study.seed), study)

    def _trained_objective(
        self, section: ObjectiveConfig, bundle: Path, checkpoints: Path
    ) -> "Objective | None":
        """The objective at the end of a run, around the encoder that was exported."""
        from ssl_pipeline.export.bundle import load_encoder
        from ssl_pipeline.training.checkpoint import load_newest

        state = load_newest(checkpoints)
        if state is None:
            return None
        objective = self._random_objective(section)
        objective.load_state_dict(state.objective)
        objective.encoder.load_state_dict(load_encoder(bundle).model.state_dict())
        return objective


def _losses_of_data(objective: ObjectiveConfig) -> list[dict[str, Any]]:
    """The terms of an objective whose losses two encoders are compared by."""
    terms = (term for term in objective.list_terms() if term.name not in NO_LOSS_OF_DATA)
    return [term.model_dump(mode="json") for term in terms if term.weight]
