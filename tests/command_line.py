"""Commands in a process of their own, forked from one that has imported them already.

Starting Python and importing torch takes longer than most commands do. What a command sets up at
its start (signals, threads, random numbers, logs) is its own, as it is in a new interpreter.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OFFLINE = ["unshare", "--map-root-user", "--net"]  # before a command: it has no network

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.preloaded"])


def can_be_offline():
    """Whether this machine lets a process do without a network."""
    try:
        return subprocess.run([*OFFLINE, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def offline_prefix():
    """What goes before a command that is to run without a network, where a machine allows it."""
    return OFFLINE if can_be_offline() else []


class ForkedCommand:
    """`stages` or `snakemake` with these words, in a process of its own that has been started."""

    def __init__(self, program, words, *, cwd=None, env=None):
        self.command = [program, *map(str, words)]
        self._folder = tempfile.TemporaryDirectory()
        self._streams = [str(Path(self._folder.name, name)) for name in ("out", "err")]
        place = (str(cwd or os.getcwd()), dict(os.environ if env is None else env))
        arguments = (self.command, *place, *self._streams)
        self._process = _forks.Process(target=_main, args=arguments)
        self._process.start()

    def send_signal(self, number):
        """Send it a signal."""
        os.kill(self._process.pid, number)

    def poll(self):
        """The exit code; None while it runs."""
        return self._process.exitcode

    def wait(self):
        """What it said and its exit code, as `subprocess.run` gives them, once it has ended."""
        self._process.join()
        out, err = (Path(path).read_text() for path in self._streams)
        self._folder.cleanup()
        return subprocess.CompletedProcess(self.command, self._process.exitcode, out, err)


def run_forked(program, words, *, cwd=None, env=None):
    """Run `stages` or `snakemake` with these words; its result as that of `subprocess.run`."""
    return ForkedCommand(program, words, cwd=cwd, env=env).wait()


def _main(command, cwd, env, out, err):
    for path, descriptor in ((os.devnull, 0), (out, 1), (err, 2)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = command
    if command[0] == "snakemake":
        from snakemake.cli import main
    else:
        from stages.cli import main
    code = main(command[1:])
    sys.exit(code)
