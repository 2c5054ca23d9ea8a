"""Features of all scans of a folder by an encoder of Hugging Face, for `evaluate.features`.

python examples/export_features.py facebook/dinov2-small FOLDER features.parquet
"""

import sys
from pathlib import Path

import ssl_pipeline.torchvision_compat  # noqa: F401, before transformers

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutoModel

from ssl_pipeline.volumes.readers import find_sources, read_volume

name, folder, out = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
whole = AutoModel.from_pretrained(name).eval()
encoder = getattr(whole, "vision_model", whole)  # of CLIP and SigLIP, whose other half reads text
side, rows = encoder.config.image_size, []
for source in find_sources(folder):
    voxels = torch.from_numpy(read_volume(source).data.astype(np.float32))  # (x, y, z)
    low, high = np.percentile(voxels, (1, 99))
    slices = ((voxels - low) / max(high - low, 1e-6)).clamp(0, 1).movedim(2, 0)[:, None]
    images = torch.nn.functional.interpolate(slices, (side, side), mode="bilinear")
    images = ((images - 0.45) / 0.225).expand(-1, 3, -1, -1)  # about what photographs have
    with torch.inference_mode():
        tokens = [encoder(pixel_values=part).last_hidden_state for part in images.split(16)]
    vector = torch.cat(tokens).mean(dim=(0, 1))  # over all tokens of all slices
    path = str(source.path.relative_to(folder))
    rows.append({"path": path, "series": source.series, "features": vector.tolist()})
pq.write_table(pa.Table.from_pylist(rows), out)
