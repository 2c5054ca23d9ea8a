"""Export to ONNX: crops and their spacing to tokens, on any runtime.

The size of a crop is fixed, as pretraining had it, for positions and patches are traced for it; the
batch is free. What was written is run by onnxruntime and compared with torch before it gets its
name, on the input of the self-test.
"""

import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from ssl_pipeline.errors import UserError
from ssl_pipeline.export.bundle import LoadedEncoder
from ssl_pipeline.export.self_test import synthetic_input

SUFFIX = ".onnx"
REQUIRED_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-4  # of tokens, whose numbers are about 1
BATCH_SIZE = 2  # of the input that is compared


def write(encoder: LoadedEncoder, path: Path) -> str:
    """Write a graph with inputs `crops` (batch, 1, z, y, x) and `spacing_mm` (batch, 3).

    Its output is `tokens` (batch, tokens, dim). Raises UserError where the packages of the extra
    `export` are missing, or where onnxruntime gives other tokens than torch.
    """
    missing = [name for name in REQUIRED_PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {missing[0]}: pip install 'ssl-pipeline[export]'.")
    example = synthetic_input(encoder.crop_voxels)
    crops = torch.cat([example.crops, example.crops.flip(2)])
    spacing_mm = example.spacing_mm.repeat(BATCH_SIZE, 1) * torch.tensor([[1.0], [2.0]])
    batch = {0: torch.export.Dim("batch")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(
            encoder.model,
            (crops, spacing_mm),
            path,
            dynamo=True,
            input_names=["crops", "spacing_mm"],
            output_names=["tokens"],
            dynamic_shapes=(batch, batch),
            external_data=False,
            verbose=False,
        )
    differs = max(
        _max_token_difference(encoder, path, crops[:n], spacing_mm[:n]) for n in (1, BATCH_SIZE)
    )
    if not differs <= TOLERANCE:
        raise UserError(
            f"onnxruntime gives other tokens than torch, by up to {differs:.2g}: another version "
            "of it, or of onnxscript, may do better."
        )
    return f"tokens of onnxruntime are torch's to {differs:.1g}"


@torch.inference_mode()
def _max_token_difference(
    encoder: LoadedEncoder, path: Path, crops: Tensor, spacing_mm: Tensor
) -> float:
    """The largest difference of a token's numbers."""
    from onnxruntime import InferenceSession

    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (tokens,) = session.run(None, {"crops": crops.numpy(), "spacing_mm": spacing_mm.numpy()})
    return float((torch.from_numpy(tokens) - encoder.model(crops, spacing_mm)).abs().max())
