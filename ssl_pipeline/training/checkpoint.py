"""Checkpoints: complete or absent, verified by hash, the newest good one found automatically.

A checkpoint `step-000200.pt` is named only when all its bytes are on the disk; `step-000200.json`
beside it, written after it, holds its SHA-256. A damaged one is skipped for the one
before. Loading is `weights_only`: a checkpoint is data, not code.
"""

import io
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_pipeline.io.atomic import (
    remove_temporaries,
    sha256_file,
    write_bytes,
    write_json,
)
from ssl_pipeline.io.records import parse_object, read_json_if_whole
from ssl_pipeline.progress import info
from ssl_pipeline.training.compute import Compute
from ssl_pipeline.training.snapshots import STEP_PATTERN

FORMAT_VERSION = 4


@dataclass(frozen=True)
class TrainerState:
    """What a run continues from: all that its config, its seed and its step do not say."""

    step: int  # steps that are done
    objective: dict[str, Tensor]
    optimizer: dict[str, Any]  # empty in a state that a run begins from without moments
    ema: list[Tensor]  # moving average of what is exported; empty without one
    scaler: dict[str, Any]
    previous_embeddings: Tensor | None  # of the last snapshot
    compute: Compute
    config: dict[str, Any]  # settings of the run, as JSON
    earlier_computes: dict[int, Compute] = field(default_factory=dict)  # by their last step

    def resume_on(self, compute: Compute) -> "TrainerState":
        """The state to go on from with this device and these threads; a change is recorded."""
        if compute == self.compute:
            return self
        earlier = self.earlier_computes | {self.step: self.compute}
        return replace(self, compute=compute, earlier_computes=earlier)


def pack_state(state: TrainerState) -> bytes:
    """The bytes of a checkpoint."""
    buffer = io.BytesIO()
    computes = {
        "compute": state.compute.to_json(),
        "earlier_computes": {step: each.to_json() for step, each in state.earlier_computes.items()},
    }
    torch.save({**vars(state), "format": FORMAT_VERSION, **computes}, buffer)
    return buffer.getvalue()


def unpack_state(content: bytes) -> TrainerState:
    """The state that a checkpoint's bytes hold, on the CPU. ValueError for another format."""
    saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if saved.pop("format") != FORMAT_VERSION:
        raise ValueError("a checkpoint of another format")
    compute = Compute(**saved.pop("compute"))
    earlier = {step: Compute(**each) for step, each in saved.pop("earlier_computes").items()}
    return TrainerState(**saved, compute=compute, earlier_computes=earlier)


def save_checkpoint(folder: Path, state: TrainerState, keep: int) -> None:
    """Write the state after its step, and remove all but the newest `keep` checkpoints."""
    remove_temporaries(folder)
    path = folder / f"step-{state.step:08d}.pt"
    write_bytes(path, pack_state(state))
    write_json(path.with_suffix(".json"), {"step": state.step, "sha256": sha256_file(path)})
    for old in sorted(folder.glob(f"{STEP_PATTERN}.pt"))[:-keep]:
        old.with_suffix(".json").unlink(missing_ok=True)
        old.unlink()


def load_newest(folder: Path) -> TrainerState | None:
    """The newest complete checkpoint, on the CPU; None where there is none."""
    for path in sorted(folder.glob(f"{STEP_PATTERN}.pt"), reverse=True):
        if _is_whole(path):
            with suppress(ValueError):
                return unpack_state(path.read_bytes())
        info(f"Checkpoint {path.name} is damaged or of another version; trying the one before.")
    return None


def superseded_files(folder: Path) -> list[Path]:
    """The files of all checkpoints but the newest complete one; empty where there is none."""
    for path in sorted(folder.glob(f"{STEP_PATTERN}.pt"), reverse=True):
        if _is_whole(path):
            return sorted(
                other for other in folder.glob(f"{STEP_PATTERN}.*") if other.stem != path.stem
            )
    return []


def _is_whole(path: Path) -> bool:
    seal = read_json_if_whole(parse_object, path.with_suffix(".json")) or {}
    return "sha256" in seal and bool(seal["sha256"] == sha256_file(path))
