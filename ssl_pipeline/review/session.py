"""One reader's session: what is asked next, the pictures of it, and what was answered.

Knows no HTTP. Items have names of their own on the page, made with the salt, so that neither a name
nor a repetition of one can be recognised.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from types import MappingProxyType
from typing import Any

from ssl_pipeline.errors import UserError
from ssl_pipeline.review.audit_log import AuditLog
from ssl_pipeline.review.log_entry import LogEntry, Question, ReaderAnswer
from ssl_pipeline.review.neighbours import Neighbour
from ssl_pipeline.review.pictures import (
    LABEL_COLOURS,
    LABELS,
    OPACITY,
    PLANES,
    PREDICTION,
    ReviewVolume,
    with_moved_overlay,
    with_stripes,
)
from ssl_pipeline.review.queue import OverlaidScan, ReviewItem, awaiting, open_items
from ssl_pipeline.review.verdicts import standing_answers
from ssl_pipeline.review.viewer_volumes import MAX_VOXELS, thinning
from ssl_pipeline.volumes.pseudonyms import Coder

MAX_NAMES = 100
OVERLAYS: Mapping[Question, str] = MappingProxyType(  # that questions are about
    {"label_fits": LABELS, "prediction_correct": PREDICTION}
)
MAX_VOLUMES = 4  # in memory: those of an item that is shown and of the next


class ChangedScanError(UserError):
    """The files of what is shown hold something else than was found."""


@dataclass(frozen=True)
class VolumeSource:
    """How a scan is opened, and whether all files that are asked about hold what was found."""

    is_unchanged: Callable[[], bool]
    open: Callable[[], ReviewVolume]


class ReviewSession:
    """What one reader is asked and answers, in one study.

    `volumes` has how what is shown is opened; `findings` what quality control found, by the scan's
    code, where the page may say it; `neighbours` the most similar scans, the nearest first.
    """

    def __init__(
        self,
        items: Sequence[ReviewItem],
        log: AuditLog,
        reader: str,
        readers: int,
        code: Coder,
        volumes: Mapping[OverlaidScan, VolumeSource],
        findings: Mapping[str, str],
        neighbours: Mapping[str, Sequence[Neighbour]] = MappingProxyType({}),
    ) -> None:
        self.reader = reader
        self._items = {code("page", reader, *map(str, item.key)): item for item in items}
        self._names = {item.key: name for name, item in self._items.items()}
        self._log, self._readers, self._code = log, readers, code
        self._volumes, self._findings, self._neighbours = volumes, findings, neighbours
        self._opened: dict[tuple[OverlaidScan, Question | None], ReviewVolume] = {}
        self._reading: dict[tuple[OverlaidScan, Question | None], Lock] = {}
        self._lock = Lock()

    def status(self) -> dict[str, Any]:
        """The names of the next items, MAX_NAMES at most, and how far the reader is."""
        answers = standing_answers(self._log.read())
        items = self._items.values()
        own = open_items(items, answers, self._readers, self.reader, self._code)
        return {
            "next": [self._names[item.key] for item in own[:MAX_NAMES]],
            "left": len(own),
            "awaiting": len(awaiting(items, answers, self._readers)),
            "total": len(self._items),
        }

    def describe(self, name: str) -> dict[str, Any]:
        """What the page needs to draw an item. Raises KeyError, ChangedScanError and ReadError."""
        item = self._items[name]
        volumes = [self.volume(name, number) for number in range(len(item.scans))]
        finding = "" if item.origin == "planted" else self._findings.get(item.scans[0], "")
        return {
            "name": name,
            "question": item.question,
            "finding": finding,
            "palette": {"colours": LABEL_COLOURS.tolist(), "opacity": OPACITY},
            "volumes": [_description(volume) for volume in volumes],
            "neighbours": [round(each.similarity, 2) for each in self.neighbours(name)],
        }

    def neighbours(self, name: str) -> Sequence[Neighbour]:
        """The scans that are most similar to an item's first. Raises KeyError."""
        return self._neighbours.get(self._items[name].scans[0], ())

    def volume(self, name: str, number: int) -> ReviewVolume:
        """A scan of an item: the scan itself (0), or the one that it is compared with (1).

        Raises KeyError, IndexError, ReadError, and ChangedScanError for a scan that is not as the
        inventory found it.
        """
        item = self._items[name]
        key = (item.images[number], item.question if item.origin == "planted" else None)
        with self._lock:
            reading = self._reading.setdefault(key, Lock())
        with reading:  # it is read once, however many slices are asked for; others need not wait
            volume = self._opened.get(key)
            if volume is None:
                volume = self._open(*key)
                with self._lock:
                    while len(self._opened) >= MAX_VOLUMES:
                        del self._opened[next(iter(self._opened))]
                    self._opened[key] = volume
            return volume

    def answer(self, name: str, fields: Mapping[str, Any]) -> LogEntry:
        """Save an answer on an item.

        Raises KeyError, ValidationError, OSError if it is not saved, and ChangedScanError where the
        files of a scan are not those that the reader was shown.
        """
        item = self._items[name]
        for image in item.images:
            self._check_unchanged(image)
        answer = ReaderAnswer.model_validate(
            {
                **fields,
                "item": item.code,
                "question": item.question,
                "content_sha256": item.content_sha256,
                "round": item.round,
            }
        )
        return self._log.append(self.reader, answer)

    def undo(self) -> str:
        """Take back the reader's last answer that stands; the item's name, empty without any."""
        own = [each for each in standing_answers(self._log.read()) if each.reader == self.reader]
        for entry in reversed(own):
            name = self._names.get(entry.key)
            if name:
                self._log.append(self.reader, entry.withdrawal())
                return name
        return ""

    def _open(self, image: OverlaidScan, planted: Question | None) -> ReviewVolume:
        """What is shown, corrupted where it is planted for a question."""
        self._check_unchanged(image)
        volume = self._volumes[image].open()
        if planted is None:
            return volume
        overlay = OVERLAYS.get(planted)
        return with_moved_overlay(volume, overlay) if overlay else with_stripes(volume)

    def _check_unchanged(self, image: OverlaidScan) -> None:
        if not self._volumes[image].is_unchanged():
            raise ChangedScanError(
                f"{image.scan}, or what lies over it, is not as it was found: run the stage"
                " inventory again, or `ssl-pipeline predict` where its prediction was changed."
            )


def _description(volume: ReviewVolume) -> dict[str, Any]:
    """What the page needs to draw a volume: (x, y, z), but for the text of the spacing."""
    return {
        "slices": {plane: volume.slice_count(plane) for plane in PLANES},
        "spacing": volume.spacing_text,
        "windows": dict(volume.windows),
        "overlays": list(volume.overlays),
        "steps": {detail: thinning(volume, detail) for detail in MAX_VOXELS},
    }
