"""Evidence on encoders that go on learning: `make bench-continual`, or one part of it.

`python -m tests.bench.continual gate`: how often the gate of promotions errs, in 1,000 simulated
studies a row; about a minute. `... forgetting`: what is forgotten in a sequence of four domains,
with and without replay (see `forgetting.py`); less than an hour on two cores. `... recipe`: other
ways to continue, in the same domains, printed. `... sabotage`: whether the gate blocks bad
challengers (see `sabotage.py`). `... drift`: false alarms and misses of `drift` (see `drift.py`);
some minutes. Rows go to `build/bench/continual.json`.
"""

import numpy as np

from ssl_pipeline.evaluation.statistics.gate import planned_subjects
from tests.bench.drift import bench_drift
from tests.bench.forgetting import bench_forgetting, bench_recipe
from tests.bench.goal_rows import GoalRow, run_parts, write_rows
from tests.bench.sabotage import bench_sabotage
from tests.evaluation.gate_simulation import CONFIDENCE, MARGIN, pilot_criteria, promoted

STUDIES = 1000
MAX_FALSE, MIN_TRUE = 0.05, 0.8  # shares promoted of those that are no better, and that are better
CHALLENGERS = {  # true differences of tasks to keep, and of tasks that are to gain
    "equal": ((0.0, 0.0), (0.0, 0.0, 0.0)),
    "a loss as large as allowed": ((-MARGIN, 0.0), (5 * MARGIN,)),
    "both": ((-MARGIN, 0.0), (0.0,)),
    "better": ((0.0, 0.0), (MARGIN,)),
}


def bench_gate() -> None:
    """Write the share of studies that promote, by the truth and the number of subjects."""
    rng = np.random.default_rng(0)
    needed = max(n or 0 for n in planned_subjects(pilot_criteria(rng), CONFIDENCE))
    rows = []
    for name, (losses, gains) in CHALLENGERS.items():
        for subjects in (20, 50, needed):
            count = promoted(rng, subjects, losses, gains, STUDIES)
            measure = f"promoted of {STUDIES:,}: {name}, {subjects} subjects"
            if name != "better":
                met, goal = count <= MAX_FALSE * STUDIES, f"at most {MAX_FALSE:.0%}"
            elif subjects == needed:
                met, goal = count >= MIN_TRUE * STUDIES, f"at least {MIN_TRUE:.0%}"
            else:
                met, goal = None, ""
            rows.append(GoalRow(measure, str(count), goal, met))
    write_rows("continual", "gate", rows)


PARTS = {
    "gate": bench_gate,
    "forgetting": bench_forgetting,
    "recipe": bench_recipe,
    "sabotage": bench_sabotage,
    "drift": bench_drift,
}


if __name__ == "__main__":
    run_parts(PARTS, __doc__)
