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

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.preloaded"])


def run_forked(program, words, *, cwd=None, env=None):
    """Run `stages` or `snakemake` with these words; its result as that of `subprocess.run`."""
    command = [program, *map(str, words)]
    with tempfile.TemporaryDirectory() as folder:
        streams = [str(Path(folder, name)) for name in ("out", "err")]
        place = (str(cwd or os.getcwd()), dict(os.environ if env is None else env))
        process = _forks.Process(target=_main, args=(command, *place, *streams))
        process.start()
        process.join()
        out, err = (Path(path).read_text() for path in streams)
    return subprocess.CompletedProcess(command, process.exitcode, out, err)


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
