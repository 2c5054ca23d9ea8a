"""What an encoder forgets from domain to domain, with and without replay.

Four domains of public data, one after the other: CT of 2.5 mm, CT of 3 mm, and MR of two protocols
of storage (OpenKBP and the hippocampus of the Medical Segmentation Decathlon, laid out as
`workflows/studies/openkbp_hippocampus.yaml` says). Each arm continues the same first run of its
seed; losses are those of the banks of held-out places, so that all are paired by subject.
`bench_forgetting` compares with and without replay, `bench_recipe` other ways to continue.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.export.embed import embed_prepared
from ssl_pipeline.io.atomic import sha256_json
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.registry.domain_losses import domain_table
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.training.checkpoint import TrainerState
from ssl_pipeline.training.config import LowRankUpdates, ParentRun, Training
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
from stages.trainer import build_objective, random_encoder
from tests.bench.goal_rows import GoalRow, write_rows

OUT = Path("build/bench/forgetting")
STUDY = Path("workflows/studies/openkbp_hippocampus.yaml")
FIRST_STEPS, MORE_STEPS, PLACES = 400, 150, 64  # of the first domain, and of each that comes
BATCH_SIZE, SEEDS, CONFIDENCE = 16, 3, 0.95
MAX_RISE, MIN_RISE, MAX_WORSE = 0.05, 0.25, 0.02  # with replay, without it, and of new domains
Arm = Mapping[str, Any]  # settings of `training` in a run that continues
WITHOUT, WITH = "new scans alone", "replay, random"
ARMS: Mapping[str, Arm] = {
    WITHOUT: {"replay": Replay(share=0.0)},
    WITH: {"replay": Replay(choose=RandomReplay())},
}
RECIPES: Mapping[str, Arm] = {
    WITH: ARMS[WITH],
    "replay, a quarter at random": {"replay": Replay(choose=RandomReplay(subjects=0.25))},
    "replay, a quarter typical": {"replay": Replay(choose=TypicalReplay(subjects=0.25))},
    "all by their weights": {},
    "without moments": {**ARMS[WITH], "keep_moments": False},
    "the whole learning rate": {
        **ARMS[WITH],
        "learning_rate": 1e-3 * (FIRST_STEPS / MORE_STEPS) ** 0.5,
    },
    "a tenth of warm-up": {**ARMS[WITH], "warmup": 0.1},
    "low-rank updates": {**ARMS[WITH], "low_rank": LowRankUpdates()},
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

    def run(self, name: str, arm: Arm) -> dict[str, dict[str, DomainMeasure]]:
        """Measures by domain of the encoder after each domain, the first run shared by all arms."""
        found, state = {}, None
        for number, domain in enumerate(self.domains):
            trainer = self._trainer(name if number else "first", number, state, arm)
            state = trainer.train()
            found[f"after {domain}"] = {
                other: self._measure(trainer, other) for other in [*self.domains][: number + 1]
            }
        return found

    def _trainer(self, name: str, number: int, state: TrainerState | None, arm: Arm) -> Trainer:
        study, names = self.study, [*self.domains]
        steps = self.first_steps + number * self.more_steps
        base = ParentRun(steps=steps - self.more_steps) if number else None
        changes = dict(arm) if number else {}
        replay = changes.pop("replay", None)
        changes |= {"steps": steps, "continue_from": base}
        training = study.training.model_copy(update=changes)
        if state and not training.keep_moments:
            state = dataclasses.replace(state, optimizer={})
        learned = [[e for e in self.domains[n] if e.split == "train"] for n in names[: number + 1]]
        mix = self._mix(learned, state, replay) if number and replay else None
        sampler = Sampler(
            *([e for own in learned for e in own], self.reader, study.views),
            study.model.patch_voxels,
            batch_size=training.batch_size,
            seed=study.seed,
            replay=mix,
        )
        own = [training.model_dump(mode="json"), replay and replay.model_dump(mode="json")]
        return Trainer(
            self.out / name.replace(" ", "-") / f"{number}-{sha256_json(own)[:8]}",
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
    table = domain_table(sequel.banks, encoders, {}, {}, CONFIDENCE)
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


def prepared_study(seed: int) -> Study:
    """The study of a seed, preprocessed; what is stored in `build/bench` is not done again."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    study = load_study(STUDY)
    changes = {"output": str(OUT / "study"), "ablate": None, "seed": seed}
    training = study.training.model_copy(update={"batch_size": BATCH_SIZE})
    study = study.model_copy(update={**changes, "training": training})
    for stage in ("inventory", "preprocess"):
        run_stage(stage, study, {})
    return study


def prepare_sequel(seed: int) -> Sequel:
    """The sequel of a seed, with its banks."""
    study = prepared_study(seed)
    catalog = Catalog.read(layout.catalog_table(study))
    reader = preprocess.crop_reader(study, catalog, catalog.entries)
    sequel = Sequel(study, reader, public_domains(study, catalog), OUT / str(seed))
    sequel.freeze()
    return sequel


def bench_forgetting(seeds: int = SEEDS) -> None:
    """Run with replay and without, and write how much old domains lose and new ones gain."""
    losses: dict[str, list[NDArray[np.float64]]] = {arm: [] for arm in ARMS}
    for seed in range(seeds):
        sequel = prepare_sequel(seed)
        for name, arm in ARMS.items():
            encoders = sequel.run(name, arm)
            print_arm(f"{name}, seed {seed}", sequel, encoders)
            losses[name].append(loss_matrix(sequel, encoders))
    write_rows(
        "continual",
        "forgetting",
        forgetting_rows(np.array(losses[WITHOUT]), np.array(losses[WITH])),
    )


def bench_recipe() -> None:
    """Print the tables of other ways to continue, for one seed."""
    sequel = prepare_sequel(0)
    for name, arm in RECIPES.items():
        print_arm(name, sequel, sequel.run(name, arm))


def loss_matrix(
    sequel: Sequel, encoders: Mapping[str, Mapping[str, DomainMeasure]]
) -> NDArray[np.float64]:
    """Mean held-out losses (encoder, domain), in their order; nan before a domain has come."""
    table = domain_table(sequel.banks, encoders, {}, {}, CONFIDENCE)
    rows = [[loss.mean if loss else np.nan for loss in row.losses] for row in table.rows]
    return np.array(rows, np.float64).T


def forgetting_rows(without: NDArray[np.float64], replayed: NDArray[np.float64]) -> list[GoalRow]:
    """The goals, by losses (seed, encoder, domain) without replay and with it: means of seeds."""
    came = np.arange(without.shape[2])
    at_first, with_replay = without[:, came, came], replayed[:, came, came]
    rises = {
        "with replay": replayed[:, -1] / with_replay - 1,
        "without replay": without[:, -1] / at_first - 1,
    }
    largest = {name: float(rise[:, :-1].mean(axis=0).max()) for name, rise in rises.items()}
    worse = float((with_replay / at_first - 1)[:, 1:].mean(axis=0).max())
    return [
        GoalRow(
            "largest rise of an old domain's loss with replay",
            f"{largest['with replay']:+.1%}",
            f"at most {MAX_RISE:.0%}",
            largest["with replay"] <= MAX_RISE,
        ),
        GoalRow(
            "the same without replay",
            f"{largest['without replay']:+.1%}",
            f"above {MIN_RISE:.0%}",
            largest["without replay"] > MIN_RISE,
        ),
        GoalRow(
            "a new domain's loss with replay, over that without",
            f"{worse:+.1%}",
            f"at most {MAX_WORSE:.0%}",
            worse <= MAX_WORSE,
        ),
    ]
