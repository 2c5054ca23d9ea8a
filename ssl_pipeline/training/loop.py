"""The training loop: draw, augment, step, log, checkpoint, and go on where a checkpoint ends.

A run is a function of its config and seed: batches are drawn by counter, the schedule by step, and
what cannot be derived (weights, optimizer state) is in the checkpoint. Killed anywhere and run
again, it ends with the same weights bit for bit on the same CPU. Batches are read ahead by
threads: the reader releases the interpreter while it decodes, and nothing has to survive a fork.

Several ranks take a part each of every step's pairs; the first alone writes, and what it has found
is where all go on.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from ssl_pipeline.errors import UserError
from ssl_pipeline.flight.config import Flight
from ssl_pipeline.flight.verdict import Verdict, judge
from ssl_pipeline.models.drop_path import survival
from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.objectives.objective import Objective
from ssl_pipeline.objectives.step import backward
from ssl_pipeline.progress import progress
from ssl_pipeline.training import checkpoint, moments
from ssl_pipeline.training.average import Average
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.device import Compute, decide
from ssl_pipeline.training.distributed import Ranks
from ssl_pipeline.training.metrics import Metrics, Row, read
from ssl_pipeline.training.notice import notice
from ssl_pipeline.training.recorder import Recorder
from ssl_pipeline.training.schedule import learning_rate, parameter_groups, share_of_run
from ssl_pipeline.training.world import World
from ssl_pipeline.views.augment import seen
from ssl_pipeline.views.blocks import Blocks
from ssl_pipeline.views.cut import Batch
from ssl_pipeline.views.sampler import Sampler

HEALTHY = Verdict("healthy", "")
Log = Callable[[Row, bool], Verdict]  # keeps a row; whether the verdict is due


class StoppedError(UserError):
    """The run's verdict is one that the study ends runs on."""


