"""The subjects of earlier cohorts that a run replays, frozen when it starts.

Typical ones are chosen by the encoder that the run continues, whose embeddings another machine may
round otherwise: so a run that is resumed reads which they were.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.records import Record, read_record, write_record
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.progress import info
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.training.ranks import RankInfo
from ssl_pipeline.views.rng import generator
from stages import preprocess
from stages.core.layout import replay_record
from stages.core.pretraining_runs import PretrainingRun
from stages.core.study import Study

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.views.sampler import ReplayMix


class ReplayedSubjects(Record):
    """The subjects of earlier cohorts that a run replays, by their codes."""

    format: Literal[1] = 1
    subjects: tuple[str, ...]


def replay_mix(
    run: PretrainingRun,
    catalog: Catalog,
    entries: Sequence[Entry],
    earlier_encoder: Callable[[], "Encoder"],
) -> "ReplayMix | None":
    """What of each step comes from earlier cohorts; None where the study asks for no replay.

    `entries` are the volumes of the run. Earlier subjects are those of whom no volume is new.
    """
    from ssl_pipeline.views.sampler import ReplayMix, subject_name

    replay = run.study.training.replay
    if replay is None:
        return None
    assert run.parent, "a validator of `training` asks for it"
    trained_on = run.parent.lineage_volumes
    volumes: dict[str, list[Entry]] = {}
    for entry in entries:
        volumes.setdefault(subject_name(entry), []).append(entry)
    earlier = {
        name: own[0]
        for name, own in volumes.items()
        if all(entry.id in trained_on for entry in own)
    }
    chosen = _frozen_choice(run, catalog, earlier, earlier_encoder) if replay.share else ()
    return ReplayMix(replay.share, frozenset(earlier), frozenset(chosen))


def _frozen_choice(
    run: PretrainingRun,
    catalog: Catalog,
    earlier: dict[str, Entry],
    earlier_encoder: Callable[[], "Encoder"],
) -> tuple[str, ...]:
    """The replayed ones of the earlier subjects, each with a volume of its own."""
    path = replay_record(run.folder)
    if path.exists():
        remedy = "remove it, and the run chooses anew"
        return read_record(ReplayedSubjects, path, remedy).subjects
    replay, names = run.study.training.replay, list(earlier)
    if replay is None or not names:
        return ()

    def embeddings() -> NDArray[np.float64]:
        return _embed(run.study, catalog, list(earlier.values()), earlier_encoder())

    rng = generator(run.study.seed, 0, "replay")
    chosen = tuple(names[index] for index in replay.choose.choose(len(names), embeddings, rng))
    if RankInfo.from_environment().is_first:
        write_record(path, ReplayedSubjects(subjects=chosen))
        info(
            f"pretrain: replays {len(chosen)} of {format_count(len(names), 'earlier subject')}, "
            f"{replay.share:.0%} of each step"
        )
    return chosen


def _embed(
    study: Study, catalog: Catalog, entries: Sequence[Entry], encoder: "Encoder"
) -> NDArray[np.float64]:
    """Embeddings (n, dim) of stored volumes."""
    from ssl_pipeline.export.embed import embed_prepared

    reader = preprocess.crop_reader(study, catalog, entries)
    vectors = [
        embed_prepared(
            encoder,
            study.views.crop_voxels,
            PreparedVolume(reader.read_volume(entry.id), entry.meta),
        ).vector
        for entry in entries
    ]
    return np.stack(vectors).astype(np.float64)
