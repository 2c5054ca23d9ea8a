"""What SLURM's words mean, and what a job must not inherit; its words are those of a real one."""

import shutil

import pytest

from cluster.config import JobResources
from cluster.job_entry import distributed_env
from cluster.job_result import interpret_result, report_result
from cluster.slurm import JobState, outer_variables, parse_sacct, parse_scontrol

RESOURCES = JobResources(mem_gb=4, time_min=30)


@pytest.mark.parametrize(
    "answer, state",
    [
        ("COMPLETED|0:0|0:0\n", JobState("COMPLETED")),
        ("FAILED|2:0|0:0\n", JobState("FAILED", exit_code=2)),
        ("FAILED|9:0|0:9\n", JobState("FAILED", exit_code=9, signal=9)),
        ("CANCELLED by 0|0:0|0:0\n", JobState("CANCELLED")),
        ("TIMEOUT|0:0|0:0\n", JobState("TIMEOUT")),
        ("FAILED|0:53|0:0\n", JobState("FAILED", signal=53)),
        ("RESIZING|0:0|0:0\nCOMPLETED|0:0|0:0\n", JobState("COMPLETED")),  # went on without a node
        ("REQUEUED|0:0|0:0\n", None),
        ("RUNNING|0:0|0:0\n", None),
        ("", None),
    ],
)
def test_sacct(answer, state):
    assert parse_sacct(answer) == state


def test_scontrol_gives_the_same_state_without_accounting():
    line = "JobId=9 JobName=a b JobState=FAILED Reason=NonZeroExitCode ExitCode=2:0 Restarts=1"
    assert parse_scontrol(line + " DerivedExitCode=0:0") == JobState("FAILED", exit_code=2)
    assert parse_scontrol("JobId=9 JobState=RUNNING ExitCode=0:0 DerivedExitCode=0:0") is None
    assert parse_scontrol("") is None


MEMORY_WORDS = [
    "slurmstepd: error: Exceeded job memory limit",
    "slurmstepd: error: Job 7 exceeded memory limit (5000 > 4096), being killed",
    "error: StepId=7.0 exceeded virtual memory limit",
    "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.",
    "srun: error: node1: task 0: Out Of Memory",
]
KILLED_WORDS = [
    "srun: error: node1: task 0: Killed",
    "slurm_script: line 12: 4242 Killed  python",
]
ENDS_BY_SIGKILL = [
    JobState("FAILED", exit_code=9),
    JobState("FAILED", exit_code=137),
    JobState("FAILED", signal=9),
    JobState("FAILED", exit_code=9, signal=9),
]


@pytest.mark.parametrize("state", ENDS_BY_SIGKILL)
def test_a_job_that_was_killed_ran_out_of_memory_or_most_likely_did(state):
    for word in (*MEMORY_WORDS, *KILLED_WORDS):
        assert interpret_result(state, ["step 3", word], RESOURCES) == (
            2,
            "ran out of memory, raise mem_gb from 4",
        )
    code, meaning = interpret_result(state, ["step 3"], RESOURCES)
    assert code == 2 and "most likely out of memory: raise mem_gb from 4" in meaning


@pytest.mark.parametrize(
    "state, lines, code, meaning",
    [
        (JobState("FAILED", exit_code=1), [], 1, "ended with an error"),
        (JobState("FAILED", exit_code=1), ["torch: CUDA out of memory"], 1, "ended with an error"),
        (JobState("FAILED", exit_code=2), [], 2, "asks for a change"),
        (JobState("FAILED", exit_code=3), [], 3, "was interrupted"),
        (JobState("FAILED", exit_code=11, signal=11), [], 1, "died of SIGSEGV"),
        (JobState("FAILED", exit_code=139), [], 1, "died of SIGSEGV"),
        (JobState("FAILED", exit_code=134), MEMORY_WORDS[-1:], 2, "ran out of memory"),
        (JobState("FAILED", exit_code=143), [], 3, "was stopped from outside"),
        (JobState("FAILED", exit_code=15), [], 3, "was stopped from outside"),
        (JobState("FAILED", signal=2), [], 3, "was stopped from outside"),
        (JobState("FAILED", exit_code=127), [], 1, "died"),
        (JobState("FAILED", exit_code=255), [], 1, "died"),
        (JobState("OUT_OF_MEMORY"), [], 2, "raise mem_gb from 4"),
        (JobState("OUT_OF_MEMORY", exit_code=1), [], 2, "raise mem_gb from 4"),
        (JobState("TIMEOUT"), [], 2, "time limit of 30 min"),
        (JobState("TIMEOUT", signal=9), KILLED_WORDS, 2, "time limit of 30 min"),
        (JobState("CANCELLED"), [], 3, "was cancelled"),
        (JobState("CANCELLED", signal=15), KILLED_WORDS, 3, "was cancelled"),
        (JobState("CANCELLED", exit_code=9), MEMORY_WORDS[:1], 2, "ran out of memory"),
        (JobState("NODE_FAIL"), [], 3, "lost its node"),
        (JobState("NODE_FAIL", exit_code=1), [], 3, "lost its node"),
        (JobState("FAILED", signal=53), [], 1, "could not open its log"),
        (JobState("FAILED", exit_code=53), [], 1, "could not open its log"),
    ],
)
def test_an_end_has_a_meaning_and_an_exit_code(state, lines, code, meaning):
    found, said = interpret_result(state, lines, RESOURCES)
    assert found == code and meaning in said


def test_the_sentence_has_state_code_log_and_its_last_lines(tmp_path, capsys):
    log = tmp_path / "7_0_log.out"
    log.write_text("submitit INFO (now) - Starting\nhalf way\nSegmentation fault\n")
    assert (
        report_result("pretrain", "7", JobState("FAILED", exit_code=11, signal=11), log, RESOURCES)
        == 1
    )
    said = capsys.readouterr().err
    assert "job 7 died of SIGSEGV (SLURM says FAILED, exit code 11, signal 11)" in said
    assert str(log) in said and "| Segmentation fault" in said and "submitit" not in said


def test_nothing_of_an_outer_job_or_a_users_shell_is_inherited():
    outer = ["SLURM_JOB_ID", "SBATCH_PARTITION", "SRUN_DEBUG", "SLURM_CONF", "RANK", "PATH", "HOME"]
    assert outer_variables(outer) == ["SLURM_JOB_ID", "SBATCH_PARTITION", "SRUN_DEBUG", "RANK"]


def test_ranks_of_one_node_meet_where_no_other_machine_reaches_them():
    one = {
        "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "12",
        "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node7",
    }  # fmt: skip
    assert distributed_env(one)["MASTER_ADDR"] == "127.0.0.1"


@pytest.mark.skipif(shutil.which("scontrol") is None, reason="scontrol names the nodes of a job")
def test_one_task_has_no_ranks_and_attempts_take_other_ports(monkeypatch):
    assert distributed_env({"SLURM_NTASKS": "1"}) == {}
    several = {
        "SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "12",
        "SLURM_JOB_NODELIST": "unknown[1-2]", "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1",
    }  # fmt: skip
    first = distributed_env(several)
    assert (first["RANK"], first["WORLD_SIZE"], first["LOCAL_RANK"]) == ("3", "4", "1")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert distributed_env(several)["MASTER_PORT"] != first["MASTER_PORT"]
