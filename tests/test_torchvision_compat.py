"""Imports of packages that need torchvision: they work, and torchvision_compat comes first."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDS_COMPAT = {"torchvision", "timm", "lightly", "torchmetrics", "peft"}


def test_timm_and_lightly_import_after_torchvision_compat():
    code = (
        "import ssl_pipeline.torchvision_compat, torchvision, timm, lightly.loss; "
        "from torchvision.models import resnet18; print(len(list(resnet18().parameters())))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "62"


def test_operators_are_defined_once():
    code = (
        "from ssl_pipeline.torchvision_compat import define_missing_operators as define; "
        "define(); define(); import torchvision"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def _imports(tree: ast.AST) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.lineno, node.module))
    return sorted(found)


def test_torchvision_compat_is_imported_first():
    for path in [*ROOT.glob("ssl_pipeline/**/*.py"), *ROOT.glob("stages/**/*.py")]:
        if path.name == "torchvision_compat.py":
            continue
        imports = _imports(ast.parse(path.read_text()))
        needing = [line for line, name in imports if name.split(".")[0] in NEEDS_COMPAT]
        compat = [line for line, name in imports if name == "ssl_pipeline.torchvision_compat"]
        if needing:
            assert compat and min(compat) < min(needing), f"{path} must import torchvision_compat"
