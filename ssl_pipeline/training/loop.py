"""The training loop: sample, augment, step, log, checkpoint, and resume from a checkpoint.

A run is a function of its config and seed: batches are drawn by counter, the schedule by step, and
what cannot be derived (weights, optimizer state) is in the checkpoint. Killed anywhere and run
again, it ends with the same weights bit for bit on the same CPU. Batches are read ahead by
threads: the reader releases the interpreter while it decodes, and nothing has to survive a fork.

Several ranks compute a part each of every step's batch; the first one alone writes files, and all
continue from its state.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from ssl_pipeline.errors import UserError
from ssl_pipeline.models.low_rank import merge_updates
from ssl_pipeline.models.unet_decoder import PretrainedNetwork
from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.monitoring.diagnosis import Diagnosis, diagnose, diagnose_whole_run
from ssl_pipeline.objectives.backward import backward
from ssl_pipeline.objectives.objective import Objective
from ssl_pipeline.objectives.terms.term import diagnosis_rules
from ssl_pipeline.progress import progress
from ssl_pipeline.training import checkpoint, snapshots
from ssl_pipeline.training.checkpoint import TrainerState
from ssl_pipeline.training.compile_cache import use_private_compile_cache
from ssl_pipeline.training.compute import Compute, select_compute
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.distributed import RankGroup
from ssl_pipeline.training.ema import EMA
from ssl_pipeline.training.interrupt import stop_event
from ssl_pipeline.training.metrics_log import METRICS_FILE, LogRow, MetricsLog, read_metrics
from ssl_pipeline.training.monitor import Monitor
from ssl_pipeline.training.ranks import RankInfo
from ssl_pipeline.training.schedule import build_optimizer, learning_rate, run_progress
from ssl_pipeline.training.starting_state import InitialState, starting_state
from ssl_pipeline.views.augmentation import augmented_views
from ssl_pipeline.views.collate import SampleBatch
from ssl_pipeline.views.crops import Batch
from ssl_pipeline.views.sampler import Sampler

HEALTHY = Diagnosis("healthy", "")
WriteRow = Callable[[LogRow, bool], Diagnosis]  # writes a row; whether to diagnose now


class StoppedError(UserError):
    """The run has a diagnosis that is in `monitoring.stop_on`."""


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run; `others`, as JSON, are only kept with its checkpoints."""

    training: Training
    monitoring: Monitoring
    others: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As checkpoints hold them."""
        return {**self.others, "training": self.training.model_dump(mode="json")}


class Trainer:
    """One pretraining run in a folder; `train` continues it, for some steps or to its end."""

    def __init__(
        self,
        folder: Path,
        objective: Objective,
        sampler: Sampler,
        settings: RunSettings,
        *,
        rank_info: RankInfo | None = None,
        initial_state: InitialState | None = None,
    ) -> None:
        """Without a checkpoint in the folder the run begins from `initial_state`, where given.

        Raises UserError as `starting_state` does.
        """
        self.folder, self.sampler, self.config = folder, sampler, settings.to_json()
        self.training, self.monitoring = settings.training, settings.monitoring
        training = settings.training
        self.rank_info = rank_info or RankInfo()
        self.ranks = RankGroup(self.rank_info)
        self.micro_batches = self.rank_info.micro_batches(
            sampler.batch_size, training.gradient_accumulation
        )
        state = starting_state(folder, objective, training, sampler.seed, initial_state)
        self.compute = select_compute(training, self.rank_info, state.compute if state else None)
        self.earlier_computes: dict[int, Compute] = {}
        self.compute.apply(self.rank_info, objective)
        self.objective = objective.to(self.compute.device)
        self.optimizer = build_optimizer(objective, training)
        self.scaler = self.compute.scaler()
        self.ema = EMA(objective.network, training.ema_decay) if training.ema_decay else None
        if training.compile:
            use_private_compile_cache()
            self.objective.compile()
        self.step = 0
        self.previous_embeddings: Tensor | None = None  # of the last snapshot
        self._monitor: Monitor | None = None
        if state:
            self.load_state(state.resume_on(self.compute))

    def train(
        self, steps: int | None = None, *, on_step: Callable[[int], None] | None = None
    ) -> TrainerState:
        """Train for so many steps, or to the last one, and return the state; may be called again.

        The weights do not depend on how the steps are divided among calls. Each call ends with a
        checkpoint; several ranks stay connected from call to call within `ranks.connect`.
        `on_step` is called before each step with the number of steps that are done.

        Raises StoppedError where its diagnosis is one to stop on; KeyboardInterrupt, with a
        checkpoint written, after the step in which a signal asked any rank to stop; RankLostError
        where another rank is gone; UserError where the GPU's memory is too small.
        """
        if self.step >= self.training.steps:
            return self.state()  # a complete run waits for no other rank
        try:
            with self.ranks.connect(self.compute.device):
                self._sync_ranks()
                self.objective.train()
                self._monitor = self._monitor or self.build_monitor()
                with stop_event() as stop, self._open_log() as log:
                    self._train_steps(steps, log, stop, on_step)
        except torch.OutOfMemoryError:
            raise UserError(
                f"The GPU's memory is too small for {self._micro_batch_size} samples with crops of "
                f"{list(self.sampler.views.crop_voxels)} voxels: raise "
                "training.gradient_accumulation, which computes a step in as many parts, or divide "
                "the samples among more ranks."
            ) from None
        return self.state()

    @property
    def _micro_batch_size(self) -> int:
        return int(self.micro_batches[0].stop - self.micro_batches[0].start)

    def final_network(self) -> PretrainedNetwork:
        """What to export, with the moving average of its weights where there is one."""
        return self.ema.averaged_module() if self.ema else self.objective.network

    def diagnose(self) -> Diagnosis:
        """The diagnosis of the run up to its present step; not known where rows are lost."""
        return diagnose_whole_run(
            read_metrics(self.folder / METRICS_FILE),
            self.monitoring,
            diagnosis_rules(self.objective.terms),
            (self.training.first_step, self.step),
            self.training.log_every,
        )

    def _diagnose(self, rows: Sequence[LogRow]) -> Diagnosis:
        return diagnose(rows, self.monitoring, diagnosis_rules(self.objective.terms))

    def _sync_ranks(self) -> None:
        """Give all ranks the first one's state and decisions, whatever each found or measured.

        They are sent as the bytes of a checkpoint: another machine may not see its file yet.
        """
        if self.rank_info.world_size == 1:
            return
        mine = checkpoint.pack_state(self._live_state()) if self.rank_info.is_first else b""
        content = self.ranks.broadcast(mine)
        if not self.rank_info.is_first:
            self.load_state(checkpoint.unpack_state(content))

    @contextmanager
    def _open_log(self) -> Iterator[WriteRow]:
        """Yield the function that writes rows and diagnoses them; only the first rank writes."""
        if not self.rank_info.is_first:
            yield lambda row, due: HEALTHY
            return
        metrics = MetricsLog(self.folder, self.step)
        recorded = max((n + 1 for n, row in enumerate(metrics.rows) if "rankme" in row), default=0)
        diagnosis = self._diagnose(metrics.rows[:recorded])
        try:
            with progress("Pretraining", total=self.training.steps) as bar:
                bar.advance("", to=self.step)

                def log(row: LogRow, due: bool) -> Diagnosis:
                    nonlocal diagnosis
                    metrics.write_row(row)
                    diagnosis = self._diagnose(metrics.rows) if due else diagnosis
                    shown = f"loss {row['loss']:.3f}  {row['samples_per_s']:.0f} samples/s"
                    bar.advance(f"{shown}  {diagnosis.name}", to=self.step)
                    return diagnosis

                yield log
        finally:
            metrics.close()

    def build_monitor(self) -> Monitor | None:
        """The monitor that takes snapshots of the run; on the first rank alone."""
        if not self.rank_info.is_first:
            return None
        return Monitor(
            self.monitoring,
            self.objective,
            self.sampler,
            self.make_views,
            self.compute,
            self._micro_batch_size,
            self.previous_embeddings,
        )

    def _train_steps(
        self,
        steps: int | None,
        log: WriteRow,
        stop: Event,
        on_step: Callable[[int], None] | None,
    ) -> None:
        end = self.training.steps if steps is None else min(self.step + steps, self.training.steps)
        clock, waited, done = time.perf_counter(), 0.0, []
        for parts, wait in self._load_batches(end):
            if on_step:
                on_step(self.step)
            done.append(self._optimizer_step(parts))
            self.step, waited = self.step + 1, waited + wait
            last, stopping = self.step == self.training.steps, self.ranks.any(stop.is_set())
            saved = self.step == end or stopping or self.step % self.training.checkpoint_every == 0
            recorded = last or self.step % self.monitoring.snapshot_every == 0
            if saved or recorded or self.step % self.training.log_every == 0:
                row, took = self._metrics_row(done), time.perf_counter() - clock
                rate = len(done) * self.sampler.batch_size / took
                row |= {"samples_per_s": rate, "data_wait": self.ranks.maximum(waited / took)}
                if recorded:
                    row |= self._take_snapshot(rate)
                finite = math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])
                diagnosis = log(row, recorded or not finite)
                if not (finite and last):
                    self._stop_if_unhealthy(diagnosis, finite)
                clock, waited, done = time.perf_counter(), 0.0, []
            if last and self.training.low_rank:
                self._merge_updates()
            if saved:
                self._save_checkpoint()
            if stopping and not last:
                raise KeyboardInterrupt

    def _take_snapshot(self, samples_per_s: float) -> LogRow:
        """The metrics of a snapshot, and its images in the folder; on the first rank alone."""
        if self._monitor is None:
            return {}
        share = run_progress(self.step, self.training)
        row = self._monitor.take_snapshot(share, samples_per_s / self.rank_info.world_size)
        self.previous_embeddings = self._monitor.previous_embeddings
        if snapshots.is_due(self.step, self.monitoring.snapshot_every, self.training.steps):
            snapshots.save_images(self.folder, self.step, self._monitor.render_images())
        return row

    def _stop_if_unhealthy(self, diagnosis: Diagnosis, is_finite: bool) -> None:
        """Stop all ranks where the diagnosis is in `stop_on`, or the loss is not finite.

        A checkpoint is written, unless its weights are not finite.
        """
        if is_finite and not self.ranks.any(diagnosis.name in self.monitoring.stop_on):
            return
        if is_finite:
            self._save_checkpoint()
        raise StoppedError(
            f"pretrain stopped at step {self.step} as {diagnosis.name}: {diagnosis.reason} "
            "(monitoring.stop_on in the study says which diagnoses end a run.)"
            if self.rank_info.is_first
            else f"pretrain stopped at step {self.step}; the first rank says why."
        )

    def _load_batches(self, end: int) -> Iterator[tuple[list[SampleBatch], float]]:
        """The micro-batches of each step up to `end`, and the seconds that it waited for them."""
        todo = iter(range(self.step, end))
        threads = self.training.loader_threads
        with ThreadPoolExecutor(threads) as pool:
            queue: deque[Future[list[SampleBatch]]] = deque()
            queue.extend(pool.submit(self._draw_batch, step) for step in islice(todo, threads + 1))
            while queue:
                start = time.perf_counter()
                parts = queue.popleft().result()
                wait = time.perf_counter() - start
                queue.extend(pool.submit(self._draw_batch, step) for step in islice(todo, 1))
                yield parts, wait

    def _draw_batch(self, step: int) -> list[SampleBatch]:
        """The micro-batches of a step that are this rank's."""
        drawn = [self.sampler.batch(step, part) for part in self.micro_batches]
        is_on_host = self.compute.device == "cpu"
        return drawn if is_on_host else [samples.pin_memory() for samples in drawn]

    def make_views(self, samples: SampleBatch) -> tuple[Batch, Tensor]:
        """The crops of samples on the run's device, and their images after augmentation."""
        return augmented_views(
            samples.to(self.compute.device), self.sampler.views, self.sampler.patch
        )

    def _optimizer_step(self, micro_batches: list[SampleBatch]) -> dict[str, Tensor]:
        """Run one optimizer step; returns this rank's part of the losses, and the gradient norm."""
        rate = learning_rate(self.step, self.training)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        share = run_progress(self.step, self.training)
        with self.objective.encoder.applying_drop_path(self.sampler.seed):
            losses = backward(
                self.objective,
                micro_batches,
                self.make_views,
                share,
                self.ranks,
                autocast=self.compute.autocast,
                scale_loss=self.scaler.scale,
            )
        self.ranks.sum_gradients(self.objective.parameters())
        self.scaler.unscale_(self.optimizer)
        norm = clip_grad_norm_(self.objective.parameters(), self.training.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        after = run_progress(self.step + 1, self.training)
        self.objective.update_teacher(losses.teacher_means, after)
        if self.ema:
            self.ema.update(self.step)
        return {"loss": losses.total, **losses.by_term, "gradient_norm": norm}

    def _metrics_row(self, done: list[dict[str, Tensor]]) -> LogRow:
        """Means over the steps since the last row; here the host waits for the device."""
        means = {name: torch.stack([step[name] for step in done]).mean() for name in done[0]}
        norm = means.pop("gradient_norm").item()  # the same on all ranks
        if self.scaler.is_enabled():  # it skips a step whose gradient overflows
            norms = torch.stack([step["gradient_norm"] for step in done])
            norm = norms[norms.isfinite()].mean().item()
        values = self.ranks.sum(torch.stack(list(means.values()))).tolist()
        return {
            "step": self.step,
            "progress": self.step / self.training.steps,
            "ramp_factor": self.objective.ramp_factor(run_progress(self.step, self.training)),
            **dict(zip(means, values, strict=True)),
            "gradient_norm": norm,
            "learning_rate": learning_rate(self.step - 1, self.training),
        }

    def _merge_updates(self) -> None:
        """Make the run one of plain weights, which any other may continue."""
        merge_updates(self.objective.encoder)
        self.objective.encoder.requires_grad_(True)
        self.optimizer = build_optimizer(self.objective, self.training)

    def state(self) -> TrainerState:
        """A copy of what the run continues from; no later step changes it."""
        return deepcopy(self._live_state())

    def _live_state(self) -> TrainerState:
        return TrainerState(
            step=self.step,
            objective=self.objective.state_dict(),
            optimizer=self.optimizer.state_dict(),
            ema=self.ema.weights if self.ema else [],
            scaler=self.scaler.state_dict(),
            previous_embeddings=self.previous_embeddings,
            compute=self.compute,
            earlier_computes=self.earlier_computes,
            config=self.config,
        )

    def load_state(self, state: TrainerState) -> None:
        """Continue from a state, which stays as it is."""
        self.compute, self.earlier_computes = state.compute, state.earlier_computes
        self.compute.apply(self.rank_info, self.objective)
        self.scaler = self.compute.scaler()
        self.objective.load_state_dict(state.objective)
        if state.optimizer:
            self.optimizer.load_state_dict(deepcopy(state.optimizer))  # takes tensors over
        self.scaler.load_state_dict(state.scaler)
        if self.ema:
            self.ema.load_weights(state.ema)
        self.previous_embeddings = state.previous_embeddings
        self.step, self._monitor = state.step, None

    def _save_checkpoint(self) -> None:
        """Write a checkpoint, on the first rank alone; all have the same state."""
        if self.rank_info.is_first:
            kept = self.training.keep_checkpoints
            checkpoint.save_checkpoint(self.folder / "checkpoints", self._live_state(), kept)
