"""Check of the device that a study is pretrained on: is it right, does it resume, what is fast.

A device that computes something else, or a run that does not go on as it was, is better found in a
minute than after a week. The options of a run are timed with and without each, one after the other.
"""

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ssl_pipeline.progress import without_progress
from ssl_pipeline.training.calibration import HardwareCheck
from ssl_pipeline.training.compute import reduced_precision
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.loop import Trainer
from ssl_pipeline.training.pace import measure_step

MAX_FEATURE_DIFFERENCE = 1e-3  # in fp32, relative to the largest feature
MIN_COSINE = 0.999  # of a token in the reduced precision and in fp32
MAX_RESUME_DIFFERENCE = 1e-4  # of the norm of all weights, where kernels are not deterministic
COMPARED_SAMPLES = 2  # each gives two crops
CHECKPOINT_STEP, KILL_STEP, LAST_STEP = 2, 3, 5
PLAIN: Mapping[str, Any] = MappingProxyType({"compile": False})

# Builds the trainer of a run in a folder with other settings of `training`.
BuildTrainer = Callable[[Path, Mapping[str, Any]], Trainer]


def check_hardware(
    build: BuildTrainer, training: Training, folder: Path, seconds: float
) -> Iterator[HardwareCheck]:
    """Yield the findings one by one; each option is timed for about so many seconds, twice."""
    yield from check_features(build(folder / "features", PLAIN))
    yield check_resume(build, folder)
    yield from time_options(build, training, folder / "options", seconds)


@torch.no_grad()
def check_features(trainer: Trainer) -> list[HardwareCheck]:
    """Compare features of real crops with those of the CPU in fp32, in both precisions."""
    encoder, device = trainer.objective.encoder.eval(), trainer.compute.device
    samples = trainer.sampler.batch(0, slice(0, COMPARED_SAMPLES))
    batch, images = trainer.make_views(samples)
    on_cpu = deepcopy(encoder).cpu()
    replace(trainer.compute, fused_attention=False).set_attention_kernel(on_cpu)
    expected: Tensor = on_cpu(images.cpu(), batch.spacing_mm.cpu())
    found = encoder(images, batch.spacing_mm).cpu()
    difference = float((found - expected).abs().max() / expected.abs().max())
    reduced = reduced_precision(device)
    with replace(trainer.compute, precision=reduced).autocast():
        short = encoder(images, batch.spacing_mm).float().cpu()
    cosine = float(cosine_similarity(short, expected, dim=-1).min())
    name = f"features on {device} as on the CPU"
    return [
        HardwareCheck(
            name=f"{name}, fp32",
            finding=f"differ by {difference:.1e} of the largest, "
            f"{MAX_FEATURE_DIFFERENCE:g} allowed",
            passed=difference <= MAX_FEATURE_DIFFERENCE,
        ),
        HardwareCheck(
            name=f"{name}, {reduced}",
            finding=f"smallest cosine of a token {cosine:.5f}, {MIN_COSINE:g} needed",
            passed=cosine >= MIN_COSINE,
        ),
    ]


def check_resume(build: BuildTrainer, folder: Path) -> HardwareCheck:
    """Compare a run that dies after a checkpoint and goes on from it with an undisturbed one."""
    settings = {**PLAIN, "checkpoint_every": CHECKPOINT_STEP}
    with _deterministic_kernels(), without_progress():
        whole = build(folder / "whole", settings)
        whole.train(LAST_STEP)
        with suppress(_KilledError):
            build(folder / "resumed", settings).train(LAST_STEP, on_step=_kill)
        resumed = build(folder / "resumed", settings)
        from_step = resumed.step
        resumed.train(LAST_STEP - from_step)
    for trainer in (whole, resumed):
        shutil.rmtree(trainer.folder)
    expected, found = _flat_weights(whole), _flat_weights(resumed)
    difference = float((found - expected).norm() / expected.norm())
    same = torch.equal(found, expected)
    return HardwareCheck(
        name=f"a killed run, resumed at step {from_step}, as an undisturbed one",
        finding="equal bit for bit"
        if same
        else f"weights differ by {difference:.1e} of their norm, {MAX_RESUME_DIFFERENCE:g} allowed",
        passed=from_step == CHECKPOINT_STEP and difference <= MAX_RESUME_DIFFERENCE,
    )


def time_options(
    build: BuildTrainer, training: Training, folder: Path, seconds: float
) -> Iterator[HardwareCheck]:
    """Yield for each option whether the study's runs have it, and what it gives."""

    def step_s(settings: Mapping[str, Any], change: Callable[[Trainer], None] = _leave) -> float:
        trainer = build(folder, {**PLAIN, **settings})
        change(trainer)
        return measure_step(trainer, seconds)

    compute = build(folder, PLAIN).compute
    reduced = reduced_precision(compute.device)
    own_s = step_s({"precision": compute.precision})
    is_reduced = compute.precision == reduced
    other_s = step_s({"precision": "fp32" if is_reduced else reduced})
    fp32_s, reduced_s = (other_s, own_s) if is_reduced else (own_s, other_s)
    yield _option(reduced, is_reduced, fp32_s / reduced_s)
    turned_s = step_s({"precision": compute.precision}, _turn_attention_kernel)
    plain_s, fused_s = (turned_s, own_s) if compute.fused_attention else (own_s, turned_s)
    yield _option("fused attention kernel", compute.fused_attention, plain_s / fused_s)
    yield _option("fused optimizer", True, step_s({}, _split_optimizer) / own_s)
    if not training.compile and compute.device == "cpu":
        yield HardwareCheck(name="compile", finding="off, and timed on GPUs alone")
        return
    try:
        yield _option("compile", training.compile, own_s / step_s({"compile": True}))
    except RuntimeError as error:  # torch's of many kinds, where a compiler is missing
        reason = str(error).strip().splitlines()[0]
        yield HardwareCheck(
            name="compile", finding=f"fails here: {reason}", passed=not training.compile
        )


def _option(name: str, is_on: bool, gain: float) -> HardwareCheck:
    state = "on" if is_on else "off"
    return HardwareCheck(name=name, finding=f"{state}; a step is {gain:.2f} times as fast with it")


def _leave(trainer: Trainer) -> None:
    """Change nothing."""


def _turn_attention_kernel(trainer: Trainer) -> None:
    """Have the run use the attention kernel that it does not use by itself."""
    trainer.compute = replace(trainer.compute, fused_attention=not trainer.compute.fused_attention)
    trainer.compute.set_attention_kernel(trainer.objective)


def _split_optimizer(trainer: Trainer) -> None:
    """Have the optimizer update one parameter after the other."""
    for group in trainer.optimizer.param_groups:
        group |= {"fused": False, "foreach": False}


class _KilledError(Exception):
    """The end of a process, as far as a run in it can tell."""


def _kill(done: int) -> None:
    if done == KILL_STEP:
        raise _KilledError


@contextmanager
def _deterministic_kernels() -> Iterator[None]:
    """Have torch use deterministic kernels, as far as there are any."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*[Dd]eterministic")
            yield
    finally:
        torch.use_deterministic_algorithms(before)


def _flat_weights(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten().cpu() for p in trainer.objective.parameters()])
