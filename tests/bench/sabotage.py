"""Deliberately bad challengers, and whether the gate of promotions lets one pass.

The study is `workflows/studies/hospital_month.yaml`: an encoder of CT becomes the champion; each
challenger starts from it, with CT and MR to learn from, but for what was done to it. Eight kinds,
five seeds each. The study's own challenger shows that the gate lets a good one pass.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml
from torch import Tensor

from ssl_pipeline.errors import UserError
from ssl_pipeline.export import training_subjects
from ssl_pipeline.models.unet_decoder import PretrainedNetwork
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.training.loop import Trainer
from stages.core import layout
from stages.core.champion import registry_of
from stages.core.runner import run_stage
from stages.core.study import Study
from stages.core.study_file import load_study
from stages.domain_measures import DomainMeasures
from stages.promote import evaluate_gate
from tests.bench.goal_rows import GoalRow, write_rows

OUT = Path("build/bench/champion")
STUDY = Path("workflows/studies/hospital_month.yaml")
SEEDS, PLACES, BLOCK = 5, 24, "blocks.3."
STEPS = 30  # that a challenger is trained for
PREPROCESSING: tuple[dict[str, Any], ...] = (  # one a seed
    {"foreground": "auto"},
    {"mr": {"spacing_mm": [2, 2, 2]}},
    {"ct": {"spacing_mm": [5, 5, 5]}},
    {"ct": {"clip_hu": [-500, 500]}},
    {"mr": {"spacing_mm": [1.5, 1.5, 1.5]}},
)
REFUSALS = (  # sentences that end a challenger before the gate
    "trained with another `preprocess`",
    "was pretrained on",
    "coded with another salt",
    "not finite",
    "stopped at step",
)
Settings = dict[str, Any]  # a study, as its file has it
Break = Callable[[dict[str, Tensor], np.random.Generator], None]  # changes weights in place


def month_one(settings: Settings) -> Settings:
    """The study as it was before the scans of MR came."""
    first = deepcopy(settings)
    first["data"]["roots"] = [root for root in first["data"]["roots"] if root["name"] == "ct"]
    training = first["training"]
    training |= {"steps": training.pop("continue_from")["steps"], "cohort": 1}
    del training["replay"], first["tasks"]["part"]
    first["promote"] |= {"keep": {}, "gain": first["promote"]["keep"]}
    return first


def settings_below(out: Path) -> Settings:
    """The study with all that it writes in the folder `out`, on one core."""
    settings: Settings = yaml.safe_load(STUDY.read_text())
    settings |= {"output": str(out / "study"), "private": str(out / "private")}
    settings["promote"]["registry"] = str(out / "registry")
    settings["promote"]["places"] = PLACES
    settings["training"]["threads"] = 1
    return settings


def with_start(settings: Settings, start: Mapping[str, Any] | None, **training: Any) -> Settings:
    """The study of a challenger that begins with these weights, of random ones if None."""
    changed = deepcopy(settings)
    for key in ("continue_from", "replay"):
        del changed["training"][key]
    changed["training"] |= training
    return {**changed, "init_from": start} if start else changed


def run_stages(settings: Settings, *names: str) -> Study:
    """Run stages of a study; the probe on all of its tasks."""
    file = OUT / "study.yaml"
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    for name in names:
        for task in settings["tasks"] if name == "probe" else [""]:
            run_stage(name, load_study(file), {"task": task} if task else {})
    return load_study(file)


@contextmanager
def broken_weights(change: Break, seed: int) -> Iterator[None]:
    """Runs export weights that were changed after training."""
    final_network = Trainer.final_network

    def broken(trainer: Trainer) -> PretrainedNetwork:
        network = deepcopy(final_network(trainer))
        weights = network.encoder.state_dict()
        with torch.no_grad():
            change(weights, np.random.default_rng(seed))
        return network

    with patch.object(Trainer, "final_network", broken):
        yield


def shuffle_block(weights: dict[str, Tensor], rng: np.random.Generator) -> None:
    """The weights of each matrix of a block in another order."""
    for name, weight in weights.items():
        if BLOCK in name and weight.ndim > 1:
            order = torch.from_numpy(rng.permutation(weight.numel()))
            weight.copy_(weight.flatten()[order].view_as(weight))


def one_nan(weights: dict[str, Tensor], rng: np.random.Generator) -> None:
    """One weight of a block that is no number."""
    names = [name for name in weights if BLOCK in name]
    weights[names[rng.integers(len(names))]].view(-1)[0] = torch.nan


class Sabotages:
    """Studies of challengers, by kind; each starts from the champion but for what is wrong."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.champion = {
            "name": "registry",
            "path": settings["promote"]["registry"],
            "of": f"{settings['promote']['name']}@champion",
        }
        self.kinds: dict[str, Callable[[int], AbstractContextManager[Settings]]] = {
            "learning rate x 30": self.large_rate,
            "shuffled weights of a block": self.shuffled_block,
            "random weights": self.random_weights,
            "new data alone at x 10": self.new_data_alone,
            "other preprocessing": self.other_preprocessing,
            "a test subject in the cohort": self.test_subject,
            "NaN": self.not_a_number,
            "an encoder of another study": self.another_study,
        }

    def large_rate(self, seed: int) -> AbstractContextManager[Settings]:
        """Thirty times the default."""
        return nullcontext(self._trained(learning_rate=0.03))

    @contextmanager
    def shuffled_block(self, seed: int) -> Iterator[Settings]:
        """The champion, after two steps, with a block in disorder."""
        with broken_weights(shuffle_block, seed):
            yield self._trained(steps=2)

    def random_weights(self, seed: int) -> AbstractContextManager[Settings]:
        """Two steps from random weights."""
        return nullcontext(with_start(self.settings, None, steps=2))

    def new_data_alone(self, seed: int) -> AbstractContextManager[Settings]:
        """MR alone, at ten times the rate."""
        changed = self._trained(learning_rate=0.01)
        changed["data"]["roots"][0]["weight"] = 1e-6
        return nullcontext(changed)

    def other_preprocessing(self, seed: int) -> AbstractContextManager[Settings]:
        """Another spacing, window or box than the champion's; of few scans."""
        changed = self._elsewhere(f"preprocessing-{seed}", steps=2)
        changed["init_from"] = self.champion
        changed["preprocess"] |= PREPROCESSING[seed]
        return nullcontext(changed)

    def test_subject(self, seed: int) -> AbstractContextManager[Settings]:
        """From an encoder that was trained on one of the scored subjects."""
        study = run_stages(self.settings)
        catalog = Catalog.read(layout.catalog_table(study))
        registry = registry_of(study)
        source = registry.encoder_folder(registry.resolve(self.champion["of"]))
        bundle = OUT / "leaked"
        shutil.rmtree(bundle, ignore_errors=True)
        shutil.copytree(source, bundle)
        scored = [entry.id for entry in catalog.entries if entry.split == "test"]
        train = [entry.id for entry in catalog.entries if entry.split == "train"]
        known = [*train, scored[seed]]
        salt = study.pseudonyms.salt_fingerprint
        training_subjects.write(bundle, known, catalog.entries, salt)
        return nullcontext(with_start(self.settings, _bundle(bundle), steps=2))

    @contextmanager
    def not_a_number(self, seed: int) -> Iterator[Settings]:
        """The champion, after two steps, with one weight that is none."""
        with broken_weights(one_nan, seed):
            yield self._trained(steps=2)

    def another_study(self, seed: int) -> AbstractContextManager[Settings]:
        """From an encoder of other scans, whose subjects have codes of another salt."""
        other = self._elsewhere(f"other-{seed}", steps=STEPS)
        other["private"] = str(OUT / f"other-{seed}" / "private")
        other["tasks"] = {}
        other["data"]["roots"] = [
            {**other["data"]["roots"][1], "include": f"hippocampus_2{seed}*.nii.gz"}
        ]
        del other["promote"]
        encoder = run_stages(other, "inventory", "preprocess", "pretrain").encoder
        return nullcontext(with_start(self.settings, _bundle(encoder), steps=2))

    def _trained(self, **training: Any) -> Settings:
        return with_start(self.settings, self.champion, **{"steps": STEPS, **training})

    def _elsewhere(self, name: str, steps: int) -> Settings:
        """The study of few scans, in a folder of its own."""
        changed = with_start(self.settings, None, steps=steps)
        changed["name"] = name.replace("-", "_")
        ct, mr = changed["data"]["roots"]
        ct["include"], mr["include"] = "pt_10*.nii.gz", "hippocampus_0[0-2]*.nii.gz"
        return {**changed, "output": str(OUT / name / "study")}


