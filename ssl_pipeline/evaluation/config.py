"""Settings of evaluation that all tasks share (`evaluate`, `probe`, `finetune`, `ablate`, ...).

A comparison is only fair when its arms differ in one thing, so settings are given once and hold for
the pretrained encoder, for the same architecture from random weights, and for the baseline of
pixels.
"""

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, model_validator

from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import suggest_name
from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.adaptation.full import Full
from ssl_pipeline.evaluation.cells import BASELINES, RANDOM
from ssl_pipeline.evaluation.corruptions import ALL_CORRUPTIONS, CorruptionConfig
from ssl_pipeline.evaluation.decoders import DecoderConfig
from ssl_pipeline.evaluation.decoders.unet import UNet
from ssl_pipeline.evaluation.finetuning.augmentation_config import CropAugmentation
from ssl_pipeline.evaluation.probes import ProbeMethod
from ssl_pipeline.evaluation.probes.knn import Knn
from ssl_pipeline.evaluation.probes.linear import Linear
from ssl_pipeline.objectives import Contrastive, Hybrid, Mae, ObjectiveConfig
from ssl_pipeline.views.config import Recolour

Percent = Annotated[str, Field(pattern=r"^(100|[1-9]\d?|\d{1,2}\.\d*[1-9]\d*)%$")]  # above 0
Budgets = tuple[NonNegativeInt | Percent, ...]
Seeds = Annotated[int, Field(ge=3)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=80)]


class Evaluate(Section):
    """Scored subjects, numbers of labelled subjects and seeds, and the confidence of intervals."""

    split: Literal["val", "test"] = Field(
        "test", description="subjects that are scored: choose settings on val, report test once"
    )
    seeds: Seeds = Field(
        3,
        description="repetitions, at least 3 for their spread; each draws its labelled subjects "
        "and random weights",
    )
    subjects: Budgets = Field(
        (2, 5, 20, 0),
        min_length=1,
        description="numbers of labelled training subjects, or shares such as 10%; 0 is all",
    )
    encoders: dict[Identifier, str] = Field(
        {"pretrained": ""},
        min_length=1,
        description="encoders to evaluate, by names of your choice: the bundle of each, such as "
        "one that another study trained, or an empty text for this study's own. Model and "
        "preprocessing must be those of this study",
    )
    features: dict[Identifier, str] = Field(
        {},
        description="Parquet files of vectors that other encoders made of whole scans, by names of "
        "your choice: probes of whole scans score them beside the encoders",
    )
    subgroups: tuple[str, ...] = Field(
        (),
        description="root, site, modality or targets by whose values scores are also reported "
        "separately, such as scanner, protocol or sex",
    )
    allow_pretraining_subjects: bool = Field(
        False,
        description="score subjects who were, or may have been, in the pretraining data too: "
        "results then say so",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="nominal coverage of intervals")

    @model_validator(mode="after")
    def _random_is_reserved(self) -> "Evaluate":
        _refuse_reserved_names("encoders", self.encoders)
        _refuse_reserved_names("features", self.features)
        for name in self.features.keys() & self.encoders.keys():
            raise ValueError(f"features.{name} is the name of an encoder too: choose another name")
        return self


class Probe(Section):
    """Simple classifiers on frozen features."""

    methods: tuple[ProbeMethod, ...] = Field(
        (Knn(), Linear()), min_length=1, description="classifiers, each in its own rows"
    )
    batch_size: int = Field(32, ge=1, description="crops of a forward pass")

    @model_validator(mode="after")
    def _distinct(self) -> "Probe":
        _refuse_duplicates([method.name for method in self.methods])
        return self


