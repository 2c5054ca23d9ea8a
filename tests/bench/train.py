"""`make bench-train`: steps against those of peers and dense ones, and from store to step.

Works take turns in an order that is drawn for each round, each in a process of its own; a ratio is
the median of the rounds' ratios. On a CPU the steps have one thread, and their seconds are those of
its core: threads that wait for each other measure the neighbours of a shared machine. The runs from
store to step have all cores and the clock on the wall. With a GPU, the comparison is made there at
ViT-B, with MFU and waiting for data. `build/bench/train.json` gets the rows.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssl_pipeline.training.compute import Compute
    from stages.core.study import Study
    from tests.bench.steps import Step, StepSize
    from tests.bench.table import BenchmarkRow, Times

OUT = Path("build/bench")
ROUNDS = 11
COMPARED = ("ours", "ours, compiled", "MONAI", "lightly")
MAX_PARAMETER_DIFFERENCE = 0.01  # largest relative difference of parameters
GOALS = {"MONAI": 1.3, "MONAI, fp32": 3.3, "hybrid": 0.87, "mfu": 0.45}


def main() -> None:
    # Before torch is imported; see `stages.core.process`.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from tests.bench import benchmark_study, data_loading, steps
    from tests.bench.table import write_table

    study = benchmark_study.prepare_study(OUT)
    gpu = torch.cuda.is_available()
    setting = steps.VIT_B if gpu else steps.SMALL
    rows = [*_rows(study, setting)]
    readers = (2, len(os.sched_getaffinity(0))) if gpu else (1, 2)
    rows += data_loading.rows(study, steps.VIT_B if gpu else steps.TINY, readers, OUT / "work")
    write_table(rows, OUT / "train.json")


def _rows(study: "Study", setting: "StepSize") -> Iterator["BenchmarkRow"]:
    """Steps against steps."""
    from ssl_pipeline.training.compute import select_compute
    from ssl_pipeline.training.config import Training
    from ssl_pipeline.training.ranks import RankInfo
    from tests.bench import benchmark_study, memory, steps
    from tests.bench.subprocess_timer import SubprocessTimer
    from tests.bench.table import BenchmarkRow, interleaved_times

    compute = select_compute(Training(threads=1), RankInfo())
    clock = time.process_time if compute.device == "cpu" else time.perf_counter
    sizes = {"": setting, " tiny": steps.TINY}
    blocks = {
        s.name: benchmark_study.build_sampler(study, s.views, s.batch_size).batch(0)
        for s in sizes.values()
    }
    works = {
        name: SubprocessTimer(clock, steps.build_step, kind, size, each, blocks[size.name])
        for name, (kind, size, each) in _works(setting, compute).items()
    }
    taken = interleaved_times(works, ROUNDS, clock=None)
    yield from _comparison_rows(setting, compute, taken)
    for name, size in sizes.items():
        yield BenchmarkRow(
            f"{size.name}, MAE step / hybrid step (all terms), from blocks on",
            f"hybrid {taken.median(f'hybrid{name}') * 1e3:.0f} ms",
            f"MAE: {taken.median(f'MAE{name}') * 1e3:.0f} ms",
            taken.ratio(f"hybrid{name}", f"MAE{name}"),
            GOALS["hybrid"],
        )
    step = steps.build_step("ours", setting, compute, blocks[setting.name])
    yield _mfu_row(setting, compute, step, taken.median("ours"))
    mine, theirs = (memory.peak_mib(name, setting.name, OUT) for name in ("ours", "MONAI"))
    yield BenchmarkRow(
        f"{setting.name}, peak memory of a step, fp32",
        f"{mine:.0f} MiB",
        f"MONAI: {theirs:.0f} MiB",
        theirs / mine,
    )


def _works(setting: "StepSize", compute: "Compute") -> dict[str, tuple[str, "StepSize", "Compute"]]:
    """Steps of equal size, in the precision that is faster here and in fp32: kind, size, device."""
    from tests.bench import steps

    full, made = steps.in_fp32(compute), steps.parameter_count(steps.build_objective(setting))
    for name, net in steps.PEERS.items():
        assert abs(steps.parameter_count(net(setting)) - made) <= MAX_PARAMETER_DIFFERENCE * made, (
            name
        )
    alone = ("ours, 1/3 decoded", "dense", "MAE", "hybrid")
    works = {name: (name, setting, compute) for name in (*COMPARED, *alone)}
    works |= {f"{name} tiny": (name, steps.TINY, compute) for name in ("MAE", "hybrid")}
    if full != compute:
        works |= {f"{name}, fp32": (name, setting, full) for name in COMPARED}
    return works


def _comparison_rows(
    setting: "StepSize", compute: "Compute", taken: "Times"
) -> Iterator["BenchmarkRow"]:
    """Crops a second of ours against those of others."""
    from tests.bench.table import BenchmarkRow

    reduced = "MONAI, fp32" in taken.rounds
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
        rate, theirs = (2 * setting.batch_size / taken.median(name) for name in (mine, other))
        yield BenchmarkRow(
            f"{setting.name}, crops of {setting.side}^3 a second, {precision}{kind}",
            f"{rate:.3g}",
            f"{other}: {theirs:.3g}",
            taken.ratio(mine, other),
            goal,
        )
    if not reduced:
        yield BenchmarkRow(
            f"{setting.name}, bf16", "not used", "measured: does not pay on this processor"
        )


def _mfu_row(
    setting: "StepSize", compute: "Compute", step: "Step", seconds: float
) -> "BenchmarkRow":
    """Share of what the device could do."""
    from ssl_pipeline.monitoring.utilization import mfu, peak_flops, step_flops
    from tests.bench.table import BenchmarkRow

    peak = peak_flops(compute.device, compute.precision)
    share = mfu(step_flops(step), 1 / seconds, peak)
    return BenchmarkRow(
        f"{setting.name}, MFU of a step, {compute.precision}",
        f"{share:.1%}",
        f"of {peak / 1e12:.3g} TFLOP/s",
        share,
        GOALS["mfu"] if compute.device != "cpu" else None,
    )


if __name__ == "__main__":
    main()
