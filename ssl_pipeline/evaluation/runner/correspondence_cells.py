"""Cells of a correspondence: landmarks that are known in training subjects, found in scored ones.

Each scored scan is described once for an encoder and answers all draws of clicked subjects; no more
than one is held in memory beside what was clicked.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from ssl_pipeline.config.section import Section
from ssl_pipeline.evaluation.cells import BODY_BOX, GREY_VALUES, PIXELS, RANDOM, Cell
from ssl_pipeline.evaluation.correspondence.body_box import places_in_box, relative_places
from ssl_pipeline.evaluation.correspondence.describer import Describer, Places
from ssl_pipeline.evaluation.correspondence.encoder_describer import (
    EncoderDescriber,
    describing_network,
    search_window,
)
from ssl_pipeline.evaluation.correspondence.grey_values import GreyValueDescriber
from ssl_pipeline.evaluation.correspondence.search import (
    ClickedScan,
    DescribedScan,
    Match,
    query_of_clicks,
)
from ssl_pipeline.evaluation.metrics.correspondence import HERE
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.runner.probe_run import ProbeRun
from ssl_pipeline.evaluation.runner.subject_splits import check_learnable, labelling_order
from ssl_pipeline.evaluation.tasks.correspondence import Correspondence
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.store.catalog import Entry

METHOD = "nearest"
GREY_PATCH, GREY_STEP = (8, 8, 8), (2, 2, 2)
NOTE = (
    "Landmarks are the centres of labels, each in as many training subjects that show it as are "
    "labelled, and each is sought in every scored scan as the place whose features are the most "
    "similar. Place in the body: the same relative place in the box about the body. Grey values: "
    "those about a place, blurred by six widths. Found with confidence: the share of landmarks "
    f"that reach a confidence of {HERE:g}; not here, where cut away: the share that do not when "
    "the scan ends before them."
)
Draw = tuple[int, int]  # labelled subjects and seed
Row = dict[str, Any]
Found = tuple[Match | None, float]  # and its confidence where its place is cut away


class _EveryCell(Section):
    """The section of all cells, which have no settings beside those of the task."""

    format: int = 1  # raise it when the same scans give other places


def correspondence_run(runner: TaskRunner, task: Correspondence) -> ProbeRun:
    """The search for a task's landmarks, by every encoder and by the baselines."""
    own = _with_own_baselines(runner)
    cells = CorrespondenceCells(own, task)
    every = [
        (Cell(METHOD, name, budget, seed), _EveryCell())
        for name in own.context.initializations
        for budget, seed in cells.draws
    ]
    return ProbeRun(own, every, cells.compute, (NOTE,))


def _with_own_baselines(runner: TaskRunner) -> TaskRunner:
    """The same with the baselines of places in the stead of pixels, of which there are no crops."""
    compared = dict(runner.context.initializations)
    if PIXELS in compared:
        del compared[PIXELS]
        compared |= {BODY_BOX: "", GREY_VALUES: ""}
    return TaskRunner(runner.task, replace(runner.context, initializations=compared))


