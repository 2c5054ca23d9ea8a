"""Importing what needs torchvision, in a fresh process, and that the cure always comes first."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDS_COMPAT = {"torchvision", "timm", "lightly", "torchmetrics", "peft"}


def test_timm_and_lightly_import_after_the_cure():
    code = (
        "import ssl_pipeline.torchvision_compat, torchvision, timm, lightly.loss; "
        "from torchvision.models import resnet18; print(len(list(resnet18().parameters())))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "62"


def test_the_cure_defines_nothing_twice():
    code = "from ssl_pipeline.torchvision_compat import cure; cure(); cure(); import torchvision"
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


def test_every_file_that_needs_the_cure_imports_it_first():
    for path in [*ROOT.glob("ssl_pipeline/**/*.py"), *ROOT.glob("stages/*.py")]:
        if path.name == "torchvision_cure.py":
            continue
        imports = _imports(ast.parse(path.read_text()))
        needing = [line for line, name in imports if name.split(".")[0] in NEEDS_COMPAT]
        cure = [line for line, name in imports if name == "ssl_pipeline.torchvision_compat"]
        if needing:
            assert cure and min(cure) < min(needing), f"{path} imports timm or its kin uncured"