class Finetune(Section):
    """Fine-tuning on a task, with the same budget for every method and initialization."""

    methods: tuple[AdaptationMethod, ...] = Field(
        (Full(),), min_length=1, description="what of the encoder is trained, each in its own rows"
    )
    steps: NonNegativeInt = Field(
        0,
        description="optimiser steps of a cell; 0 is 200, and for segmentation 500 and five more "
        "a labelled subject, up to 1000",
    )
    batch_size: NonNegativeInt = Field(
        0, description="crops of a step; 0 is 16, and 2 for segmentation"
    )
    optimizer: Literal["adamw", "sgd"] = Field(
        "adamw",
        description="sgd has Nesterov's momentum of 0.99 and gradients of a norm of up to 12, as "
        "nnU-Net's; give it rates of its own: nnU-Net's are learning_rate 0.01, head_lr_factor 1 "
        "and weight_decay 3e-5",
    )
    learning_rate: float = Field(5e-4, gt=0, description="largest learning rate")
    schedule: Literal["cosine", "polynomial"] = Field(
        "cosine",
        description="how the learning rate falls to 0 after warm-up; polynomial is nnU-Net's, of "
        "power 0.9",
    )
    head_lr_factor: float = Field(
        6.0, gt=0, description="factor of learning_rate for the head, which starts from scratch"
    )
    warmup: float = Field(
        0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises from 0"
    )
    weight_decay: float = Field(0.05, ge=0, description="weight decay, of matrices alone")
    head_warmup: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the steps in which a pretrained encoder is left as it is, while the "
        "head learns",
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of an average of the weights over steps, with which cells predict; 0 is "
        "the last weights",
    )
    held_out_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of a segmentation's labelled subjects, at least one, that are not "
        "trained on but choose the best weights; training stops where they have not improved for "
        "three of ten checks. 0 trains on all",
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto",
        description="auto is what the machine computes fastest, measured once a task and kept in "
        "precision.json of its folder",
    )
    jitter_voxels: NonNegativeInt = Field(
        4, description="largest shift of a crop, in voxels, where a task is of crops"
    )
    contrast_jitter: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="largest relative change of contrast of a crop, where a task is of crops",
    )
    augmentation: CropAugmentation = Field(
        CropAugmentation(), description="augmentation of the training crops of a segmentation"
    )
    foreground_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the training crops of a segmentation that lie about a class",
    )
    overlap: float = Field(
        0.5, ge=0, lt=1, description="share of a sliding window that the next one overlaps"
    )
    mirrored_views: bool = Field(
        False,
        description="segment every window also mirrored along the axes of augmentation.flip, and "
        "average",
    )
    largest_component: bool | Literal["auto"] | tuple[Annotated[int, Field(ge=1)], ...] = Field(
        False,
        description="of each class keep the largest connected component alone; auto does so for "
        "those where it raises the Dice of the split val, a list for these classes, 1 the first",
    )
    decoder: DecoderConfig = Field(
        UNet(), description="decoder from the encoder's features to classes of voxels"
    )
    resnet_baseline: bool = Field(
        True, description="train a small ResNet from scratch on the same crops, as a baseline"
    )
    keep_predictions: Literal["first seed", "all", "none"] = Field(
        "first seed", description="which segmentations are written as NIfTI in the scans' own grids"
    )
    keep_networks: Literal["model", "all", "none"] = Field(
        "model",
        description="trained networks to keep: that of the task's model (first method, first "
        "encoder, all labelled subjects, first seed), which `ssl-pipeline predict` takes; all "
        "with most labelled subjects, which robustness needs; or none, and no model",
    )
    seeds: Seeds | None = Field(
        None, description="repetitions, at least 3 for their spread, if not those of evaluate"
    )
    subjects: Budgets | None = Field(
        None, min_length=1, description="labelled subjects, if not those of evaluate"
    )

    @model_validator(mode="after")
    def _distinct(self) -> "Finetune":
        _refuse_duplicates([method.name for method in self.methods])
        return self

    @model_validator(mode="after")
    def _mirrored_as_trained(self) -> "Finetune":
        if self.mirrored_views and not self.augmentation.flip:
            raise ValueError(
                "mirrored_views needs axes along which training mirrors too: give them in "
                "augmentation.flip, or leave mirrored_views out"
            )
        return self

    def with_defaults(self, *, steps: int, batch_size: int) -> "Finetune":
        """The section with these where it leaves the choice."""
        chosen = {"steps": self.steps or steps, "batch_size": self.batch_size or batch_size}
        return self.model_copy(update=chosen)

    def for_methods(self, *methods: AdaptationMethod, keeps_network: bool = False) -> "Finetune":
        """The section that determines a cell of one method, or of a baseline, which has none.

        `keeps_network`: whether its network is kept.
        """
        irrelevant = {"seeds": None, "subjects": None, "resnet_baseline": True}
        keep_networks = "all" if keeps_network else "none"
        changed = {"methods": methods, "keep_networks": keep_networks, **irrelevant}
        return self.model_copy(update=changed)


