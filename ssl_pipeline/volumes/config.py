"""The `data` section of a study: roots of scans, labels, metadata rules, table and splits.

A relative folder of scans or labels is taken from where the pipeline is run, as its output folder
is; a table and split lists belong to the study, and are taken from the folder of its file.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.io.text import clean_text
from ssl_pipeline.volumes.metadata_rules import Fractions, Rule, named_groups

Modality = Literal["CT", "MR"]
SplitName = Literal["train", "val", "test"]
KNOWN_COLUMNS = (  # of a table
    *("path", "subject", "visit", "frame", "site", "modality", "sequence", "split"),
    "sampling_weight",
)
CROP_PLACES = ("volume", "foreground")  # where crops lie that need no label
RESERVED_TARGETS = (*KNOWN_COLUMNS, "root")  # which a scan has beside its targets


class LabelSource(Section):
    """Where the label volumes of a root lie, and which belongs to which image."""

    path: str = Field(description="folder of label volumes; variables and ~ are expanded")
    pattern: str = Field(
        "{folder}/{stem}",
        description="label's path below that folder, from the image's folder below its root and its"
        " file name without suffix; any known suffix will do",
    )
    image_pattern: str | None = Field(
        None,
        description="regular expression over the image's path below its root, whose named groups"
        " `pattern` may use, where the label's name is not built of the image's stem",
    )

    @model_validator(mode="after")
    def _names_the_image(self) -> "LabelSource":
        groups = named_groups(self.image_pattern) if self.image_pattern else set()
        known = {"stem", "folder"} | groups
        if "{" not in self.pattern or set(re.findall(r"{(.*?)}", self.pattern)) - known:
            raise ValueError(f"`{self.pattern}` must be built of {{{'}, {'.join(sorted(known))}}}")
        return self


class Masks(Section):
    """Labels of a root that serve as masks; their voxels above 0 count."""

    foreground: str | None = Field(
        None, description="label that outlines the body, or the brain, in place of what is found"
    )
    anonymised: str | None = Field(
        None, description="label of what was made unrecognisable: never a target of pretraining"
    )


class Root(Section):
    """One folder of scans, all of which are treated in the same way."""

    path: str = Field(description="folder; environment variables and ~ are expanded")
    name: str = Field("", description="short name, the folder's own where empty")
    weight: float = Field(1.0, gt=0, description="share of sampling, against the other roots")
    modality: Modality | None = Field(None, description="needed where the files do not state it")
    layout: Literal["folder", "bids"] = Field("folder", description="how the folder is arranged")
    include: str = Field(
        "**", description="paths of files or folders below the root to take; * also crosses folders"
    )
    exclude: tuple[str, ...] = Field(
        (), description="paths of files or folders below the root to leave out"
    )
    subject: Rule | None = Field(None, description="the person who was scanned")
    visit: Rule | None = Field(
        None,
        description="the subject's visit to the scanner; null takes DICOM's StudyInstanceUID, or"
        " the session of BIDS",
    )
    frame: Rule | None = Field(
        None,
        description="scans of a subject with one value have one coordinate system, so that equal"
        " millimetres are one place; null takes DICOM's FrameOfReferenceUID",
    )
    site: Rule | None = Field(None, description="hospital or scanner of the scan")
    sequences: dict[str, str] = Field(
        {},
        description="regular expressions by the name of a sequence, searched in the path below the"
        " root; the first that matches names it. Without one BIDS or the times in a DICOM header"
        " do",
    )
    targets: dict[str, Rule] = Field({}, description="values that evaluation may predict, by name")
    intensity_offset: float = Field(
        0.0, allow_inf_nan=False, description="added to stored values, to give HU for CT"
    )
    missing_value: float | None = Field(
        None, allow_inf_nan=False, description="stored value of voxels that were not measured"
    )
    labels: dict[str, LabelSource] = Field({}, description="voxel labels, by name")
    masks: Masks = Field(Masks(), description="labels that serve as masks")

    @model_validator(mode="after")
    def _names_are_free(self) -> "Root":
        _check_target_names(self.targets)
        unclear = next((name for name in self.labels if not name or clean_text(name) != name), None)
        if unclear is not None:
            raise ValueError(f"labels has the name {unclear!r}: write it in visible letters")
        place = next((name for name in CROP_PLACES if name in self.labels), None)
        if place and self.masks.foreground != place:
            raise ValueError(
                f"labels has {place}, which a task's `crop_centre` takes for a place: choose"
                " another name"
            )
        return self

    @model_validator(mode="after")
    def _headers_name_subjects(self) -> "Root":
        others = (self.visit, self.frame, self.site, *self.targets.values())
        if any(rule and rule.header for rule in others):
            raise ValueError("`header` is for `subject` alone")
        return self

    @model_validator(mode="after")
    def _sequences_are_patterns(self) -> "Root":
        for name, pattern in self.sequences.items():
            if not name or clean_text(name) != name:
                raise ValueError(f"sequences has the name {name!r}: write it in visible letters")
            named_groups(pattern)
        return self

    @model_validator(mode="after")
    def _masks_are_labels(self) -> "Root":
        for kind, name in self.masks.model_dump(exclude_none=True).items():
            if name not in self.labels:
                tail = (
                    suggest_name(name, self.labels) if self.labels else "the root has no `labels`."
                )
                raise ValueError(f"masks.{kind} is {name}, which is no label: {tail}")
        return self

    @property
    def title(self) -> str:
        """The root's name in results: as given, or its folder's."""
        return self.name or Path(self.path).name.strip("${}") or "root"


class Splits(Section):
    """Which subjects are held out: a table's `split` column goes first, then lists, fractions."""

    fractions: Fractions = Field(Fractions(), description="shares of subjects, assigned by hash")
    lists: dict[SplitName, str] = Field(
        {},
        description="text files with a subject a line; a split with a list has no others",
    )
    stratify: tuple[str, ...] = Field(
        (),
        description="root, site, modality or targets: among the subjects of each combination of"
        " them the fractions are met to a subject or two",
    )
    duplicate_threshold: float | None = Field(
        1.4,
        gt=0,
        description="similarity from which on two scans count as near duplicates, and their"
        " subjects as one: the share of common keypoints times the square root of their number;"
        " null does not search",
    )
    seed: int = Field(0, description="another seed holds out other subjects")


