"""Several ranks: real processes with gloo are one run, in loss, in weights, in how it stops."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import time

import psutil
import pytest
import torch

from ssl_pipeline.errors import UserError
from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.objectives import Custom, Mae
from ssl_pipeline.objectives.terms.dino import Dino
from ssl_pipeline.objectives.terms.ibot import Ibot
from ssl_pipeline.objectives.terms.koleo import Koleo
from ssl_pipeline.objectives.terms.lejepa import Lejepa
from ssl_pipeline.training import checkpoint
from ssl_pipeline.training.loop import StoppedError
from ssl_pipeline.training.metrics_log import read_metrics
from ssl_pipeline.training.pace import OPEN_END, measure_pace, unobserved
from ssl_pipeline.training.ranks import RankInfo
from stages.core.runner import run_stage
from tests.command_line import ForkedCommand
from tests.conftest import read_json, write_study
from tests.training.small_trainer import CONTRASTIVE, HYBRID, THROUGH_UNET, small_trainer

DISTILLING = Custom(
    terms=(Dino(prototypes=32), Ibot(prototypes=32), Koleo(), Lejepa(), *THROUGH_UNET)
)
OBJECTIVES = (Mae(), CONTRASTIVE, HYBRID, DISTILLING)
RUNS = [(objective, steps) for objective in OBJECTIVES for steps in (1, 6)]
MONITORING = Monitoring(snapshot_every=3, snapshot_samples=4, stop_on=())
STEPS = 40
WEIGHTS = "out/pretrain/encoder/encoder.safetensors"


def variables(rank, size, port):
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "SSL_PIPELINE_RANK_TIMEOUT_S": "60",
    }


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train(folder, output, objective, steps, rank_info):
    """Leave the last gradient and the last weights behind."""
    there = folder / f"{objective.name}-{steps}"
    run = small_trainer(
        there, output, objective, monitoring=MONITORING, rank_info=rank_info, steps=steps
    )
    run.train()
    if rank_info.is_first:
        weights = run.objective.state_dict()  # the teacher's centre too
        named = run.objective.named_parameters()
        gradient = {n: p.grad for n, p in named if p.requires_grad}
        torch.save((weights, gradient), run.folder / "end.pt")


def train_in_parts(folder, output, rank_info):
    """Leave the last weights of a run behind whose steps are divided among calls."""
    run = small_trainer(
        folder / "parts", output, HYBRID, monitoring=MONITORING, rank_info=rank_info, steps=6
    )
    with run.ranks.connect(run.compute.device):
        for _ in range(3):
            state = run.train(2)
        open_ports = psutil.Process().net_connections("tcp")
        listening = sorted({each.laddr.ip for each in open_ports if each.status == "LISTEN"})
        (folder / f"listening-{rank_info.rank}").write_text(" ".join(listening))
        measured = small_trainer(
            *(folder / "measured", output, HYBRID),
            monitoring=unobserved(MONITORING),
            rank_info=rank_info,
            **{"steps": OPEN_END, "checkpoint_every": OPEN_END, "log_every": OPEN_END},
        )
        pace = measure_pace(measured, 0.0)
        (folder / f"pace-{rank_info.rank}").write_text(pace.model_dump_json())
    if rank_info.is_first:
        torch.save(state.objective, run.folder / "end.pt")


def train_data_bound(folder, output, rank_info):
    """Train until it is stopped, where the second rank's data come late; writes the message."""
    monitoring = Monitoring(
        snapshot_every=2, snapshot_samples=4, patience=1, stop_on=("data_bound",)
    )
    settings = {
        "steps": STEPS,
        "checkpoint_every": STEPS,
        "monitoring": monitoring,
        "rank_info": rank_info,
    }
    run = small_trainer(folder / "data_bound", output, Mae(), **settings)
    if not rank_info.is_first:
        batch = run.sampler.batch
        run.sampler.batch = lambda *which: (time.sleep(1), batch(*which))[1]
    with pytest.raises(StoppedError) as stopped:
        run.train()
    (folder / f"data-bound-{rank_info.rank}").write_text(str(stopped.value))


