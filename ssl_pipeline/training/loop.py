"""The training loop: draw, augment, step, log, checkpoint, and go on where a checkpoint ends.

A run is a function of its config and seed: batches are drawn by counter, the schedule by step, and
what cannot be derived (weights, optimizer state) is in the checkpoint. Killed anywhere and run
again, it ends with the same weights bit for bit on the same CPU. Batches are read ahead by one
thread: the reader releases the interpreter while it decodes, and nothing has to survive a fork.
"""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from ssl_pipeline.models.vit import ViTEncoder
from ssl_pipeline.objectives.terms import Losses, Objective
from ssl_pipeline.progress import Bar, progress
from ssl_pipeline.training import checkpoint
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.device import Compute, decide
from ssl_pipeline.training.metrics import Metrics, Row
from ssl_pipeline.training.notice import notice
from ssl_pipeline.training.schedule import learning_rate, parameter_groups
from ssl_pipeline.views.augment import augment
from ssl_pipeline.views.config import Intensity
from ssl_pipeline.views.sampler import Batch, Sampler

AHEAD = 2  # batches read while one is computed


class DivergedError(RuntimeError):
    """The loss is no number any more."""


class Run:
    """One pretraining run in a folder; `train` continues it to its end."""

    def __init__(
        self,
        folder: Path,
        objective: Objective,
        sampler: Sampler,
        training: Training,
        intensity: Intensity,
        *,
        seed: int,
    ) -> None:
        self.folder, self.sampler, self.training = folder, sampler, training
        self.intensity, self.seed = intensity, seed
        state = checkpoint.newest(folder / "checkpoints")
        self.compute = Compute(**state["compute"]) if state else decide(training)
        self.compute.apply()
        self.objective = objective.to(self.compute.device)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(objective, training.weight_decay), betas=training.betas, fused=True
        )
        self.step = 0
        if state:
            self.objective.load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]

    def train(self) -> ViTEncoder:
        """Train to the last step and return the encoder.

        Raises DivergedError where the loss is not finite, and KeyboardInterrupt, with a checkpoint
        left behind, after the step in which a signal asked to stop.
        """
        if self.step >= self.training.steps:
            return self.objective.encoder
        metrics = Metrics(self.folder, self.step)
        self.objective.train()
        try:
            with notice() as stop, progress("Pretraining", total=self.training.steps) as bar:
                bar.advance("", to=self.step)
                self._steps(metrics, bar, stop)
        finally:
            metrics.close()
        return self.objective.encoder

    def _steps(self, metrics: Metrics, bar: Bar, stop: Event) -> None:
        clock, waited, seen = time.perf_counter(), 0.0, 0
        for batch, wait in self._batches():
            losses, norm = self._optimise(batch)
            self.step, waited, seen = self.step + 1, waited + wait, seen + 1
            if self.step % self.training.log_steps == 0 or self.step == self.training.steps:
                took = time.perf_counter() - clock
                row = self._row(losses, norm, rate=seen * self.training.pairs / took)
                metrics.write({**row, "waiting": waited / took})
                bar.advance(
                    f"loss {row['loss']:.3f}  {row['pairs_per_s']:.0f} pairs/s", to=self.step
                )
                clock, waited, seen = time.perf_counter(), 0.0, 0
            last = self.step == self.training.steps
            if self.step % self.training.checkpoint_steps == 0 or last or stop.is_set():
                self._save()
            if stop.is_set() and not last:
                raise KeyboardInterrupt

    def _batches(self) -> Iterator[tuple[Batch, float]]:
        """The batches still to come, each with the seconds that the device waited for it."""
        todo = iter(range(self.step, self.training.steps))
        with ThreadPoolExecutor(1) as pool:
            queue: deque[Future[Batch]] = deque()
            queue.extend(pool.submit(self.sampler.batch, step) for step in islice(todo, AHEAD))
            while queue:
                start = time.perf_counter()
                batch = queue.popleft().result()
                wait = time.perf_counter() - start
                queue.extend(pool.submit(self.sampler.batch, step) for step in islice(todo, 1))
                yield batch.to(self.compute.device), wait

    def _optimise(self, batch: Batch) -> tuple[Losses, Tensor]:
        """One optimizer step; the losses and the gradient's norm before clipping."""
        rate = learning_rate(self.step, self.training)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images = augment(batch, self.intensity, self.seed)
        with self.compute.autocast():
            losses = self.objective(batch, images, self.step / self.training.steps)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = clip_grad_norm_(self.objective.parameters(), self.training.clip)
        self.optimizer.step()
        return losses, norm

    def _row(self, losses: Losses, norm: Tensor, rate: float) -> Row:
        total = losses.total.item()
        if not torch.isfinite(losses.total):
            raise DivergedError(
                f"The loss is {total} at step {self.step}: lower training.learning_rate."
            )
        return {
            "step": self.step,
            "loss": total,
            **{name: float(part) for name, part in losses.parts.items()},
            "gradient_norm": float(norm),
            "learning_rate": learning_rate(self.step - 1, self.training),
            "pairs_per_s": rate,
        }

    def _save(self) -> None:
        state: dict[str, Any] = {
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "compute": self.compute.to_json(),
        }
        kept = self.training.checkpoints_kept
        checkpoint.save(self.folder / "checkpoints", self.step, state, kept)
