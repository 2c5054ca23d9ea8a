"""What an encoder forgets from domain to domain, with and without replay.

Four domains of public data, one after the other: CT of 2.5 mm, CT of 3 mm, and MR of two protocols
of storage (OpenKBP and the hippocampus of the Medical Segmentation Decathlon, laid out as
`workflows/studies/openkbp_hippocampus.yaml` says). Each arm continues the same first run; losses
are those of the banks of held-out places, so that all are paired by subject.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl_pipeline.export.embed import embed_prepared
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.registry.domain_losses import domain_table
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.training.checkpoint import TrainerState
from ssl_pipeline.training.config import ParentRun, Training
from ssl_pipeline.training.domain_bank import HELD_OUT_SPLIT, DomainBank, DomainMeasure
from ssl_pipeline.training.held_out import bank_sampler, freeze_bank, measure_bank
from ssl_pipeline.training.loop import RunSettings, Trainer
from ssl_pipeline.training.replay import RandomReplay, Replay, TypicalReplay
from ssl_pipeline.views.sampler import ReplayMix, Sampler, subject_name
from stages import preprocess
from stages.core import layout
from stages.core.runner import run_stage
from stages.core.study import Study
from stages.core.study_file import load_study
from stages.pretrain import build_objective, random_encoder

OUT = Path("build/bench/forgetting")
STUDY = Path("workflows/studies/openkbp_hippocampus.yaml")
FIRST_STEPS, MORE_STEPS, PLACES = 400, 150, 64  # of the first domain, and of each that comes
ARMS: Mapping[str, Replay | None] = {
    "new scans alone": Replay(share=0.0),
    "replay, random": Replay(choose=RandomReplay()),
    "replay, a quarter at random": Replay(choose=RandomReplay(subjects=0.25)),
    "replay, a quarter typical": Replay(choose=TypicalReplay(subjects=0.25)),
    "all by their weights": None,
}
Domains = Mapping[str, Sequence[Entry]]  # the volumes of each, held-out ones among them


@dataclass
class Sequel:
    """Runs on domains that come one after the other, in the folder `out`."""

    study: Study
    reader: CropReader
    domains: Domains
    out: Path
    first_steps: int = FIRST_STEPS
    more_steps: int = MORE_STEPS
    places: int = PLACES
    banks: dict[str, DomainBank] = field(default_factory=dict)

    def freeze(self) -> None:
        """The bank of each domain."""
        views, patch = self.study.views, self.study.model.patch_voxels
        for name, entries in self.domains.items():
            own = [entry for entry in entries if entry.split == HELD_OUT_SPLIT]
            self.banks[name] = freeze_bank(
                {"protocol": name}, own, self.reader, views, patch, self.places
            )

    def run(self, arm: str, replay: Replay | None) -> dict[str, dict[str, DomainMeasure]]:
        """Measures by domain of the encoder after each domain, the first run shared by all arms."""
        found, state = {}, None
        for number, name in enumerate(self.domains):
            trainer = self._trainer(arm if number else "first", number, state, replay)
            state = trainer.train()
            found[f"after {name}"] = {
                other: self._measure(trainer, other) for other in [*self.domains][: number + 1]
            }
        return found

    def _trainer(
        self, arm: str, number: int, state: TrainerState | None, replay: Replay | None
    ) -> Trainer:
        study, names = self.study, [*self.domains]
        steps = self.first_steps + number * self.more_steps
        base = ParentRun(steps=steps - self.more_steps) if number else None
        training = study.training.model_copy(update={"steps": steps, "continue_from": base})
        learned = [[e for e in self.domains[n] if e.split == "train"] for n in names[: number + 1]]
        mix = self._mix(learned, state, replay) if number and replay else None
        sampler = Sampler(
            *([e for own in learned for e in own], self.reader, study.views),
            study.model.patch_voxels,
            batch_size=training.batch_size,
            seed=study.seed,
            replay=mix,
        )
        return Trainer(
            self.out / arm.replace(" ", "-") / str(number),
            build_objective(random_encoder(study, study.seed), study),
            sampler,
            RunSettings(Training(**dict(training)), study.monitoring),
            initial_state=(lambda: state) if state else None,
        )

    def _mix(
        self, learned: Sequence[Sequence[Entry]], state: TrainerState | None, replay: Replay
    ) -> ReplayMix:
        assert state
        earlier = {subject_name(e): e for own in learned[:-1] for e in own}
        embed = partial(self._embed, [*earlier.values()], state)
        rng = np.random.default_rng(self.study.seed)
        chosen = replay.choose.choose(len(earlier), embed, rng) if replay.share else []
        names = [*earlier]
        return ReplayMix(replay.share, frozenset(names), frozenset(names[n] for n in chosen))

    def _embed(self, entries: Sequence[Entry], state: TrainerState) -> np.ndarray:
        objective = build_objective(random_encoder(self.study, 0), self.study)
        objective.load_state_dict(state.objective)
        volumes = (PreparedVolume(self.reader.read_volume(e.id), e.meta) for e in entries)
        crop, encoder = self.study.views.crop_voxels, objective.eval().encoder
        vectors = [embed_prepared(encoder, crop, volume).vector for volume in volumes]
        return np.stack(vectors).astype(np.float64)

    def _measure(self, trainer: Trainer, name: str) -> DomainMeasure:
        bank = self.banks[name]
        sampler = bank_sampler(bank, bank.entries(self.domains[name]), self.reader)
        return measure_bank(trainer.objective, bank, name, sampler, trainer.compute.device)


def print_arm(arm: str, sequel: Sequel, encoders: dict[str, dict[str, DomainMeasure]]) -> None:
    """The losses of an arm by domain and encoder, and how far old ones rose."""
    table = domain_table(sequel.banks, encoders, {}, {}, 0.95)
    print(f"\n{arm}\n\n| domain | " + " | ".join(table.encoders) + " | rise since it came |")
    print("|---|" + "---:|" * (len(table.encoders) + 1))
    for row in table.rows:
        means = [loss.mean for loss in row.losses if loss]
        cells = [f"{loss.mean:.3f}" if loss else "" for loss in row.losses]
        print(f"| {row.domain} | " + " | ".join(cells) + f" | {means[-1] / means[0] - 1:+.1%} |")
    if table.backward:
        low, high = table.backward.interval or (float("nan"), float("nan"))
        print(f"\nbackward transfer {table.backward.mean:+.3f} [{low:+.3f}, {high:+.3f}]")


def public_domains(study: Study, catalog: Catalog) -> Domains:
    """The four domains: CT by the distance of slices, MR by the type of stored numbers."""
    found: dict[str, list[Entry]] = {}
    for entry in catalog.entries:
        header = nib.load(study.pseudonyms.origins[entry.id].path).header
        ct = "CT 2.5 mm" if header.get_zooms()[2] < 2.75 else "CT 3 mm"
        name = ct if entry.modality == "CT" else f"MR {header.get_data_dtype()}"
        found.setdefault(name, []).append(entry)
    return dict(sorted(found.items()))


def bench_forgetting() -> None:
    """Run all arms and print their tables; what is done in `build/bench` is not done again."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    study = load_study(STUDY)
    study = study.model_copy(update={"output": str(OUT / "study"), "ablate": None})
    for stage in ("inventory", "preprocess"):
        run_stage(stage, study, {})
    catalog = Catalog.read(layout.catalog_table(study))
    reader = preprocess.crop_reader(study, catalog, catalog.entries)
    sequel = Sequel(study, reader, public_domains(study, catalog), OUT)
    sequel.freeze()
    for arm, replay in ARMS.items():
        print_arm(arm, sequel, sequel.run(arm, replay))