def train_as_rank(folder, output, rank, ports):
    for (objective, steps), port in zip(RUNS, ports, strict=False):
        os.environ.update(variables(rank, 2, port))
        train(folder, output, objective, steps, RankInfo.from_environment())
    os.environ.update(variables(rank, 2, ports[-2]))
    train_in_parts(folder, output, RankInfo.from_environment())
    os.environ.update(variables(rank, 2, ports[-1]))
    train_data_bound(folder, output, RankInfo.from_environment())


@pytest.fixture(scope="module")
def ends(study, tmp_path_factory):
    """Folders of the same runs on one rank and on two; each run meets at a port of its own."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    ports = [free_port() for _ in range(len(RUNS) + 2)]
    context = multiprocessing.get_context("spawn")
    ranks = [
        context.Process(target=train_as_rank, args=(two, study.folder, rank, ports))
        for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    for objective, steps in RUNS:
        train(one, study.folder, objective, steps, RankInfo())
    for rank in ranks:
        rank.join()
        assert rank.exitcode == 0
    return one, two


def flat(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
def test_two_ranks_train_as_one(ends, objective):
    one, two = (torch.load(folder / f"{objective.name}-1" / "end.pt")[1] for folder in ends)
    largest = flat(one).abs().max()
    assert (flat(one) - flat(two)).abs().max() < 3e-6 * largest  # gradients of one step

    logs = (read_metrics(folder / f"{objective.name}-6" / "metrics.jsonl") for folder in ends)
    for mine, theirs in zip(*logs, strict=True):
        assert mine.keys() == theirs.keys()
        for part in mine.keys() & {
            "loss",
            "reconstruction",
            "subject_contrast",
            "local_contrast",
            *("dino", "ibot", "koleo", "lejepa"),
            "gradient_norm",
        }:
            assert theirs[part] == pytest.approx(mine[part], rel=1e-4), part

    # Adam makes a whole step of a gradient that is rounding alone, as that of a key's bias is.
    one, two = (torch.load(folder / f"{objective.name}-6" / "end.pt")[0] for folder in ends)
    assert (flat(one) - flat(two)).norm() < 1e-4 * flat(one).norm()


def test_ranks_that_stay_connected_divide_their_steps_among_calls(ends):
    whole = torch.load(ends[1] / "hybrid-6" / "end.pt")[0]
    parts = torch.load(ends[1] / "parts" / "end.pt")
    assert all(torch.equal(parts[name], weight) for name, weight in whole.items())


def test_ranks_measure_one_pace_and_leave_no_folder(ends):
    first, second = (read_json(ends[1] / f"pace-{rank}") for rank in (0, 1))
    assert first == second and min(first.values()) > 0
    assert not (ends[1] / "measured").exists()


def test_ranks_of_one_machine_listen_where_no_other_machine_reaches_them(ends):
    assert [(ends[1] / f"listening-{rank}").read_text() for rank in (0, 1)] == ["127.0.0.1"] * 2


def test_a_run_of_two_ranks_goes_on_with_one(ends, study, tmp_path):
    shutil.copytree(ends[1] / "hybrid-6", tmp_path / "run")
    for path in (tmp_path / "run/checkpoints").glob("step-00000006*"):
        path.unlink()
    run = small_trainer(tmp_path / "run", study.folder, HYBRID, monitoring=MONITORING, steps=6)
    assert run.step == 4
    run.train()
    whole = torch.load(ends[0] / "hybrid-6" / "end.pt")[0]
    gone_on = {name: parameter.detach() for name, parameter in run.objective.named_parameters()}
    assert (flat(whole) - flat(gone_on)).norm() < 1e-4 * flat(whole).norm()


def test_a_diagnosis_stops_all_ranks_and_the_first_says_why(ends):
    """The one that stops them is about the second rank, whose data come late."""
    first, second = ((ends[1] / f"data-bound-{rank}").read_text() for rank in (0, 1))
    assert "as data_bound: The device waits for data" in first
    assert second == "pretrain stopped at step 2; the first rank says why."
    assert [
        row["data_wait"] > 0.5 for row in read_metrics(ends[1] / "data_bound" / "metrics.jsonl")
    ] == [1, 1]
    assert checkpoint.load_newest(ends[1] / "data_bound" / "checkpoints").step == 2


@pytest.fixture(scope="module")
def prepared(study, tmp_path_factory):
    """Makes copies of a study that lacks nothing but its pretraining."""

    def copy():
        folder = tmp_path_factory.mktemp("ranks")
        shutil.copytree(study.folder, folder / "out")
        file = write_study(folder)
        text = file.read_text().replace("steps: 6\n", f"steps: {STEPS}\n", 1)
        text = text.replace("checkpoint_every: 2", "checkpoint_every: 10")
        file.write_text(text.replace("log_every: 2", "log_every: 1"))
        return file

    return copy


def start(file):
    """Two processes of the command line, one a rank."""
    port, words = free_port(), ["pretrain", "--config", file]
    return [
        ForkedCommand("stages", words, env={**os.environ, **variables(rank, 2, port)})
        for rank in (0, 1)
    ]


def end(processes):
    """What each said on standard error, and the exit codes."""
    done = [process.wait() for process in processes]
    return [each.stderr.strip() for each in done], [each.returncode for each in done]


def run_whole(file):
    said, codes = end(start(file))
    assert codes == [0, 0], said


def steps_logged(file):
    logs = list(file.parent.glob("out/pretrain/runs/*/metrics.jsonl"))
    return len(read_metrics(logs[0])) if logs else 0


def wait_for_steps(file, count, processes):
    while steps_logged(file) < count:
        assert all(process.poll() is None for process in processes), end(processes)
        time.sleep(0.01)


def test_a_signal_to_one_rank_stops_all_after_the_same_step_and_they_go_on(prepared):
    file = prepared()
    processes = start(file)
    wait_for_steps(file, 5, processes)
    processes[1].send_signal(signal.SIGUSR2)
    said, codes = end(processes)
    assert codes == [3, 3] and all("interrupted" in words for words in said), said
    (folder,) = file.parent.glob("out/pretrain/runs/*/checkpoints")
    assert checkpoint.load_newest(folder).step == steps_logged(file) < STEPS
    run_whole(file)
    assert steps_logged(file) == STEPS and (file.parent / WEIGHTS).exists()
    provenance = json.loads((file.parent / "out/pretrain/provenance.json").read_text())
    assert provenance["training_summary"]["ranks"] == 2


def test_a_rank_that_dies_ends_the_others_as_resumable(prepared):
    file = prepared()
    processes = start(file)
    wait_for_steps(file, 5, processes)
    processes[1].send_signal(signal.SIGKILL)
    said, codes = end(processes)
    assert codes == [3, -signal.SIGKILL], said
    assert "lost another rank" in said[0] and len(said[0].splitlines()) == 1


def test_a_complete_run_waits_for_no_other_rank(ends, study):
    for rank in (0, 1):
        run = small_trainer(
            ends[1] / "mae-6", study.folder, Mae(), rank_info=RankInfo(rank=rank, world_size=2)
        )
        run.train()
        assert run.step == 6


@pytest.mark.kill
def test_killed_ranks_go_on_and_end_bit_for_bit_as_undisturbed(prepared):
    whole, file = prepared(), prepared()
    run_whole(whole)
    processes = start(file)
    wait_for_steps(file, 15, processes)
    for process in processes:
        process.send_signal(signal.SIGKILL)
    end(processes)
    assert 15 <= steps_logged(file) < STEPS
    run_whole(file)
    assert (file.parent / WEIGHTS).read_bytes() == (whole.parent / WEIGHTS).read_bytes()
    assert steps_logged(file) == STEPS


def test_batch_sizes_that_do_not_divide_are_one_sentence(study, tmp_path):
    with pytest.raises(UserError, match=r"training\.batch_size is 4, which 3 ranks cannot share"):
        small_trainer(tmp_path, study.folder, Mae(), rank_info=RankInfo(rank=2, world_size=3))


def test_other_stages_refuse_ranks(study, monkeypatch):
    for name, value in variables(1, 2, 1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="the stage inventory runs in one process"):
        run_stage("inventory", study, {})


def test_a_missing_variable_is_one_sentence(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="RANK is not set: start with torchrun"):
        RankInfo.from_environment()


def test_too_little_memory_says_which_settings_to_lower(study, tmp_path):
    run = small_trainer(tmp_path, study.folder, Mae())

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    run.objective.heads["reconstruction"].register_forward_pre_hook(full)
    with pytest.raises(
        UserError, match=r"4 samples with crops of \[16, 16, 16\] voxels: raise train"
    ):
        run.train()
