"""A work in a process of its own: none profits from how another has set up memory or threads."""

import multiprocessing as mp
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

Clock = Callable[[], float]
Build = Callable[..., Callable[[], object]]


class SubprocessTimer:
    """Called, it does the work there once and returns the seconds that it took by `clock`.

    `build` makes the work of `args`, over there; the process ends with this one. The work is done
    once before, not timed: who waited for a turn has lost caches, and pages to a thrifty machine.
    """

    def __init__(self, clock: Clock, build_work: Build, *args: Any) -> None:
        context = mp.get_context("spawn")  # threads of torch do not survive a fork
        self.pipe, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, clock, build_work, args), daemon=True).start()
        theirs.close()

    def __call__(self) -> float:
        self.pipe.send("again")
        return float(self.pipe.recv())


def _serve(pipe: Connection, clock: Clock, build: Build, args: tuple[Any, ...]) -> None:
    work = build(*args)
    with suppress(EOFError):  # the other end is closed
        while pipe.recv():
            work()
            began = clock()
            work()
            pipe.send(clock() - began)
