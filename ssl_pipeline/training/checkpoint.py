"""Checkpoints: complete or absent, verified by hash, the newest good one found automatically.

A checkpoint `step-000200.pt` is named only when all its bytes are on the disk; `step-000200.json`
beside it, written after it, holds its SHA-256. A damaged one is skipped for the one
before. Loading is `weights_only`: a checkpoint is data, not code.
"""

import io
from pathlib import Path
from typing import Any

import torch

from ssl_pipeline.io.atomic import (
    read_json,
    remove_temporaries,
    sha256_file,
    write_bytes,
    write_json,
)
from ssl_pipeline.progress import info

FORMAT_VERSION = 2


def pack_state(state: dict[str, Any]) -> bytes:
    """The bytes of a checkpoint."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT_VERSION, **state}, buffer)
    return buffer.getvalue()


def unpack_state(content: bytes) -> dict[str, Any]:
    """The state that a checkpoint's bytes hold, on the CPU."""
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def save_checkpoint(folder: Path, state: dict[str, Any], keep: int) -> None:
    """Write the state after its `step`, and remove all but the newest `keep` checkpoints."""
    remove_temporaries(folder)
    path = folder / f"step-{state['step']:08d}.pt"
    write_bytes(path, pack_state(state))
    write_json(path.with_suffix(".json"), {"step": state["step"], "sha256": sha256_file(path)})
    for old in sorted(folder.glob("step-*.pt"))[:-keep]:
        old.with_suffix(".json").unlink(missing_ok=True)
        old.unlink()


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The newest complete checkpoint, on the CPU; None where there is none."""
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        if _is_whole(path):
            loaded = unpack_state(path.read_bytes())
            if loaded["format"] == FORMAT_VERSION:
                return loaded
        info(f"Checkpoint {path.name} is damaged or of another version; trying the one before.")
    return None


def superseded_files(folder: Path) -> list[Path]:
    """The files of all checkpoints but the newest complete one; empty where there is none."""
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        if _is_whole(path):
            return sorted(other for other in folder.glob("step-*") if other.stem != path.stem)
    return []


def _is_whole(path: Path) -> bool:
    seal = path.with_suffix(".json")
    return seal.exists() and bool(read_json(seal)["sha256"] == sha256_file(path))
