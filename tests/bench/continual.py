"""Evidence on encoders that go on learning: `make bench-continual`, or one part of it.

`python -m tests.bench.continual gate`: how often the gate of promotions errs, in 1,000 simulated
studies a row; about a minute. `... forgetting`: what is forgotten in a sequence of four domains,
with and without replay (see `forgetting.py`); about an hour on two cores.
"""

import argparse

import numpy as np

from ssl_pipeline.evaluation.statistics.gate import planned_subjects
from tests.bench.forgetting import bench_forgetting
from tests.evaluation.gate_simulation import CONFIDENCE, MARGIN, pilot_criteria, promoted

STUDIES = 1000
CHALLENGERS = {  # true differences of tasks to keep, and of tasks that are to gain
    "equal": ((0.0, 0.0), (0.0, 0.0, 0.0)),
    "a loss as large as allowed": ((-MARGIN, 0.0), (5 * MARGIN,)),
    "both": ((-MARGIN, 0.0), (0.0,)),
    "better": ((0.0, 0.0), (MARGIN,)),
}


def bench_gate() -> None:
    """Print the share of studies that promote, by the truth and the number of subjects."""
    rng = np.random.default_rng(0)
    needed = max(n or 0 for n in planned_subjects(pilot_criteria(rng), CONFIDENCE))
    print("| the challenger | subjects | promoted of 1,000 |")
    print("|---|---:|---:|")
    for name, (losses, gains) in CHALLENGERS.items():
        for subjects in (20, 50, needed):
            count = promoted(rng, subjects, losses, gains, STUDIES)
            print(f"| {name} | {subjects} | {count} |", flush=True)


PARTS = {"gate": bench_gate, "forgetting": bench_forgetting}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], default=[*PARTS])
    for part in parser.parse_args().part:
        PARTS[part]()


if __name__ == "__main__":
    main()
