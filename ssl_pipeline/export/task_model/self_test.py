"""The self-test of a task model: a stored crop and the network's outputs for it.

It is computed in float64, on the CPU, as that of an encoder is (see `export.self_test`).
"""

import math
from copy import deepcopy

import torch
from torch import Tensor, nn

from ssl_pipeline.evaluation.prediction.predictor import ScanPredictor
from ssl_pipeline.export.self_test import SelfTestInput


@torch.inference_mode()
def run_self_test(
    predictor: ScanPredictor, network: nn.Module, test_input: SelfTestInput
) -> dict[str, Tensor]:
    """The crop and the network's outputs for it, as they are stored."""
    crops, spacing_mm = test_input.crops, test_input.spacing_mm
    double = deepcopy(network).double()
    outputs = predictor.outputs(double, crops[:, 0].double(), spacing_mm.double())
    return {"crops": crops, "spacing_mm": spacing_mm, "outputs": outputs.float()}


def output_difference(
    predictor: ScanPredictor, network: nn.Module, stored: dict[str, Tensor]
) -> float:
    """The largest difference between the stored outputs and those computed now.

    Relative to the largest stored one, where that is above 1.
    """
    test_input = SelfTestInput(stored["crops"], stored["spacing_mm"])
    again = run_self_test(predictor, network, test_input)["outputs"]
    if again.shape != stored["outputs"].shape:
        return math.inf
    scale = max(1.0, float(stored["outputs"].abs().max()))
    return float((again - stored["outputs"]).abs().max()) / scale
