"""What ranks do together: a loss of the whole batch, one gradient, one stop; nothing with one rank.

Every rank computes the loss of the WHOLE batch, of which its own crops alone carry gradient: sums
are taken over the ranks before they are divided, vectors are gathered before they are contrasted.
The gradients of the ranks then only have to be added, so a step equals that of one rank with the
same pairs but for rounding; a mean of the ranks' means would not, for each has another number of
usable voxels and tokens.

The gradients go in one flat all-reduce after the backward pass. DDP overlaps the two, which made a
step of 24 million parameters 13% shorter on two ranks of two CPU cores (0.80 s for 0.92 s); but it
orders its buckets anew after its first step, and with four ranks 35% of the gradient's numbers then
came out otherwise in their last bits: a resumed run would not end as an undisturbed one.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Thread

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssl_pipeline.training.world import World


class LostRankError(KeyboardInterrupt):
    """Another rank died or does not answer: this run is interrupted, and can be resumed."""


@dataclass(frozen=True)
class Ranks:
    """The ranks of a run as one of them talks to the others; alone, it talks to nobody."""

    world: World

    @contextmanager
    def joined(self, device: str) -> Iterator[None]:
        """Wait for all ranks, and part from them at the end.

        On GPUs, tensors there go through NCCL and those on the host through gloo, so that asking
        whether to stop never waits for the GPU.
        """
        if self.world.size == 1:
            yield
            return
        with self._together():
            _heedful(self._join, "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl")
        try:
            yield
        finally:
            dist.destroy_process_group()

    def _join(self, backend: str) -> None:
        world = self.world
        patience = timedelta(seconds=world.patience_s)
        dist.init_process_group(backend, rank=world.rank, world_size=world.size, timeout=patience)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the ranks; its gradient is that of this rank's own values."""
        if self.world.size == 1:
            return values
        total = values.clone()
        with self._together():
            dist.all_reduce(total.detach())  # shares its memory with total
        return total

    def gather(self, values: Tensor) -> Tensor:
        """The rows of all ranks, in their order; this rank's own carry gradient."""
        if self.world.size == 1:
            return values
        rows = [torch.empty_like(values) for _ in range(self.world.size)]
        with self._together():
            dist.all_gather(rows, values.detach().contiguous())
        rows[self.world.rank] = values
        return torch.cat(rows)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the ranks."""
        if self.world.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        with self._together():
            dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def largest(self, mine: float) -> float:
        """The largest of the ranks' numbers, the same on all."""
        if self.world.size == 1:
            return mine
        number = torch.tensor(mine, dtype=torch.float64)
        with self._together():
            dist.all_reduce(number, dist.ReduceOp.MAX)
        return number.item()

    def any(self, mine: bool) -> bool:
        """Whether it is so on any rank; the same answer on all."""
        return self.largest(float(mine)) > 0

    def from_first(self, content: bytes) -> bytes:
        """What the first rank holds."""
        box = [content if self.world.first else b""]
        with self._together():
            dist.broadcast_object_list(box)
        return box[0]

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Tell of a rank that is lost as what it is; torch raises RuntimeError of several kinds."""
        try:
            yield
        except RuntimeError as error:
            # What torch says begins with a place in its code and ends with advice.
            cause = re.sub(r"^\[[^]]*\] ", "", str(error)).split(". ")[0].rstrip(".")
            raise LostRankError(
                f"rank {self.world.rank} of {self.world.size} lost another rank, whose own output "
                f"may say why ({cause})"
            ) from error


def _heedful(function: Callable[[str], None], backend: str) -> None:
    """Call in a thread and wait for it: a wait inside torch's own code would hear no signal."""
    ended: Future[None] = Future()

    def work() -> None:
        try:
            function(backend)
            ended.set_result(None)
        except BaseException as error:
            ended.set_exception(error)

    Thread(target=work, daemon=True).start()
    ended.result()
