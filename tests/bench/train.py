"""`make bench-train`: steps against those of peers and dense ones, and from store to step.

Works take turns in an order that is drawn for each round, each in a process of its own; a ratio is
the median of the rounds' ratios. On a CPU the steps have one thread, and their seconds are those of
its core: threads that wait for each other measure the neighbours of a shared machine. The runs from
store to step have all cores and the clock on the wall. With a GPU, the comparison is made there at
ViT-B, with MFU and starvation. `build/bench/train.json` gets the rows.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssl_pipeline.training.device import Compute
    from stages.study import Study
    from tests.bench.steps import Setting, Step
    from tests.bench.table import Row, Times

OUT = Path("build/bench")
ROUNDS = 11
COMPARED = ("ours", "ours, compiled", "MONAI", "lightly")
SAME = 0.01  # largest relative difference of parameters
GOALS = {"MONAI": 1.3, "MONAI, fp32": 3.3, "hybrid": 0.87, "mfu": 0.45}


def main() -> None:
    # Before torch is imported; see `stages.__main__`.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from tests.bench import reading, steps, stored
    from tests.bench.table import show

    study = stored.prepared(OUT)
    gpu = torch.cuda.is_available()
    setting = steps.VIT_B if gpu else steps.SMALL
    rows = [*_rows(study, setting)]
    readers = (2, len(os.sched_getaffinity(0))) if gpu else (1, 2)
    rows += reading.rows(study, steps.VIT_B if gpu else steps.TINY, readers, OUT / "work")
    show(rows, OUT / "train.json")


def _rows(study: "Study", setting: "Setting") -> Iterator["Row"]:
    """Steps against steps."""
    from ssl_pipeline.training.config import Training
    from ssl_pipeline.training.device import decide
    from ssl_pipeline.training.world import World
    from tests.bench import memory, steps, stored
    from tests.bench.apart import Apart
    from tests.bench.table import Row, times

    compute = decide(Training(threads=1), World())
    clock = time.process_time if compute.device == "cpu" else time.perf_counter
    sizes = {"": setting, " tiny": steps.TINY}
    blocks = {s.name: stored.sampler(study, s.views, s.pairs).batch(0) for s in sizes.values()}
    works = {
        name: Apart(clock, steps.build, kind, size, each, blocks[size.name])
        for name, (kind, size, each) in _works(setting, compute).items()
    }
    taken = times(works, ROUNDS, clock=None)
    yield from _against(setting, compute, taken)
    for name, size in sizes.items():
        yield Row(
            f"{size.name}, MAE step / hybrid step (all terms), from blocks on",
            f"hybrid {taken.median(f'hybrid{name}') * 1e3:.0f} ms",
            f"MAE: {taken.median(f'MAE{name}') * 1e3:.0f} ms",
            taken.ratio(f"hybrid{name}", f"MAE{name}"),
            GOALS["hybrid"],
        )
    step = steps.build("ours", setting, compute, blocks[setting.name])
    yield _effort(setting, compute, step, taken.median("ours"))
    mine, theirs = (memory.peak_mib(name, setting.name, OUT) for name in ("ours", "MONAI"))
    yield Row(
        f"{setting.name}, peak memory of a step, fp32",
        f"{mine:.0f} MiB",
        f"MONAI: {theirs:.0f} MiB",
        theirs / mine,
    )


def _works(setting: "Setting", compute: "Compute") -> dict[str, tuple[str, "Setting", "Compute"]]:
    """Steps of equal size, in the precision that is faster here and in fp32: kind, size, device."""
    from tests.bench import steps

    full, made = steps.in_fp32(compute), steps.parameters(steps.objective(setting))
    for name, net in steps.PEERS.items():
        assert abs(steps.parameters(net(setting)) - made) <= SAME * made, name
    alone = ("ours, 1/3 decoded", "dense", "MAE", "hybrid")
    works = {name: (name, setting, compute) for name in (*COMPARED, *alone)}
    works |= {f"{name} tiny": (name, steps.TINY, compute) for name in ("MAE", "hybrid")}
    if full != compute:
        works |= {f"{name}, fp32": (name, setting, full) for name in COMPARED}
    return works


def _against(setting: "Setting", compute: "Compute", taken: "Times") -> Iterator["Row"]:
    """Crops a second of ours against those of others."""
    from tests.bench.table import Row

    reduced = "MONAI, fp32" in taken.all
    pairs: list[tuple[str, str, float | None]] = [
        ("ours, compiled", "MONAI", None),
        ("ours", "lightly", None),
        ("ours", "dense", None),
        ("ours, 1/3 decoded", "MONAI", None),
    ]
    if reduced:
        pairs = [
            ("ours, fp32", "MONAI, fp32", GOALS["MONAI"]),
            ("ours, compiled, fp32", "MONAI, fp32", None),
            ("ours, fp32", "lightly, fp32", None),
            ("ours", "MONAI, fp32", GOALS["MONAI, fp32"]),
            ("ours, compiled", "MONAI, fp32", None),
            ("ours", "MONAI", None),
            ("ours, 1/3 decoded", "MONAI, fp32", None),
            *pairs,
        ]
    else:
        pairs = [("ours", "MONAI", GOALS["MONAI"]), *pairs]
    for mine, other, goal in pairs:
        precision = "fp32" if mine.endswith("fp32") else compute.precision
        kind = ", 1/3 of hidden tokens decoded" if "1/3" in mine else ""
        kind += ", compiled" if "compiled" in mine else ""
        rate, theirs = (2 * setting.pairs / taken.median(name) for name in (mine, other))
        yield Row(
            f"{setting.name}, crops of {setting.side}^3 a second, {precision}{kind}",
            f"{rate:.3g}",
            f"{other}: {theirs:.3g}",
            taken.ratio(mine, other),
            goal,
        )
    if not reduced:
        yield Row(f"{setting.name}, bf16", "not used", "measured: does not pay on this processor")


def _effort(setting: "Setting", compute: "Compute", step: "Step", seconds: float) -> "Row":
    """Share of what the device could do."""
    from ssl_pipeline.flight.effort import mfu, peak_of, step_flops
    from tests.bench.table import Row

    peak = peak_of(compute.device, compute.precision)
    share = mfu(step_flops(step), 1 / seconds, peak)
    return Row(
        f"{setting.name}, MFU of a step, {compute.precision}",
        f"{share:.1%}",
        f"of {peak / 1e12:.3g} TFLOP/s",
        share,
        GOALS["mfu"] if compute.device != "cpu" else None,
    )


if __name__ == "__main__":
    main()
