"""A cluster file: what it asks for, and mistakes in one sentence before anything is submitted."""

from pathlib import Path

import pytest

from cluster.config import load_cluster_config
from ssl_pipeline.errors import UserError

TRACKED = Path(__file__).resolve().parent.parent.parent / "workflows/profiles/slurm/cluster.yaml"


@pytest.fixture
def read(tmp_path):
    def reader(text):
        path = tmp_path / "cluster.yaml"
        path.write_text(text)
        return load_cluster_config(path)

    return reader


def test_the_tracked_file_names_no_site():
    cluster = load_cluster_config(TRACKED)
    for name in ("preprocess", "pretrain", "probe", "finetune"):
        asked = cluster.resources(name)
        assert asked and not any((asked.partition, asked.account, asked.qos, asked.constraint))
    assert cluster.resources("inventory") is None


def test_a_stage_asks_for_the_defaults_and_its_own(read):
    text = "defaults: {partition: gpu, time_min: 30}\nstages: {pretrain: {gpus: 2}, probe: }"
    pretrain, probe = (read(text).resources(name) for name in ("pretrain", "probe"))
    assert (pretrain.partition, pretrain.time_min, pretrain.gpus) == ("gpu", 30, 2)
    assert (probe.partition, probe.gpus) == ("gpu", 0)
    assert read(text).resources("finetune") is None


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("default: {}", "default is not known: did you mean defaults?"),
        ("stages: {pretrain: {gpu: 1}}", "stages.pretrain.gpu is not known: did you mean gpus?"),
        ("defaults: {time_min: 0}", "defaults.time_min is 0"),
        ("defaults: {time_min: 1}", "signal_before_end_s is 120, and the time limit is only 1 min"),
        ("defaults: {sbatch: {time: 5}}", "time is not taken here: use time_min"),
        ("defaults: {sbatch: {--job_name: a}}", "the launcher sets it itself"),
        ("defaults: {sbatch: {array: 0-3}}", "array is not taken here"),
        ("defaults: {sbatch: {exclusive: yes}}", "exclusive is yes: write true or false"),
        ("on_interrupt: stay", "on_interrupt is 'stay'"),
        ("- a list", "holds no sections"),
    ],
)
def test_a_mistake_is_one_sentence(read, text, sentence):
    with pytest.raises(UserError) as error:
        read(text)
    assert sentence in str(error.value) and "cluster.yaml" in str(error.value)


@pytest.mark.parametrize("seconds, requeues", [(0, 0), (60, 0), (61, 1), (120, 1), (6000, 99)])
def test_work_goes_back_to_the_queue_at_each_signal(read, seconds, requeues):
    asked = read("defaults: {time_min: 2, signal_before_end_s: 60}").defaults
    assert asked.expected_requeues(seconds) == requeues


def test_further_parameters_of_sbatch_are_passed_on(read):
    asked = read("defaults: {sbatch: {mail_type: END, exclusive: true}}").defaults
    assert asked.sbatch == {"mail-type": "END", "exclusive": True}
