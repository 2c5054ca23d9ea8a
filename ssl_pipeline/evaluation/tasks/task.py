"""Base class of tasks: the settings that all share, and what a kind of task declares of itself.

A task names the source of its labels on the scans themselves (a label file or a target that the
roots of the study declare), so that a task needs no file list of its own. All that others ask of a
task it answers here: nobody tests of which kind it is. What computes its cells needs torch and is
imported when it is asked for, so that a study can be read without.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import (
    Field,
    field_serializer,
    field_validator,
    model_validator,
)

from ssl_pipeline.config.automatic import AutoTriple, is_auto
from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.cells import NOT_PRETRAINED
from ssl_pipeline.evaluation.config import Evaluate, Finetune, Probe
from ssl_pipeline.evaluation.data.label_maps import LabelMaps
from ssl_pipeline.evaluation.metrics.scores import CellScores, Predictions
from ssl_pipeline.evaluation.tasks.classes import Classes, TargetValue
from ssl_pipeline.evaluation.tasks.cost import CostInputs, TaskCost
from ssl_pipeline.io.text import clean_text
from ssl_pipeline.store.catalog import Entry, ScanRow, check_scan_attribute, scan_attribute
from ssl_pipeline.types import Triple
from ssl_pipeline.volumes.inventory import Scan

if TYPE_CHECKING:
    from torch import nn

    from ssl_pipeline.evaluation.prediction.predictor import ScanPredictor
    from ssl_pipeline.evaluation.runner.context import TaskRunner
    from ssl_pipeline.evaluation.runner.crop_cells import CropCells
    from ssl_pipeline.evaluation.runner.finetune_cells import FinetuneCells
    from ssl_pipeline.evaluation.runner.probe_run import ProbeRun
    from ssl_pipeline.models.encoder import Encoder


@runtime_checkable
class HasTruth(Protocol):
    """A root, a scan or an entry of the catalog: what it has of labels and targets, by name."""

    @property
    def labels(self) -> Mapping[str, Any]:
        """Voxel labels."""

    @property
    def targets(self) -> Mapping[str, Any]:
        """Values that tasks may predict."""


@dataclass(frozen=True)
class TruthName:
    """A label or target that a task reads."""

    kind: Literal["label", "target"]
    key: str  # of the task, that names it
    name: str
    is_required: bool = True  # of every scan of the task; else of the scored ones alone

    def find_in(self, source: HasTruth) -> Mapping[str, Any]:
        """All that a root or scan has of this kind, by name."""
        return source.labels if self.kind == "label" else source.targets


class Task(Section, ABC):
    """Base class of all kinds of tasks."""

    METRIC: ClassVar[str]  # its own one, the first of its scores
    SUPPORTED_STAGES: ClassVar[tuple[str, ...]]  # that can evaluate it
    HAS_FREE_CROP: ClassVar[bool] = False  # whether a crop of any size is learned from
    HAS_LANDMARKS: ClassVar[bool] = False  # whether its predictions are places in scans
    TAKES_SCAN_FEATURES: ClassVar[bool] = False  # whether one vector a scan can be probed
    MIN_CLASSES: ClassVar[int] = 1  # that training subjects must show
    # A scan or a voxel: of what its model gives probabilities of the classes; of a number, nothing.
    CLASSIFIED: ClassVar[Literal["", "scan", "voxel"]] = ""
    # Keys that change neither its truth nor its crops.
    TRUTH_INDEPENDENT_KEYS: ClassVar[frozenset[str]] = frozenset(
        {"title", "stages", "probe", "finetune"}
    )

    kind: str
    title: str = Field(description="title of the task in the report")
    classes: Classes = Field(
        min_length=1,
        description="values of the label or target, and their names: {0: left}, {left: L} or [L]; "
        "of a number and a word the number is the value, of two words the second",
    )
    roots: tuple[str, ...] = Field((), description="roots whose scans take part; all if empty")
    train_on: dict[str, tuple[TargetValue, ...]] = Field(
        {},
        description="training scans to use, by root, site, modality or a target and its values, "
        "such as one protocol of several; all if empty",
    )
    score_on: dict[str, tuple[TargetValue, ...]] = Field(
        {},
        description="scored scans to use, in the same way; all if empty. Where it differs from "
        "train_on the task is one of shift, which the report shows apart",
    )
    stages: tuple[Literal["probe", "finetune", "robustness"], ...] = Field(
        (), description="stages that evaluate it; all that can if empty"
    )
    probe: Probe | None = Field(None, description="settings of `probe` that differ for this task")
    finetune: Finetune | None = Field(
        None, description="settings of `finetune` that differ for this task"
    )
    crop_voxels: AutoTriple | None = Field(
        None,
        description="size of a crop (z, y, x), in voxels; that of the views if empty; auto plans"
        " the largest that fits into plan.memory_gib",
    )

    @field_validator("crop_voxels")
    @classmethod
    def _crop_is_positive(cls, crop: Triple | None) -> Triple | None:
        if crop is not None and not is_auto(crop) and min(crop) < 1:
            raise ValueError(f"crop_voxels is {list(crop)}: give three positive numbers (z, y, x)")
        return crop

    @model_validator(mode="after")
    def _class_names_differ(self) -> "Task":
        words = [clean_text(name) for name in self.classes.values()]
        folded = [word.casefold() for word in words]
        for value, word in zip(self.classes, words, strict=True):
            if not word:
                raise ValueError(f"classes.{value} has no name: write one in visible letters")
            if folded.count(word.casefold()) > 1:
                raise ValueError(f"classes.{value} is {word}, as another class is: name them apart")
        return self

    @model_validator(mode="after")
    def _label_values_are_numbers(self) -> "Task":
        word = next((value for value in self.classes if isinstance(value, str)), None)
        if word is not None and self.truth_names()[0].kind == "label":
            raise ValueError(
                f"classes has the value {word!r}, and label files hold whole numbers from 0 on: "
                "write the number"
            )
        return self

    @field_serializer("probe", "finetune")
    def _as_given(self, section: Section | None) -> dict[str, Any] | None:
        """Settings that are not given are not those of the task."""
        return section.model_dump(mode="json", exclude_unset=True) if section else None

    @property
    def evaluation_stages(self) -> tuple[str, ...]:
        """The stages that evaluate it."""
        return tuple(
            stage for stage in self.SUPPORTED_STAGES if not self.stages or stage in self.stages
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their indices; none for a number."""
        return tuple(self.classes.values())

    @property
    def class_values(self) -> tuple[int, ...]:
        """Values of the classes in label files, in the order of their indices."""
        return tuple(self.names_by_value)

    @property
    def names_by_value(self) -> dict[int, str]:
        """The classes by their values in label files."""
        return {value: name for value, name in self.classes.items() if isinstance(value, int)}

    def crop_size(self, default: Triple) -> Triple:
        """The size of this task's crops (z, y, x)."""
        return self.crop_voxels or default

    def entries(self, scans: Sequence[ScanRow]) -> list[ScanRow]:
        """Those of the task's roots, in their order; UserError for a root that none comes from."""
        known = {scan.root for scan in scans}
        for root in self.roots:
            if root not in known:
                raise UserError(
                    f"Task {self.title!r}: no usable scan comes from root {root!r}; "
                    f"{suggest_name(root, known)}"
                )
        return [scan for scan in scans if not self.roots or scan.root in self.roots]

    @property
    def is_shift(self) -> bool:
        """Whether it is scored on other scans than those like its training's: another site, say."""
        return self.train_on != self.score_on

    def filter_scans(self, entries: Sequence[ScanRow]) -> list[ScanRow]:
        """Scans without those that `train_on` and `score_on` leave out.

        Raises UserError for a name or value that no scan has.
        """
        for key, chosen in (("train_on", self.train_on), ("score_on", self.score_on)):
            for name, values in chosen.items():
                check_scan_attribute(f"Task {self.title!r}: {key}", entries, name, values)
        return [entry for entry in entries if self.uses(entry)]

    def uses(self, scan: Entry | Scan) -> bool:
        """Whether `train_on`, or of a scan that is not trained on `score_on`, includes it."""
        chosen = self.train_on if scan.split == "train" else self.score_on
        return all(scan_attribute(scan, name) in values for name, values in chosen.items())

    def entries_with(self, entries: Iterable[ScanRow], truth: TruthName) -> list[ScanRow]:
        """Scans that have a label or target, whatever its value.

        Raises UserError where no scan has the name, or it is empty for all.
        """
        kind, name = truth.kind, truth.name
        sources = [(entry, truth.find_in(entry)) for entry in entries]
        known = {word for _, found in sources for word in found}
        if name not in known:
            tail = (
                suggest_name(name, known)
                if known
                else f"the scans of this task have no {kind} at all."
            )
            raise UserError(f"Task {self.title!r}: unknown {kind} {name!r}; {tail}")
        carrying = [entry for entry, found in sources if found.get(name)]
        if not carrying:
            raise UserError(
                f"Task {self.title!r}: {kind} {name!r} is empty for every scan: "
                "see the inventory for what was found."
            )
        return carrying

    @abstractmethod
    def truth_names(self) -> tuple[TruthName, ...]:
        """The labels and targets that it reads."""

    def has_predicted_truth(self, scan: Entry | Scan) -> bool:
        """Whether a label of it that the task reads is a model's prediction that a reader accepted.

        Such a scan may be learned from; no setting is chosen, calibrated or scored by it.
        """
        labels = [truth.name for truth in self.truth_names() if truth.kind == "label"]
        return any(scan.label_versions.get(name, {}).get("kind") == "prediction" for name in labels)

    @abstractmethod
    def usable_entries(self, scans: Sequence[ScanRow]) -> list[ScanRow]:
        """Those of its roots that have the truth; UserError where none has, or it is unusable."""

    def inventory_targets(self, scan: Scan) -> frozenset[int | float] | None:
        """Classes, by index, or the number of a usable scan, as far as the inventory knows them.

        None where it does not.
        """
        present = scan.label_classes.get(self.truth_names()[0].name)
        if present is None:
            return None
        return frozenset(i for i, value in enumerate(self.class_values) if value in present)

    def check_scan(self, scan: Scan) -> None:
        """Raise UserError where the inventory shows that a usable scan cannot be evaluated."""

    def scan_class(self, scan: Entry | Scan) -> int | None:
        """The class of a whole usable scan, by index; None where scans have no class."""
        return None

    def exclusion_note(self, entries: Sequence[Entry]) -> str:
        """What results say of scans of its roots that are not usable; empty where there are none.

        `entries` are those scans.
        """
        return f"{len(entries)} scans without a label for this task were left out." * bool(entries)

    @abstractmethod
    def truth_key(self, entry: Entry, labels: LabelMaps) -> str:
        """What the truth of a scan depends on."""

    @abstractmethod
    def score(self, subjects: Sequence[str], predictions: Predictions) -> CellScores:
        """All metrics of a cell's predictions for these subjects; METRIC comes first."""

    @abstractmethod
    def cost(self, inputs: CostInputs, finetune: Finetune, crop: Triple) -> TaskCost:
        """Cost of its cells, beside that of the encoder."""

    def probe_cells(self, runner: "TaskRunner") -> "CropCells":
        """The labelled crops that probes learn from and are scored on."""
        raise UserError(
            f"Task {self.title!r} is of kind {self.kind}: probes classify whole crops; "
            "list it for finetune alone."
        )

    def probe_run(self, runner: "TaskRunner", probe: Probe) -> "ProbeRun":
        """The cells of its probing: simple classifiers of its crops."""
        from ssl_pipeline.evaluation.runner.probe import crop_probe_run

        return crop_probe_run(self.probe_cells(runner), probe)

    def probe_budgets(self, evaluate: Evaluate) -> Sequence[int | str]:
        """Numbers of labelled subjects, or shares of them, that it is probed with."""
        return evaluate.subjects

    @abstractmethod
    def finetune_cells(self, runner: "TaskRunner") -> "FinetuneCells":
        """Computes the cells of its fine-tuning."""

    def finetune_section(self, finetune: Finetune, labelled_subjects: int) -> Finetune:
        """The section with the steps and batch of cells with so many labelled subjects."""
        return finetune.with_defaults(steps=200, batch_size=16)

    def head_activations(self, finetune: Finetune, crop: Triple) -> float:
        """Activations beside the encoder's that a training crop stores for the backward pass."""
        return 0.0

    def finetune_baselines(self, finetune: Finetune) -> tuple[str, ...]:
        """Baselines of its fine-tuning beside pixels."""
        return ()

    def supported_methods(self, finetune: Finetune) -> tuple[AdaptationMethod, ...]:
        """The adaptation methods that serve it."""
        return finetune.methods

    @abstractmethod
    def build_network(
        self, encoder: "Encoder", method: AdaptationMethod, finetune: Finetune
    ) -> "nn.Module":
        """An untrained network of fine-tuning, whose `encoder` the method is to adapt."""

    @property
    def can_predict(self) -> bool:
        """Whether a fine-tuned network can be asked of a scan without labels."""
        return False

    def leaves_model(self, finetune: Finetune, initializations: Iterable[str]) -> bool:
        """Whether fine-tuning from these initializations leaves a model of the task."""
        has_encoder = bool(set(initializations) - set(NOT_PRETRAINED))
        is_wanted = finetune.keep_networks != "none" and self.can_predict
        return is_wanted and has_encoder and bool(self.supported_methods(finetune))

    def predictor(
        self, networks: Sequence["nn.Module"], finetune: Finetune, crop: Triple
    ) -> "ScanPredictor":
        """What predicts for new scans with trained networks; only where `can_predict`."""
        raise UserError(
            f"Task {self.title!r}: labels say where it is evaluated, and a new scan has none."
        )

    @property
    def overlay_label(self) -> str | None:
        """The label that is drawn over a scan beside the predicted ones; None if none are."""
        return None
