"""Base class of tasks: the settings that all share, and the scans that a task uses.

A task names the source of its labels on the scans themselves (a label file or a target that the
roots of the study declare), so that a task needs no file list of its own.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    field_serializer,
)

from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.evaluation.config import Finetune, Probe
from ssl_pipeline.store.catalog import Catalog, Entry, check_scan_attribute, scan_attribute
from ssl_pipeline.types import Triple
from ssl_pipeline.volumes.inventory import Scan


class Task(Section):
    """Base class of all kinds of tasks."""

    METRIC: ClassVar[str]
    SUPPORTED_STAGES: ClassVar[tuple[str, ...]]  # that can evaluate it

    title: str = Field(description="title of the task in the report")
    classes: dict[NonNegativeInt, str] = Field(
        min_length=1, description="values of the label or target, and their names"
    )
    roots: tuple[str, ...] = Field((), description="roots whose scans take part; all if empty")
    train_on: dict[str, tuple[str, ...]] = Field(
        {},
        description="training scans to use, by root, site, modality or a target and its values, "
        "such as one protocol of several; all if empty. All scored scans are scored",
    )
    stages: tuple[Literal["probe", "finetune", "robustness"], ...] = Field(
        (), description="stages that evaluate it; all that can if empty"
    )
    probe: Probe | None = Field(None, description="settings of `probe` that differ for this task")
    finetune: Finetune | None = Field(
        None, description="settings of `finetune` that differ for this task"
    )
    crop_voxels: tuple[PositiveInt, PositiveInt, PositiveInt] | None = Field(
        None, description="size of a crop (z, y, x), in voxels; that of the views if empty"
    )

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
        """Values of the classes in labels or targets, in the order of their indices."""
        return tuple(self.classes)

    def crop_size(self, default: Triple) -> Triple:
        """The size of this task's crops (z, y, x)."""
        return self.crop_voxels or default

    def entries(self, catalog: Catalog) -> list[Entry]:
        """Scans of the task's roots, in the catalog's order; UserError for an unknown root."""
        known = {entry.root for entry in catalog.entries}
        for root in self.roots:
            if root not in known:
                raise UserError(
                    f"Task {self.title!r}: no prepared scan comes from root {root!r}; "
                    f"{suggest_name(root, known)}"
                )
        return [e for e in catalog.entries if not self.roots or e.root in self.roots]

    def filter_train_on(self, entries: Sequence[Entry]) -> list[Entry]:
        """Scans without those for training that `train_on` leaves out.

        Raises UserError for a name or value that no scan has.
        """
        for name, values in self.train_on.items():
            check_scan_attribute(f"Task {self.title!r}: train_on", entries, name, values)
        return [e for e in entries if e.split != "train" or self.can_train_on(e)]

    def can_train_on(self, scan: Entry | Scan) -> bool:
        """Whether `train_on` includes a scan."""
        return all(scan_attribute(scan, name) in values for name, values in self.train_on.items())

    def entries_with(self, entries: Iterable[Entry], kind: str, name: str) -> list[Entry]:
        """Scans that have the `kind` ("label" or "target") of this name, whatever its value.

        Raises UserError where no scan has the name, or it is empty for all.
        """
        sources = [(entry, entry.labels if kind == "label" else entry.targets) for entry in entries]
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
