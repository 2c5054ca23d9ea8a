"""The report: one HTML file that tells what went in, what was learned and what it is worth.

Self-contained on purpose: it can be mailed, opened without a network and kept beside a paper.
Reading it takes no script. A part whose source is not there is left out with a sentence.
"""

import json
import shlex
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ssl_pipeline.atomic import read_json, write_text
from ssl_pipeline.evaluation.labels import LabelFile
from ssl_pipeline.evaluation.tasks import TaskConfig
from ssl_pipeline.evaluation.tasks.segmentation import Segmentation
from ssl_pipeline.export.card import CARD
from ssl_pipeline.report import figures, inputs, learned, origin, tables, verdict
from ssl_pipeline.report.degradation import degradation, worse_scans
from ssl_pipeline.report.fared import fared
from ssl_pipeline.report.grouped import grouped, grouped_further
from ssl_pipeline.report.judgements import Judgement, Row, notes, read_judgements, warnings
from ssl_pipeline.report.limits import limits
from ssl_pipeline.report.looked import looked
from ssl_pipeline.report.numerals import count
from ssl_pipeline.report.overlay import overlays
from ssl_pipeline.report.reliability import reliability
from ssl_pipeline.report.templates import templates
from ssl_pipeline.report.thumbnails import thumbnails
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.volumes.inventory import Inventory


@dataclass(frozen=True)
class Source:
    """A study, as the report needs it."""

    folder: Path  # where its stages wrote
    name: str
    title: str
    tasks: Mapping[str, TaskConfig]
    config: Mapping[str, Any]  # the study, with every default, less what says where scans lie
    label_file: LabelFile
    encoder: Path | None  # the bundle that was judged; None where another study trained it

    @cached_property
    def catalog(self) -> Catalog | None:
        """The stored volumes; None where preprocessing has not run."""
        path = self.folder / "preprocess" / "catalog.parquet"
        return Catalog.read(path) if path.exists() else None

    @cached_property
    def reader(self) -> CropReader | None:
        """Reads the stored volumes; None where there are none."""
        if self.catalog is None:
            return None
        return CropReader(self.folder / "preprocess" / "volumes", self.catalog)

    @cached_property
    def judged(self) -> dict[str, list[Judgement]]:
        """What each task's encoders scored, by stage; nothing of a task that was not judged."""
        return read_judgements(self.folder, self.tasks)

    @cached_property
    def worse(self) -> dict[str, Row]:
        """What they scored on worse scans, of the tasks that were tried so."""
        tried = self.tasks if self.config.get("robustness") is not None else ()
        return {task: own for task in tried if (own := worse_scans(self.folder, task))}


def write_page(source: Source, path: Path) -> None:
    """Write the report whole."""
    write_text(path, page(source))


def page(source: Source) -> str:
    """The report as HTML. Raises UserError where a table is of another format version."""
    environment = templates()
    environment.filters |= {"quoted": json.dumps, "shell": shlex.quote}
    plainest = [figures.plainest(own) for own in source.judged.values() if own]
    records = origin.records(source.folder)
    return environment.get_template("page.html").render(
        title=source.title or source.name,
        name=source.name,
        answer=verdict.answer(source.judged),
        worth=figures.worth(plainest),
        marks=figures.legend([judgement for judgement, _ in plainest]),
        limits=limits(source.judged, source.worse, source.catalog),
        tasks=[_task(source, t) for t in source.tasks],
        learned=_learned(source),
        own=source.encoder is not None,
        went_in=_went_in(source),
        bundle=_bundle(source),
        modality=_modality(source),
        stages=origin.stages(records),
        trained=origin.trained(records) if source.encoder else None,
        versions=origin.versions(records),
        licences=origin.licences(records),
        config=yaml.safe_dump(dict(source.config), sort_keys=False, allow_unicode=True),
    )


def _task(source: Source, task: str) -> dict[str, Any]:
    config, judgements, worse = source.tasks[task], source.judged[task], source.worse.get(task)
    shown: dict[str, Any] = {"title": config.title, "kind": config.kind, "judged": bool(judgements)}
    if not judgements:
        return shown
    first = judgements[0].results
    pictures, marks = _overlays(source, config, judgements)
    return shown | {
        "sentence": verdict.task_sentence(judgements),
        "warnings": warnings(judgements),
        "train": count(first["n_train_subjects"], "labelled subject"),
        "split": first["split"],
        "test": count(first["n_test_subjects"], "subject"),
        "notes": [*notes(judgements), *filter(None, [looked(source.folder, task)])],
        "legend": figures.legend(judgements),
        "bars": figures.bars(judgements),
        "panels": figures.score_panels(judgements),
        "scores": tables.scores(judgements),
        "differences": tables.differences(judgements),
        "reliability": reliability(judgements),
        "per_class": tables.per_class(judgements),
        "costs": tables.costs(judgements),
        "groups": grouped(judgements),
        "groups_further": grouped_further(judgements),
        "worse": degradation(worse) if worse else None,
        "overlays": pictures,
        "overlay_legend": marks,
    }


def _overlays(
    source: Source, config: TaskConfig, judgements: list[Judgement]
) -> tuple[list[figures.Picture], list[figures.Mark]]:
    if not isinstance(config, Segmentation) or source.reader is None:
        return [], []
    return overlays(judgements[-1], config, source.reader, source.label_file)


def _learned(source: Source) -> dict[str, Any]:
    if source.encoder is None:
        return {"fared": None, "curves": [], "strips": [], "maps": []}
    pretrain = source.folder / "pretrain"
    arrays = learned.read_pictures(pretrain)
    return {
        "fared": fared(pretrain),
        "curves": learned.training_curves(pretrain),
        "strips": learned.strips(pretrain),
        "maps": learned.feature_maps(arrays, source.catalog),
    }


def _went_in(source: Source) -> dict[str, Any]:
    path = source.folder / "inventory" / "scans.parquet"
    shown: dict[str, Any] = {
        "summary": "",
        "tables": [],
        "details": [],
        "stored": "",
        "thumbnails": [],
    }
    if path.exists():
        inventory = Inventory.read(path)
        main = (inputs.by_kind, inputs.by_site, inputs.geometry, inputs.labels, inputs.reasons)
        details = (inputs.rejects, inputs.orphans, inputs.notes)
        shown["summary"] = inputs.summary(inventory)
        shown["tables"] = [table for make in main if (table := make(inventory))]
        shown["details"] = [table for make in details if (table := make(inventory))]
    failed = source.folder / "preprocess" / "failed.json"
    if failed.exists() and (table := inputs.failures(read_json(failed))):
        shown["details"].append(table)
    if source.catalog is not None and source.reader is not None:
        shown["stored"] = inputs.stored(source.catalog)
        shown["thumbnails"] = thumbnails(source.catalog, source.reader)
    return shown


def _modality(source: Source) -> str:
    """The modality of most stored volumes, for the snippet."""
    entries = source.catalog.entries if source.catalog else ()
    return statistics.mode([entry.modality for entry in entries] or ["CT"])


def _bundle(source: Source) -> str:
    """Where the encoder lies, as the snippet names it; empty where there is none."""
    if source.encoder is None:
        return "ENCODER"
    return str(source.encoder) if (source.encoder / CARD).exists() else ""
