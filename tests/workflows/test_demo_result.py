"""What `make demo` leaves: a network that finds organs in a patient whom it has not seen."""

from pathlib import Path

import pytest

from ssl_pipeline.evaluation.cells import RANDOM
from ssl_pipeline.evaluation.records import RESULTS_FILE, Results
from ssl_pipeline.io.records import read_record

pytestmark = pytest.mark.demo
ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "build/demo/finetune/organs" / RESULTS_FILE
LEAST_DICE = 0.5


def test_the_best_start_segments_liver_and_spleen_of_a_patient_not_trained_on():
    results = read_record(Results, RESULTS, "run `make demo`")
    assert (results.split, results.classes) == ("test", ("spleen", "liver"))
    assert results.n_test_subjects == 1 and not results.warning, "nobody who was seen before"
    networks = {row.initialization: row.mean for row in results.rows if row.method == "full"}
    assert set(networks) == {"pretrained", RANDOM}
    assert max(networks.values()) >= LEAST_DICE, networks