class Robustness(Section):
    """Evaluation on corrupted scans; needs finetune.keep_networks: all."""

    corruptions: tuple[CorruptionConfig, ...] = Field(
        (), description="corruptions of scans; all of the task's modality if empty"
    )
    severities: tuple[Annotated[int, Field(ge=1, le=5)], ...] = Field(
        (1, 2, 3, 4, 5), min_length=1, description="severity levels, from 1 to 5"
    )

    def conditions(self, modalities: Collection[str]) -> list[tuple[CorruptionConfig, int]]:
        """Corruptions and severities that apply to scans of these modalities."""
        chosen = [
            each for each in self.corruptions or ALL_CORRUPTIONS if each.MODALITY in modalities
        ]
        return [(corruption, severity) for corruption in chosen for severity in self.severities]

    @model_validator(mode="after")
    def _severities_rise(self) -> "Robustness":
        if list(self.severities) != sorted(set(self.severities)):
            raise ValueError(f"severities is {list(self.severities)}: give each once, rising")
        _refuse_duplicates([each.name for each in self.corruptions], "corruptions")
        return self


def _refuse_reserved_names(key: str, names: Collection[str]) -> None:
    taken = {RANDOM: "random weights"} | {short: init for init, short in BASELINES.items()}
    for name in names:
        if name in taken:
            raise ValueError(f"{key}.{name} means {taken[name]}: choose another name")


def _refuse_duplicates(names: list[str], what: str = "methods") -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"{what} is {names}: give each once")


class Ablate(Section):
    """Objectives, and recolouring, compared at equal cost: the FLOPs of `training.steps`."""

    arms: dict[Identifier, ObjectiveConfig] = Field(
        {"mae": Mae(), "contrastive": Contrastive(), "hybrid": Hybrid()},
        min_length=1,
        description="objectives by a name; random weights are always compared too",
    )
    recolour: dict[Identifier, Recolour] = Field(
        {},
        description="recolouring of second views in some arms, by their names; all others have "
        "that of `views`",
    )
    seeds: int = Field(
        3, ge=2, description="encoders that each arm trains, at least 2 for their spread"
    )

    @model_validator(mode="after")
    def _check_names(self) -> "Ablate":
        _refuse_reserved_names("arms", self.arms)
        for name in self.recolour:
            if name not in self.arms:
                raise ValueError(
                    f"recolour names {name}, which is no arm: {suggest_name(name, self.arms)}"
                )
        return self

    @property
    def trials(self) -> list[str]:
        """Every arm with every seed, such as `hybrid-0`; random weights last."""
        return [f"{arm}-{seed}" for arm in (*self.arms, RANDOM) for seed in range(self.seeds)]


class Scaling(Section):
    """The study's own pretraining for parts of its length: what more of it has bought."""

    shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.0625, 0.25),
        min_length=1,
        description="parts of the run's length, rising, each a run with a learning rate that "
        "decays to its end; the study's own encoder is the last point",
    )
    seeds: int = Field(
        1, ge=1, description="encoders of each length; with 1 intervals are over subjects alone"
    )

    @model_validator(mode="after")
    def _check_shares(self) -> "Scaling":
        if list(self.shares) != sorted(set(self.shares)):
            raise ValueError(f"shares is {list(self.shares)}: give each once, rising")
        return self

    @property
    def arms(self) -> dict[str, float]:
        """The share of every length by its name, such as `share_25`; the whole length last."""
        shares = (*self.shares, 1.0)
        return {f"share_{100 * share:g}".replace(".", "_"): share for share in shares}

    @property
    def trials(self) -> list[str]:
        """Every length with every seed, but for the first of the whole: the study's own encoder."""
        *parts, whole = self.arms
        others = [f"{arm}-{seed}" for arm in (whole, RANDOM) for seed in range(1, self.seeds)]
        return [f"{arm}-{seed}" for arm in parts for seed in range(self.seeds)] + others