class CorrespondenceCells:
    """A correspondence with its labels: computes its cells."""

    def __init__(self, runner: TaskRunner, task: Correspondence) -> None:
        self.runner, self.task = runner, task
        budgets = runner.budgets(task.clicks)
        self.draws = [
            (own, seed) for seed in range(runner.context.evaluate.seeds) for own in budgets
        ]
        self.rows = lru_cache(maxsize=1)(self._compute_rows)

    def compute(self, cell: Cell, section: Section) -> Row:
        """Content of a cell's file: where each landmark was found in each scored scan."""
        by_draw, seconds = self.rows(
            cell.initialization, cell.seed if cell.initialization == RANDOM else None
        )
        costs = {"trained_parameters": 0, "seconds": 0.0, "feature_seconds": round(seconds, 3)}
        return {"predictions": by_draw[cell.subjects, cell.seed], "costs": costs}

    def _compute_rows(
        self, initialization: str, weights_seed: int | None
    ) -> tuple[dict[Draw, list[Row]], float]:
        """Rows of all draws, or those of one seed, and the seconds that a draw took."""
        started = time.monotonic()
        draws = [each for each in self.draws if weights_seed in (None, each[1])]
        found: dict[Draw, list[Row]] = {draw: [] for draw in draws}
        if initialization == BODY_BOX:
            searched = self._search_box(draws)
        else:
            searched = self._search(self._describer(initialization, weights_seed or 0), draws)
        for draw, entry, matches in searched:
            found[draw] += self._rows_of_scan(entry, matches)
        return found, (time.monotonic() - started) / len(draws)

    def _search(
        self, describer: Describer, draws: Sequence[Draw]
    ) -> Iterator[tuple[Draw, Entry, list[Found]]]:
        """What is found by descriptors, scan by scan."""
        queries = {}
        for draw in draws:
            clicked = self._clicked(draw)
            described = [describer.describe(each.scan) for each in clicked]
            seed = self.runner.context.seed
            queries[draw] = query_of_clicks(describer, clicked, described, seed)
        for entry in self.runner.test_entries:
            prepared = self._prepared(entry)
            scan = DescribedScan(describer, prepared, describer.describe(prepared))
            for draw, query in queries.items():
                without = scan.confidences_without(query, self.landmarks[entry.id])
                yield draw, entry, list(zip(scan.find(query), without.tolist(), strict=True))

    def _search_box(self, draws: Sequence[Draw]) -> Iterator[tuple[Draw, Entry, list[Found]]]:
        """What is found by the relative place in the body, which has no confidence."""
        relative = {draw: relative_places(self._clicked(draw)) for draw in draws}
        for entry in self.runner.test_entries:
            prepared = self._prepared(entry)
            for draw, own in relative.items():
                matches = [
                    None if np.isnan(place).any() else Match(place, math.nan)
                    for place in places_in_box(own, prepared)
                ]
                yield draw, entry, [(match, math.nan) for match in matches]

    def _describer(self, initialization: str, seed: int) -> Describer:
        context = self.runner.context
        if initialization == GREY_VALUES:
            return GreyValueDescriber(GREY_PATCH, GREY_STEP)
        encoder = context.encoder_factory(initialization, context.seed + seed)
        self.runner.check_patch(encoder.patch)
        weights = None if initialization == RANDOM else context.decoder_weights(initialization)
        window = self.task.crop_voxels or search_window(encoder, context.crop_voxels)
        return EncoderDescriber(describing_network(encoder, weights), window, context.device)

    def _clicked(self, draw: Draw) -> list[ClickedScan]:
        """The scans of a draw that are clicked: of each landmark those of the first subjects that
        show it.
        """
        budget, seed = draw
        known, train = self._landmarks_by_subject, self.runner.subject_split.train_subjects
        ordered = labelling_order(train, known, self.runner.context.seed + seed)
        clicked = [
            set([s for s in ordered if landmark in known[s]][: budget or None])
            for landmark in range(len(self.task.classes))
        ]
        found = []
        for entry in self.runner.subject_split.entries:
            is_clicked = np.array([entry.subject in subjects for subjects in clicked])
            if entry.split == "train" and is_clicked.any():
                places = np.where(is_clicked[:, None], self.landmarks[entry.id], np.nan)
                found.append(ClickedScan(self._prepared(entry), places))
        return found

    def _prepared(self, entry: Entry) -> PreparedVolume:
        return PreparedVolume(self.runner.context.reader.read_volume(entry.id), entry.meta)

    @cached_property
    def landmarks(self) -> dict[str, Places]:
        """The landmarks of every scan. Raises UserError where they cannot be learned."""
        labels, found = self.runner.label_maps, {}
        for entry in self.runner.subject_split.entries:
            found[entry.id] = self.task.landmarks(labels.load(entry, self.task.label))
        scored = {entry.id for entry in self.runner.test_entries}
        shown = [(e in scored, i) for e, own in found.items() for i in _shown(own)]
        check_learnable(
            self.task, [i for is_in, i in shown if not is_in], [i for is_in, i in shown if is_in]
        )
        return found

    @cached_property
    def _landmarks_by_subject(self) -> dict[str, frozenset[int]]:
        found: dict[str, frozenset[int]] = {
            subject: frozenset() for subject in self.runner.subject_split.train_subjects
        }
        for entry in self.runner.subject_split.entries:
            if entry.split == "train":
                found[entry.subject] |= frozenset(_shown(self.landmarks[entry.id]))
        return found

    def _rows_of_scan(self, entry: Entry, found: Sequence[Found]) -> Iterator[Row]:
        """A row for each landmark that is known in the scan and was clicked."""
        spacing = np.array(entry.meta.spacing_mm)
        truth = self.landmarks[entry.id]
        for landmark in _shown(truth):
            match, without = found[landmark]
            if match is not None:
                distance = float(np.linalg.norm((match.place - truth[landmark]) * spacing))
                yield {
                    "scan": entry.id,
                    "subject": entry.subject,
                    "landmark": landmark,
                    "place": match.place.round(2).tolist(),
                    "truth": truth[landmark].round(2).tolist(),
                    "distance_mm": round(distance, 3),
                    "confidence": _to_json(match.confidence),
                    "confidence_without": _to_json(without),
                }


def _shown(landmarks: Places) -> list[int]:
    """Landmarks that a scan shows."""
    found: list[int] = np.flatnonzero(~np.isnan(landmarks).any(axis=1)).tolist()
    return found


def _to_json(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