class Visits(Section):
    """Whether scans of one frame lie where their headers say."""

    alignment: Literal["none", "check", "register"] = Field(
        "check",
        description="none: frames are believed; check: scans of one frame and visit are registered"
        " rigidly at low resolution, and one that moved leaves the frame; register: it stays, with"
        " the transform that brings it back, and is resampled nowhere",
    )
    max_motion_mm: float = Field(
        4.0,
        gt=0,
        description="root mean square motion of the corners of a scan from which on it has moved,"
        " and by which registrations there and back may disagree",
    )


class Data(Section):
    """All scans of a study."""

    roots: tuple[Root, ...] = Field((), description="folders of scans")
    table: str | None = Field(
        None,
        description="CSV or Parquet with the columns path, subject, visit, frame, site, modality, "
        "sequence, split, sampling_weight (all but path may be absent); of further columns "
        "`targets` names those that are kept",
    )
    targets: tuple[str, ...] = Field(
        (),
        description="columns of the table that evaluation may predict or group by; results say "
        "their values, and keep no other column",
    )
    splits: Splits = Field(Splits(), description="subjects held out for evaluation")
    visits: Visits = Field(Visits(), description="scans that share a visit and a frame")

    @model_validator(mode="after")
    def _targets_are_columns(self) -> "Data":
        if self.targets and self.table is None:
            raise ValueError("targets are columns of a `table`: name it, or leave them out")
        _check_target_names(self.targets)
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> "Data":
        titles = [root.title for root in self.roots]
        titles += [Path(self.table).stem] if self.table else []  # the root of its further scans
        twice = sorted({title for title in titles if titles.count(title) > 1})
        if twice:
            raise ValueError(
                f"two roots, or one and the table, are called {twice[0]}; give each root a `name`"
                " of its own"
            )
        return self


def _check_target_names(names: Iterable[str]) -> None:
    """Raise ValueError for a name that a scan has already, or that cannot be read as one."""
    for name in names:
        if name in RESERVED_TARGETS:
            raise ValueError(
                f"targets has {name}, which has a meaning of its own: leave it out, or choose"
                " another name"
            )
        if not name or clean_text(name) != name:
            raise ValueError(f"targets has the name {name!r}: write it in visible letters")


def expand_path(text: str) -> Path:
    """A path of a study, with environment variables and ~ expanded.

    Raises UserError for a variable that is not set or is empty, and for the home of nobody.
    """
    for braced, bare in re.findall(r"\$(?:{([^}]*)}|(\w+))", text):
        if not os.environ.get(braced or bare):
            raise UserError(
                f"The path `{text}` uses the environment variable {braced or bare}, which is not"
                " set; set it, or write the path in full."
            )
    try:
        return Path(os.path.expandvars(text)).expanduser()
    except RuntimeError:
        raise UserError(
            f"The path `{text}` begins with the home folder of a user who is not known here; write"
            " the path in full."
        ) from None


def resolve_path(text: str, folder: Path = Path()) -> Path:
    """A path of a study, expanded and absolute; a relative one lies below `folder`.

    Raises UserError as `expand_path` does.
    """
    return Path(os.path.normpath(Path.cwd() / folder / expand_path(text)))
