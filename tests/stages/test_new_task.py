"""A new kind of task takes one file, and its name in the union of tasks."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import stages
from tests.stages.conftest import ENV

ROOT = Path(stages.__file__).parent.parent
UNION = "Classification | Correspondence | CropClassification | Regression | Segmentation"
OPPOSITE = '''"""The other class than the target's."""

from typing import Literal

from ssl_pipeline.evaluation.data.labelled_crops import labelled_crop, middle_box
from ssl_pipeline.evaluation.tasks.crop_task import CropClassTask
from ssl_pipeline.evaluation.tasks.task import TruthName


class Opposite(CropClassTask):
    """The class that a target of 0 or 1 is not."""

    kind: Literal["opposite"] = "opposite"
    target: str

    def truth_names(self):
        return (TruthName("target", "target", self.target),)

    def usable_entries(self, catalog):
        return self.entries_with(self.entries(catalog), *self.truth_names())

    def truth_key(self, entry, labels):
        return entry.targets[self.target]

    def labelled_crops(self, entries, labels, size, seed):
        return [
            labelled_crop(e, middle_box(e.shape, size), 1 - int(e.targets[self.target]))
            for e in entries
        ]
'''
# One command after the other, in an interpreter that takes the packages from elsewhere.
COMMANDS = """
import sys
from stages.cli import main
for line in sys.argv[1:]:
    print(main(line.split()))
"""
TASK = """\
  opposite:
    kind: opposite
    title: Opposite
    target: side
    classes: {0: right, 1: left}
"""


def install_task(folder):
    """A copy of the packages with the new task: its file, and its name in the union."""
    for package in ("ssl_pipeline", "stages", "cluster"):
        shutil.copytree(ROOT / package, folder / package)
    tasks = folder / "ssl_pipeline" / "evaluation" / "tasks"
    (tasks / "opposite.py").write_text(OPPOSITE)
    union = (tasks / "__init__.py").read_text()
    assert UNION in union
    line = "from ssl_pipeline.evaluation.tasks.opposite import Opposite\n\nTaskConfig ="
    union = union.replace(UNION, f"{UNION} | Opposite").replace("TaskConfig =", line)
    (tasks / "__init__.py").write_text(union)


def test_a_new_task_is_validated_probed_and_fine_tuned(copied, tmp_path):
    packages = tmp_path / "packages"
    packages.mkdir()
    install_task(packages)
    wrong, text = copied.with_name("wrong.yaml"), copied.read_text()
    wrong.write_text(text + TASK.replace("target: side", "target: sid"))
    copied.write_text(text + TASK)
    stages = ("probe", "finetune")
    lines = [f"{stage} --config {copied} task=opposite" for stage in stages]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, f"probe --config {wrong} task=opposite", *lines],
        cwd=packages,
        env=ENV | {"PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
    )
    assert re.findall(r"^\d+$", done.stdout, re.MULTILINE) == ["2", "0", "0"], done.stderr
    assert "tasks.opposite.target is sid, which is not known: did you mean side?" in done.stderr
    for stage in stages:
        results = json.loads((copied.parent / f"out/{stage}/opposite/results.json").read_text())
        assert results["kind"] == "opposite"
        assert results["metric"] == "balanced_accuracy"
        assert {row["initialization"] for row in results["rows"]} >= {"pretrained", "random"}
