"""Fine-tune the encoder of a bundle in plain PyTorch, to predict one number per scan.

    python examples/finetune_plain_pytorch.py build/demo/pretrain/encoder TABLE.csv --modality MR

TABLE.csv has a line `path,number` for each training scan, without a header.
"""

import argparse
import csv
from pathlib import Path

import torch
from torch import nn

from ssl_pipeline import load_encoder
from ssl_pipeline.preprocess.prepare import PreparedVolume, model_input


def finetune(bundle: Path, table: Path, modality: str, steps: int = 50) -> list[float]:
    """Train encoder and head on the middle crop of each scan; returns the loss of each step."""
    encoder = load_encoder(bundle)
    with open(table) as file:
        rows = [(Path(path), float(number)) for path, number in csv.reader(file)]
    scans = [encoder.prepare(path, modality) for path, _ in rows]
    crops = torch.stack([middle_crop(scan, encoder.crop_voxels) for scan in scans])
    spacing_mm = torch.tensor([scan.meta.spacing_mm for scan in scans])  # (z, y, x)
    target = torch.tensor([[number] for _, number in rows])
    network = encoder.model.train()
    head = nn.Linear(network.dim, 1)
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=1e-4)
    losses = []
    for _ in range(steps):
        tokens = network(crops, spacing_mm)  # (scans, tokens, dim)
        loss = nn.functional.mse_loss(head(tokens.mean(dim=1)), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def middle_crop(scan: PreparedVolume, size: tuple[int, int, int]) -> torch.Tensor:
    """The crop (1, z, y, x) in the middle of a prepared scan, padded with its lowest value."""
    image = torch.from_numpy(model_input(scan.data, scan.meta))
    for axis, side in enumerate(size):
        start = max(0, (image.shape[axis] - side) // 2)
        image = image.narrow(axis, start, min(side, image.shape[axis] - start))
    missing = [(0, side - have) for side, have in zip(size, image.shape, strict=True)]
    padding = [amount for pair in reversed(missing) for amount in pair]
    return nn.functional.pad(image, padding, value=float(image.min()))[None]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="encoder bundle")
    parser.add_argument("table", type=Path, help="CSV of path,number")
    parser.add_argument("--modality", choices=("CT", "MR"), required=True)
    parser.add_argument("--steps", type=int, default=50)
    for step, loss in enumerate(finetune(**vars(parser.parse_args())), 1):
        print(f"step {step}: loss {loss:.4g}")
