"""Records of a calibration: the pace of a study's pretraining on a machine, and its checks there.

Imports no torch, for `estimate` reads them.
"""

from typing import Literal

from ssl_pipeline.io.records import Record, RecordPart
from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.training.config import Training


class Pace(RecordPart):
    """Seconds of the parts of a run, on the slowest of its ranks."""

    step_s: float  # with its reading, or what of that the device waits for
    snapshot_s: float
    checkpoint_s: float
    data_wait: float  # share of the steps' time that the device waits for data
    mfu: float  # model FLOPs utilization of the first rank, as a fraction

    def seconds_per_step(self, training: Training, monitoring: Monitoring) -> float:
        """Seconds of a step with its share of snapshots and checkpoints."""
        snapshots = self.snapshot_s / monitoring.snapshot_every
        return self.step_s + snapshots + self.checkpoint_s / training.checkpoint_every


class HardwareCheck(RecordPart):
    """One finding about a device: a condition that holds or not, or an option and what it gives."""

    name: str
    finding: str
    passed: bool = True


class TrainingCalibration(Record):
    """What a study's pretraining reaches where it was calibrated."""

    format: Literal[1] = 1
    profile: str  # as `--on` names it
    host: str
    device: str  # cpu or cuda
    device_name: str
    precision: str
    ranks: int
    threads: int  # of a rank
    settings_hash: str  # of those that the rate depends on
    sample_flops: int  # by the cost model, so that the rate of another model follows
    batch_size: int  # of all ranks
    pace: Pace
    read_samples_per_s: float  # of one loader thread of the first rank
    memory_bytes: int  # peak of the first rank
    gpu_memory_bytes: int  # peak of its GPU, 0 without one
    checks: tuple[HardwareCheck, ...]
    measured_at: str  # UTC, ISO 8601

    @property
    def samples_per_s(self) -> float:
        """Samples a second of all ranks, snapshots and checkpoints not counted."""
        return self.batch_size / self.pace.step_s