def _bundle(folder: Path) -> dict[str, str]:
    return {"name": "bundle", "path": str(folder)}


def verdict_on(settings: Settings) -> str:
    """What becomes of a challenger: the gate's verdict, or the sentence that ends it before.

    Raises UserError where another sentence than one of REFUSALS ends it: then the bench is broken.
    """
    try:
        study = run_stages(settings, "inventory", "preprocess", "pretrain", "probe")
        decision = evaluate_gate(study, DomainMeasures(study)).decision
    except UserError as error:
        if not any(reason in str(error) for reason in REFUSALS):
            raise
        return f"refused: {error}"
    return f"{decision.verdict}: {decision.reason}"


def bench_sabotage(seeds: int = SEEDS) -> None:
    """Write how many challengers of each kind were blocked."""
    OUT.mkdir(parents=True, exist_ok=True)
    settings = settings_below(OUT)
    if not (OUT / "registry/aliases").exists():
        run_stages(month_one(settings), "inventory", "preprocess", "pretrain", "probe", "promote")
    sabotages = Sabotages(settings)
    blocked = dict.fromkeys(sabotages.kinds, 0)
    for seed in range(seeds):
        for kind, sabotage in sabotages.kinds.items():
            with sabotage(seed) as broken:
                said = verdict_on({**broken, "seed": seed})
            blocked[kind] += not said.startswith("promoted")
            print(f"{kind}, seed {seed}: {said}", flush=True)
        write_rows("continual", "sabotage", list(sabotage_rows(blocked, seed + 1)))


def sabotage_rows(blocked: Mapping[str, int], seeds: int) -> Iterator[GoalRow]:
    """How many of these seeds were blocked, by kind and of all."""
    for kind, count in blocked.items():
        yield GoalRow(f"blocked: {kind}", f"{count} of {seeds}", "all", count == seeds)
    total, every = sum(blocked.values()), seeds * len(blocked)
    yield GoalRow("blocked: all kinds", f"{total} of {every}", "all", total == every)