class Run:
    """One pretraining run in a folder; `train` continues it to its end."""

    def __init__(
        self,
        folder: Path,
        objective: Objective,
        sampler: Sampler,
        training: Training,
        flight: Flight,
        *,
        world: World | None = None,
        start: Callable[[], dict[str, Any]] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Without a checkpoint in the folder the run begins from the state that `start` gives.

        `config` has the other dials of the run, as JSON, for its checkpoints to hold.
        """
        self.folder, self.sampler, self.config = folder, sampler, dict(config or {})
        self.training, self.flight = training, flight
        self.world = world or World()
        self.ranks = Ranks(self.world)
        self.parts = self.world.parts(training.pairs, training.accumulate)
        state = checkpoint.newest(folder / "checkpoints")
        if state is None:
            self._refuse_lost_checkpoint()
            state = start() if start else None
        self.compute = Compute(**state["compute"]) if state else decide(training, self.world)
        self.compute.apply(self.world, objective)
        self.objective = objective.to(self.compute.device)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(objective, training.weight_decay), betas=training.betas, fused=True
        )
        self.scaler = self.compute.scaler()
        self.average = Average(objective.encoder, training.average) if training.average else None
        if training.compile:
            self.objective.compile()
        self.step = 0
        self.embedded: Tensor | None = None  # the recorder's bank at its last record
        if state:
            self._load(state)

    def train(self) -> Encoder:
        """Train to the last step and return the encoder.

        Raises StoppedError where the verdict on it is one to stop on; KeyboardInterrupt, with a
        checkpoint left behind, after the step in which a signal asked any rank to stop;
        LostRankError where another rank is gone; UserError where the GPU's memory is too small.
        """
        if self.step >= self.training.steps:
            return self._encoder()  # a run that is complete waits for no other rank
        try:
            with self.ranks.joined(self.compute.device):
                self._go_on_together()
                self.objective.train()
                with notice() as stop, self._log() as log:
                    self._steps(log, stop, self._recorder())
        except torch.OutOfMemoryError:
            raise UserError(
                f"The GPU's memory is too small for {self.parts[0].stop - self.parts[0].start} "
                f"pairs of crops of {list(self.sampler.views.crop_voxels)} voxels: raise "
                "training.accumulate, which computes a step in as many parts, or share the pairs "
                "among more ranks."
            ) from None
        return self._encoder()

    def _encoder(self) -> Encoder:
        """What the run keeps: the encoder, with averaged weights where it has them."""
        if self.average:
            self.average.apply()
        return self.objective.encoder

    def verdict(self) -> Verdict:
        """What the flight recorder says of all that was logged so far."""
        return judge(read(self.folder / "metrics.jsonl"), self.flight)

    def _refuse_lost_checkpoint(self) -> None:
        """UserError where the log tells of steps that only a run with a checkpoint goes on to."""
        first = self.training.first_step
        logged = max((row["step"] for row in read(self.folder / "metrics.jsonl")), default=first)
        if logged > first + self.training.checkpoint_steps:
            raise UserError(
                f"{self.folder} has logged {logged} steps and holds no whole checkpoint (a scratch "
                "that purges old files?): bring its folder checkpoints back, or remove the folder "
                f"to start anew from step {first}."
            )

    def _go_on_together(self) -> None:
        """All ranks take the first one's state and decisions, whatever each has found or measured.

        They come as the bytes of a checkpoint and not from its file, which another machine may
        not see yet.
        """
        if self.world.size == 1:
            return
        mine = checkpoint.pack(self._state()) if self.world.first else b""
        content = self.ranks.from_first(mine)
        if not self.world.first:
            self._load(checkpoint.unpack(content))

    @contextmanager
    def _log(self) -> Iterator[Log]:
        """What takes the rows of numbers and judges them; only the first rank keeps any."""
        if not self.world.first:
            yield lambda row, due: HEALTHY
            return
        metrics = Metrics(self.folder, self.step)
        recorded = max((n + 1 for n, row in enumerate(metrics.rows) if "rank" in row), default=0)
        verdict = judge(metrics.rows[:recorded], self.flight)
        try:
            with progress("Pretraining", total=self.training.steps) as bar:
                bar.advance("", to=self.step)

                def log(row: Row, due: bool) -> Verdict:
                    nonlocal verdict
                    metrics.write(row)
                    verdict = judge(metrics.rows, self.flight) if due else verdict
                    shown = f"loss {row['loss']:.3f}  {row['pairs_per_s']:.0f} pairs/s"
                    bar.advance(f"{shown}  {verdict.name}", to=self.step)
                    return verdict

                yield log
        finally:
            metrics.close()

    def _recorder(self) -> Recorder | None:
        """What takes the signs of the run; on the first rank alone."""
        if not self.world.first:
            return None
        most = self.parts[0].stop - self.parts[0].start
        sampler, compute = self.sampler, self.compute
        return Recorder(
            self.flight, self.objective, sampler, self.see, compute, most, self.embedded
        )

    def _steps(self, log: Log, stop: Event, recorder: Recorder | None) -> None:
        clock, waited, done = time.perf_counter(), 0.0, []
        for parts, wait in self._read():
            done.append(self._optimise(parts))
            self.step, waited = self.step + 1, waited + wait
            last, stopping = self.step == self.training.steps, self.ranks.any(stop.is_set())
            saved = last or stopping or self.step % self.training.checkpoint_steps == 0
            recorded = last or self.step % self.flight.every_steps == 0
            if saved or recorded or self.step % self.training.log_steps == 0:
                row, took = self._row(done), time.perf_counter() - clock
                rate = len(done) * self.training.pairs / took
                row |= {"pairs_per_s": rate, "waiting": self.ranks.largest(waited / took)}
                if recorded and recorder:
                    share = share_of_run(self.step, self.training)
                    row |= recorder.record(share, rate / self.world.size)
                    self.embedded = recorder.before
                    if moments.due(self.step, self.flight.every_steps, self.training.steps):
                        moments.save(self.folder, self.step, recorder.moment())
                finite = math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])
                verdict = log(row, recorded or not finite)
                if not (finite and last):
                    self._judge(verdict, finite)
                clock, waited, done = time.perf_counter(), 0.0, []
            if saved:
                self._save()
            if stopping and not last:
                raise KeyboardInterrupt

    def _judge(self, verdict: Verdict, finite: bool) -> None:
        """Stop all ranks where the first one's verdict is one to end early on, or nothing follows.

        A checkpoint is left behind, unless its weights are no numbers.
        """
        if finite and not self.ranks.any(verdict.name in self.flight.stop_on):
            return
        if finite:
            self._save()
        raise StoppedError(
            f"pretrain stopped at step {self.step} as {verdict.name}: {verdict.reason} "
            "(flight.stop_on in the study says which verdicts end a run.)"
            if self.world.first
            else f"pretrain stopped at step {self.step}; the first rank says why."
        )

    def _read(self) -> Iterator[tuple[list[Blocks], float]]:
        """What each step still to come sees, and the seconds that the device waited for it."""
        todo = iter(range(self.step, self.training.steps))
        readers = self.training.readers
        with ThreadPoolExecutor(readers) as pool:
            queue: deque[Future[list[Blocks]]] = deque()
            queue.extend(pool.submit(self._draw, step) for step in islice(todo, readers + 1))
            while queue:
                start = time.perf_counter()
                parts = queue.popleft().result()
                wait = time.perf_counter() - start
                queue.extend(pool.submit(self._draw, step) for step in islice(todo, 1))
                yield parts, wait

    def _draw(self, step: int) -> list[Blocks]:
        """The micro-batches of a step that are this rank's."""
        drawn = [self._with_drop_path(self.sampler.batch(step, part)) for part in self.parts]
        return drawn if self.compute.device == "cpu" else [blocks.pinned() for blocks in drawn]

    def _with_drop_path(self, blocks: Blocks) -> Blocks:
        encoder = self.objective.encoder
        if not encoder.branches:
            return blocks
        drawn = survival(
            encoder.drop_path, encoder.branches, self.sampler.seed, blocks.number.tolist()
        )
        return replace(blocks, survive=torch.from_numpy(drawn))

    def see(self, blocks: Blocks) -> tuple[Batch, Tensor]:
        """The views of blocks on the run's device, and their images as the encoder sees them."""
        return seen(blocks.to(self.compute.device), self.sampler.views, self.sampler.patch)

    def _optimise(self, parts: list[Blocks]) -> dict[str, Tensor]:
        """One optimizer step; its losses, as this rank adds to them, and the gradient's norm."""
        rate = learning_rate(self.step, self.training)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        share = share_of_run(self.step, self.training)
        losses = backward(
            self.objective,
            parts,
            self.see,
            share,
            self.ranks,
            autocast=self.compute.autocast,
            scale=self.scaler.scale,
        )
        self.ranks.sum_gradients(self.objective.parameters())
        self.scaler.unscale_(self.optimizer)
        norm = clip_grad_norm_(self.objective.parameters(), self.training.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update(self.step)
        return {"loss": losses.total, **losses.parts, "gradient_norm": norm}

    def _row(self, done: list[dict[str, Tensor]]) -> Row:
        """Means over the steps since the last row; where the host waits for the device."""
        means = {name: torch.stack([step[name] for step in done]).mean() for name in done[0]}
        norm = means.pop("gradient_norm").item()  # the same on all ranks
        if self.scaler.is_enabled():  # which skips a step whose gradient overflows, and goes on
            norms = torch.stack([step["gradient_norm"] for step in done])
            norm = norms[norms.isfinite()].mean().item()
        values = self.ranks.sum(torch.stack(list(means.values()))).tolist()
        return {
            "step": self.step,
            "share": self.step / self.training.steps,
            "ramp": self.objective.factor(share_of_run(self.step, self.training)),
            **dict(zip(means, values, strict=True)),
            "gradient_norm": norm,
            "learning_rate": learning_rate(self.step - 1, self.training),
        }

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "samples": self.step * self.training.pairs,
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.weights if self.average else [],
            "scaler": self.scaler.state_dict(),
            "embedded": self.embedded,
            "config": self.config | {"training": self.training.model_dump(mode="json")},
            "compute": self.compute.to_json(),
        }

    def _load(self, state: dict[str, Any]) -> None:
        self.compute = Compute(**state["compute"])
        self.compute.apply(self.world, self.objective)
        self.scaler = self.compute.scaler()
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load(state["average"])
        self.embedded = state.get("embedded")  # which earlier checkpoints have not
        self.step = state["step"]

    def _save(self) -> None:
        """Write a checkpoint, as the first rank alone does; all hold the same state."""
        if self.world.first:
            kept = self.training.checkpoints_kept
            checkpoint.save(self.folder / "checkpoints", self._state(), kept)
