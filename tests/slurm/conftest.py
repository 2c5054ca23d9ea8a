"""A real SLURM for the tests of this folder, a prepared study, and a table of what was broken."""

import os
import subprocess
import sys

import pytest

from tests.conftest import write_study
from tests.slurm.slurm_harness import LAB, ROOT, WEIGHTS, StudyCopy

STEPS = 100
SCRIPTS = ROOT / "tests" / "slurm"


@pytest.fixture(scope="session", autouse=True)
def lab():
    """The cluster; one that was up before is left up."""
    was_up = (LAB / "env.sh").exists()
    up = subprocess.run([SCRIPTS / "up.sh"], capture_output=True, text=True)
    if up.returncode == 77:
        pytest.skip(up.stderr.strip())
    assert up.returncode == 0, up.stdout + up.stderr
    os.environ["SLURM_CONF"] = str(LAB / "etc" / "slurm.conf")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    yield
    if not was_up:
        subprocess.run([SCRIPTS / "down.sh"], check=True)


def by_hand(study, *commands):
    """Run commands here; returns their output."""
    said = ""
    for words in commands:
        command = [sys.executable, "-m", "stages", *words.split(), "--config", study]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        said += done.stdout
    return said


def refusal_message(study, words):
    """The message of a command that asks for a change."""
    command = [sys.executable, "-m", "stages", *words.split(), "--config", study]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stderr


def edit(study, old, new):
    text = study.read_text()
    assert old in text
    study.write_text(text.replace(old, new, 1))


@pytest.fixture(scope="session")
def raw(tmp_path_factory):
    """The tiny study with nothing done, and steps enough to be interrupted."""
    folder = tmp_path_factory.mktemp("raw")
    edit(write_study(folder), "steps: 6\n", f"steps: {STEPS}\n")
    return folder


@pytest.fixture(scope="session")
def prepared(raw, tmp_path_factory):
    """The tiny study, preprocessed: faults are about its pretraining."""
    work = StudyCopy(raw, tmp_path_factory.mktemp("prepared"))
    by_hand(work.study, "inventory", "preprocess")
    return work.folder


@pytest.fixture(scope="session")
def undisturbed(prepared, tmp_path_factory):
    """The weights of a run without SLURM that nothing happened to."""
    work = StudyCopy(prepared, tmp_path_factory.mktemp("undisturbed"))
    by_hand(work.study, "pretrain")
    return (work.folder / WEIGHTS).read_bytes()


@pytest.fixture
def outcome(request, record_property):
    """Call it with what became of a fault; it stands in the table beside the test's first line."""
    record_property("fault", request.function.__doc__.split("\n")[0].rstrip("."))
    return lambda text: record_property("outcome", text)


@pytest.fixture
def work(prepared, tmp_path):
    return StudyCopy(prepared, tmp_path)


def pytest_terminal_summary(terminalreporter):
    """Print the table of faults."""
    rows = []
    for result in ("passed", "failed"):
        for report in terminalreporter.getreports(result):
            known = dict(report.user_properties)
            if report.when == "call" and "fault" in known:
                said = known.get("outcome", "") if result == "passed" else "FAILED"
                rows.append((known["fault"], said, f"{report.duration:.0f} s"))
    if rows:
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        terminalreporter.section("faults on a real SLURM")
        for fault, said, seconds in rows:
            terminalreporter.line(f"{fault:<{widths[0]}}  {said:<{widths[1]}}  {seconds:>6}")
