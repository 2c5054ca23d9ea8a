"""Speed of segmentation networks: training steps, and the prediction of a CT, beside peers.

The network is the same everywhere: `resenc` with its U-Net, dynamic-network-architectures'
`ResidualEncoderUNet` with the same channels, blocks and kernels, and MONAI's `DynUNet` with the
same channels and residual blocks. Steps are forward, loss and backward at every resolution that a
network gives, and fused AdamW, on one thread; seconds are those of the processor.

nnU-Net's packages are imported from its own environment, behind those of the project, so that all
compute with one torch. `python -m tests.bench.segmentation_speed ours 96,128,128` predicts once.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import run
from types import SimpleNamespace

import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.data.label_maps import IGNORE_LABEL
from ssl_pipeline.evaluation.finetuning.segmentation_loss import deep_supervision_loss
from ssl_pipeline.evaluation.finetuning.segmentation_model import SegmentationModel
from ssl_pipeline.evaluation.finetuning.sliding_window import (
    WindowSettings,
    sliding_window_inference,
)
from ssl_pipeline.export.formats.nnunet import network_arguments
from ssl_pipeline.models import ResEnc
from ssl_pipeline.models.unet_decoder import UNetDecoder
from ssl_pipeline.types import Triple, triple
from tests.bench.memory import current_kib
from tests.bench.subprocess_timer import SubprocessTimer
from tests.bench.table import BenchmarkRow, Times, interleaved_times

MODEL, CLASSES = ResEnc(preset="S"), 2
BATCH_SIZE, ROUNDS, PREDICTION_ROUNDS = 2, 11, 3
OVERLAP = Finetune().overlap
OURS, NNUNET, MONAI = "ours", "nnU-Net", "MONAI"
GOAL = 1.0  # as fast as peers, in no more memory
PEERS = {NNUNET: "ResidualEncoderUNet", MONAI: "DynUNet"}

Network = Callable[[Tensor], list[Tensor]]  # crops (batch, 1, z, y, x) to logits, finest first


def step_rows(crop: Triple, environment: Path) -> Iterator[BenchmarkRow]:
    """Training steps a second of ours and of peers."""
    works = {
        name: SubprocessTimer(time.process_time, build_step, name, crop, environment)
        for name in (OURS, *PEERS)
    }
    taken = interleaved_times(works, ROUNDS, clock=None)
    size = "x".join(map(str, crop))
    for name, network in PEERS.items():
        yield BenchmarkRow(
            f"training steps a second, {BATCH_SIZE} crops of {size}",
            f"{1 / taken.median(OURS):.3g}",
            f"{name}'s {network}: {1 / taken.median(name):.3g}",
            taken.ratio(OURS, name),
            GOAL,
            taken.ratio_interval(OURS, name),
        )


def prediction_rows(crop: Triple, shape: Triple, environment: Path) -> Iterator[BenchmarkRow]:
    """Seconds and peak memory of predicting a CT by the sliding windows of ours and of peers."""
    seconds: dict[str, list[float]] = {name: [] for name in (OURS, *PEERS)}
    mib: dict[str, list[float]] = {name: [] for name in (OURS, *PEERS)}
    for _ in range(PREDICTION_ROUNDS):
        for name in seconds:
            words = (name, *(",".join(map(str, each)) for each in (crop, shape)), str(environment))
            command = [sys.executable, "-m", "tests.bench.segmentation_speed", *words]
            said = run(command, check=True, capture_output=True, text=True).stdout.split()
            seconds[name].append(float(said[-2]))
            mib[name].append(float(said[-1]))
    windows = {NNUNET: "nnUNetPredictor", MONAI: "SlidingWindowInferer"}
    for what, unit, rounds in (("seconds", "s", seconds), ("peak memory", "MiB", mib)):
        taken = Times(rounds)
        for name, peer in windows.items():
            yield BenchmarkRow(
                f"predicting {'x'.join(map(str, shape))} voxels, {what}",
                f"{taken.median(OURS):.3g} {unit}",
                f"{name}'s {peer}: {taken.median(name):.3g} {unit}",
                taken.ratio(OURS, name),
                GOAL,
            )


def build_step(name: str, crop: Triple, environment: Path) -> Callable[[], object]:
    """A training step on noise, ready on the processor."""
    torch.set_num_threads(1)
    module, network = build_network(name, environment)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    images, truth = torch.randn(BATCH_SIZE, 1, *crop), torch.randint(3, (BATCH_SIZE, *crop))
    annotated = torch.ones(BATCH_SIZE, CLASSES, dtype=torch.bool)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        deep_supervision_loss(network(images), truth, annotated, IGNORE_LABEL).backward()
        optimizer.step()

    return step


def build_network(name: str, environment: Path) -> tuple[nn.Module, Network]:
    """A network by its name in the tables, and its logits of crops."""
    if name == OURS:
        encoder = MODEL.build()
        model = SegmentationModel(encoder, UNetDecoder(encoder), CLASSES)
        model.to(memory_format=torch.channels_last_3d)  # as fine-tuning has it
        return model, lambda images: model.forward_resolutions(
            images[:, 0], torch.ones(len(images), 3)
        )
    if name == NNUNET:
        return (module := _nnunet_network(environment)), module
    stages = MODEL.stages
    dyn = DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=1 + CLASSES,
        kernel_size=[stage.kernel for stage in stages],
        strides=[stage.stride for stage in stages],
        upsample_kernel_size=[stage.stride for stage in stages[1:]],
        filters=[stage.out_channels for stage in stages],
        res_block=True,
    )
    return dyn, lambda images: [dyn(images)]


def _nnunet_network(environment: Path) -> nn.Module:
    import pydoc

    _import_from(environment)
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

    arguments = network_arguments(MODEL.stages)
    for key in ("conv_op", "norm_op", "nonlin"):
        arguments[key] = pydoc.locate(arguments[key])
    return ResidualEncoderUNet(
        input_channels=1, num_classes=1 + CLASSES, deep_supervision=True, **arguments
    )


def _import_from(environment: Path) -> None:
    """Let packages be imported from an environment where the project's has none of that name."""
    sys.path.append(str(next(environment.glob("lib/python3*/site-packages"))))


