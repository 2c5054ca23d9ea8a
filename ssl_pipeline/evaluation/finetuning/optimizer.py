"""Optimisation of fine-tuning: an optimiser, a schedule, a number of steps that labels decide.

The head has a higher learning rate than the encoder, for it starts from scratch: with one rate for
both, 150 steps on 5 labelled subjects gave a validation Dice of .15 and .58 on two small
structures, and .76 and .76 with six times the rate in the head (from random weights .03 and .44,
and .68 and .71).

Separate from the pretraining loop, which is made for runs of weeks: a cell takes minutes and is its
own checkpoint.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.adaptation.adaptation import encoder_blocks
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.finetuning.early_stopping import EarlyStopping
from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.training.compute import Compute, compute_on
from ssl_pipeline.training.ema import EMA
from ssl_pipeline.training.schedule import (
    has_weight_decay,
    warmup_cosine,
    warmup_polynomial,
)
from ssl_pipeline.types import Triple

SCHEDULES = {"cosine": warmup_cosine, "polynomial": warmup_polynomial}
MAX_GRAD_NORM = {"adamw": 1.0, "sgd": 12.0}  # largest norm of the gradient; of SGD nnU-Net's
MOMENTS = {"adamw": 2, "sgd": 1}  # averages that an optimiser keeps of a weight
SGD_MOMENTUM = 0.99  # nnU-Net's


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the training of one cell."""

    section: Finetune  # with steps and batch_size
    method: AdaptationMethod | None  # None for a model without encoder
    crop_size: Triple  # (z, y, x), voxels
    seed: int
    device: str
    is_pretrained: bool = False  # whether the encoder has something to lose

    @property
    def has_pretrained_decoder(self) -> bool:
        """Whether the decoder has it too."""
        return self.is_pretrained and self.section.decoder.start == "pretrained"

    @property
    def compute(self) -> Compute:
        """Precision and attention kernel."""
        return finetune_compute(self.section, self.device)


def finetune_compute(section: Finetune, device: str) -> Compute:
    """How a cell computes on a device such as cuda:0."""
    return compute_on(torch.device(device).type, section.precision, torch.get_num_threads())


@contextmanager
def fixed_seed(seed: int, device: str) -> Iterator[None]:
    """Draw a head's weights and dropout from `seed`; torch's own generators stay as they were."""
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def count_trained_parameters(model: nn.Module) -> int:
    """Number of trained parameters of a model."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


class PeakMemory:
    """Peak memory of training, measured from before its first step on."""

    def __init__(self, model: nn.Module, moments: int) -> None:
        self.model, self.moments = model, moments
        self.device = next(model.parameters()).device
        self.saved_storages: dict[int, int] = {}  # bytes that the forward pass saves, by address
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    @contextmanager
    def record_activations(self) -> Iterator[None]:
        """Record what a forward pass in the block saves for the backward pass."""
        own = {parameter.untyped_storage().data_ptr() for parameter in self.model.parameters()}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                self.saved_storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield

    @property
    def peak_bytes(self) -> int:
        """The peak, in bytes."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        sizes = [(p.numel() * p.element_size(), p.requires_grad) for p in self.model.parameters()]
        # A weight that is trained has a gradient and the optimiser's moments beside it.
        beside = 1 + self.moments
        return sum(size * (1 + beside * free) for size, free in sizes) + sum(
            self.saved_storages.values()
        )


def optimise(
    model: nn.Module,
    loss_of: Callable[[int], Tensor],
    settings: TrainingSettings,
    early_stopping: EarlyStopping | None = None,
) -> int:
    """Minimise `loss_of`, which maps a step's number to its loss, in `section.steps` steps.

    The model's encoder is its attribute `encoder`, which the method adapts; everything else counts
    as the head, but for a pretrained decoder, as does all of a model without encoder. Returns the
    peak memory in bytes: the most that a GPU had allocated; on a CPU, weights, gradients, moments
    and saved activations. Raises FloatingPointError where the weights are not finite at the end.
    """
    section, compute = settings.section, settings.compute
    compute.set_attention_kernel(model)
    optimiser = _build_optimiser(parameter_groups(model, settings), section)
    scaler, average = compute.scaler(), EMA(model, section.ema_decay) if section.ema_decay else None
    wanted = [p for group in optimiser.param_groups for p in group["params"]]
    memory = PeakMemory(model, MOMENTS[section.optimizer])
    for step in range(section.steps):
        for group in optimiser.param_groups:
            rate = section.learning_rate * lr_schedule_factor(step, section)
            group["lr"] = rate * group["scale"] * (step >= group["first_step"])
        optimiser.zero_grad(set_to_none=True)
        with memory.record_activations() if step == 0 else nullcontext(), compute.autocast():
            loss = loss_of(step)
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(wanted, MAX_GRAD_NORM[section.optimizer])
        scaler.step(optimiser)
        scaler.update()
        if average:
            average.update(step)
        if early_stopping and early_stopping.is_due(step):
            early_stopping.check(average.averaged_module() if average else model)
            if early_stopping.is_over:
                break
    if average:
        average.copy_to_module()
    if early_stopping:
        early_stopping.restore(model)
    if not all(bool(parameter.isfinite().all()) for parameter in wanted):
        raise FloatingPointError(
            "training diverged, lower finetune.learning_rate or lr_factor of the method"
        )
    return memory.peak_bytes


def _build_optimiser(groups: list[dict[str, Any]], section: Finetune) -> torch.optim.Optimizer:
    if section.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=section.learning_rate, momentum=SGD_MOMENTUM, nesterov=True
        )
    return torch.optim.AdamW(groups, lr=section.learning_rate)


def lr_schedule_factor(step: int, section: Finetune) -> float:
    """Factor of the largest learning rate: linear warm-up, then the schedule to zero."""
    warmup = round(section.warmup * section.steps)
    return SCHEDULES[section.schedule](step, section.steps, warmup)


def parameter_groups(model: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Parameter groups with the `scale` of their learning rate and the `first_step` that trains
    them; vectors have no weight decay.
    """
    section, method = settings.section, settings.method
    delay = round(section.head_warmup * section.steps) if settings.is_pretrained else 0
    gathered: dict[tuple[float, float, int], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale, decays, first_step = section.head_lr_factor, has_weight_decay(parameter), 0
        if settings.has_pretrained_decoder and name.startswith("decoder."):
            scale, first_step = 1.0, delay
        if method and name.startswith("encoder."):
            encoder = model.get_submodule("encoder")
            assert isinstance(encoder, Encoder)
            scale, decays, first_step = (
                method.block_lr_factor(_layers_above(name, encoder)),
                decays and method.USES_WEIGHT_DECAY,
                delay,
            )
        decay = section.weight_decay if decays else 0.0
        gathered.setdefault((scale, decay, first_step), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "scale": scale, "first_step": first_step}
        for (scale, decay, first_step), parameters in gathered.items()
    ]


def _layers_above(name: str, encoder: Encoder) -> int:
    """Number of layers above a parameter: 0 for the last norm, all for the embedding."""
    blocks = len(encoder_blocks(encoder))
    if found := re.match(rf"encoder\.{encoder.trunk}\.(\d+)\.", name):
        return blocks - int(found[1])
    return 0 if name.startswith("encoder.norm.") else blocks + 1
