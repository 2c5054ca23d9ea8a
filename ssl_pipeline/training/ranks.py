"""How many processes share a training run, and which of them this is; imports no torch.

Read from the variables that torchrun sets and that a cluster's launcher exports, so both start the
same command. Without them there is one rank, and nothing of this is used.
"""

import os
from dataclasses import dataclass

from ssl_pipeline.environment import read_number
from ssl_pipeline.errors import UserError

PORT_COUNT = 1 << 16
REQUIRED_VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class RankInfo:
    """The place of a process among those of its run."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # among the ranks of this machine
    local_world_size: int = 1  # ranks that share this process's cores
    timeout_s: float = 600.0  # how long to wait for a rank that does not answer

    @classmethod
    def from_environment(cls) -> "RankInfo":
        """Read the variables of this process. Raises UserError where one is missing or odd."""
        size = read_number("WORLD_SIZE", 1, 1)
        if size == 1:
            return cls()
        missing = [name for name in REQUIRED_VARIABLES if not os.environ.get(name)]
        if missing:
            raise UserError(
                f"WORLD_SIZE is {size}, but {missing[0]} is not set: start with torchrun, or set "
                f"{', '.join(REQUIRED_VARIABLES)} for each rank, or unset WORLD_SIZE for one rank."
            )
        rank, port = read_number("RANK", 0, 0), read_number("MASTER_PORT", 0, 1)
        if rank >= size or port >= PORT_COUNT:
            raise UserError(
                f"RANK is {rank}, WORLD_SIZE {size} and MASTER_PORT {port}: ranks count from 0 to "
                f"{size - 1}, and ports end at {PORT_COUNT - 1}; start with torchrun."
            )
        return cls(
            rank=rank,
            world_size=size,
            local_rank=read_number("LOCAL_RANK", 0, 0),
            local_world_size=read_number("LOCAL_WORLD_SIZE", 1, 1),
            timeout_s=read_number("SSL_PIPELINE_RANK_TIMEOUT_S", cls.timeout_s, 1.0),
        )

    @property
    def is_first(self) -> bool:
        """Whether this rank is the one that writes."""
        return self.rank == 0

    def micro_batches(self, batch_size: int, gradient_accumulation: int) -> list[slice]:
        """Slices of a step's batch for this rank, one for each of `gradient_accumulation` parts.

        Raises UserError where the batch does not divide evenly.
        """
        step = self.world_size * gradient_accumulation
        if batch_size % step:
            ranks = "ranks" if self.world_size > 1 else "rank"
            parts = f" in {gradient_accumulation} parts each" if gradient_accumulation > 1 else ""
            raise UserError(
                f"training.batch_size is {batch_size}, which {self.world_size} {ranks} cannot "
                f"share evenly{parts}: set it to a multiple of {step}, or change the number of "
                "ranks or training.gradient_accumulation."
            )
        each = batch_size // step
        first = self.rank * gradient_accumulation
        return [
            slice(n * each, (n + 1) * each) for n in range(first, first + gradient_accumulation)
        ]