def predict(name: str, crop: Triple, shape: Triple, environment: Path) -> tuple[float, float]:
    """Seconds of the processor, and peak MiB beside network and scan, of predicting classes."""
    torch.set_num_threads(1)
    module, network = build_network(name, environment)
    module.eval()
    if name == NNUNET:
        import nnunetv2.inference.predict_from_raw_data  # noqa: F401  (it takes seconds)
    scan = torch.randn(1, 1, *shape)
    work = {OURS: _predict_ours, MONAI: _predict_monai, NNUNET: _predict_nnunet}[name]
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, began = current_kib("VmRSS"), time.process_time()
    with torch.inference_mode():
        work(module, network, scan, crop)
    return time.process_time() - began, (current_kib("VmHWM") - before) / 1024


def _predict_ours(module: nn.Module, network: Network, scan: Tensor, crop: Triple) -> Tensor:
    def probabilities(starts: list[Triple]) -> Tensor:
        windows = [
            scan[0, :, z : z + crop[0], y : y + crop[1], x : x + crop[2]] for z, y, x in starts
        ]
        return network(torch.stack(windows))[0].softmax(dim=1)

    settings = WindowSettings(crop, OVERLAP, BATCH_SIZE)
    slabs = sliding_window_inference(triple(scan.shape[2:]), settings, probabilities)
    return torch.cat([torch.from_numpy(slab.values).argmax(dim=0).byte() for slab in slabs])


def _predict_monai(module: nn.Module, network: Network, scan: Tensor, crop: Triple) -> Tensor:
    inferer = SlidingWindowInferer(crop, BATCH_SIZE, OVERLAP, mode="gaussian")
    return inferer(scan, lambda windows: network(windows)[0]).argmax(dim=1).byte()


def _predict_nnunet(module: nn.Module, network: Network, scan: Tensor, crop: Triple) -> Tensor:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=1 - OVERLAP,
        use_mirroring=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    module.decoder.deep_supervision = False
    predictor.network = module
    predictor.configuration_manager = SimpleNamespace(patch_size=list(crop))
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=1 + CLASSES)
    return predictor.predict_sliding_window_return_logits(scan[0]).argmax(dim=0).byte()


if __name__ == "__main__":
    sizes = [triple(map(int, text.split(","))) for text in sys.argv[2:4]]
    print(*predict(sys.argv[1], sizes[0], sizes[1], Path(sys.argv[4])))
