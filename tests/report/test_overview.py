"""The picture of the README, which a script makes from a finished study."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def test_the_overview_is_drawn_from_a_finished_study(unchanged, tmp_path):
    picture = tmp_path / "overview.png"
    subprocess.run(
        [sys.executable, ROOT / "docs/images/overview.py", unchanged.folder, picture],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "", "HOME": str(tmp_path)},
        check=True,
    )
    drawn = Image.open(picture)
    assert drawn.width > 3 * drawn.height
    assert len(drawn.convert("RGB").getcolors(1 << 24)) > 100
