"""Conventions: sizes, names, top-level files, and that importing the library is cheap."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grimp
import networkx
import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = sorted(
    p for part in ("ssl_pipeline", "stages", "cluster") for p in (ROOT / part).rglob("*.py")
)
NAMELESS = {"utils", "helpers", "base", "manager", "common", "misc"}
TOP = {
    "pyproject.toml", "README.md", "Snakefile", "ssl_pipeline", "stages", "cluster", "workflows",
    "tests", "local", "slurm", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile",
    ".gitignore", ".ci", ".pre-commit-config.yaml", "docs", "examples", "mkdocs.yml",
}  # fmt: skip
# Where settings build what computes them, by lazy imports, so that studies are read without torch.
CIRCULAR = (
    "ssl_pipeline.models", "ssl_pipeline.evaluation.tasks", "ssl_pipeline.evaluation.runner",
)  # fmt: skip
# Words that name nothing to an engineer of this field, or that the glossary has a better one for.
NOT_IN_NAMES = {
    "told", "fared", "looked", "alike", "judge", "judged", "judges", "judgement", "judgements",
    "dial", "dials", "seen", "drawn", "kept", "shown", "said", "asked", "given", "made", "found",
    "whose", "worse", "spoilt", "beside", "looks", "waits", "gone", "taken", "cure",
}  # fmt: skip


def public_definitions() -> Iterator[tuple[Path, ast.ClassDef | ast.FunctionDef]]:
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            is_definition = isinstance(node, ast.ClassDef | ast.FunctionDef)
            if is_definition and not node.name.startswith("_"):
                yield path, node


def names_in(node: ast.ClassDef | ast.FunctionDef) -> list[str]:
    """A definition's name, and its parameters or fields."""
    if isinstance(node, ast.FunctionDef):
        return [node.name, *(each.arg for each in [*node.args.args, *node.args.kwonlyargs])]
    fields = (each.target for each in node.body if isinstance(each, ast.AnnAssign))
    return [node.name, *(field.id for field in fields if isinstance(field, ast.Name))]


def test_spacing_is_turned_round_nowhere():
    """Triples are (z, y, x) for all, but along the columns of an affine."""
    turned = [
        str(path.relative_to(ROOT))
        for folder in ("ssl_pipeline", "stages", "examples", "docs")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".md") and "spacing_mm[::-1]" in path.read_text("utf-8")
    ]
    assert turned == []


def test_no_two_public_classes_have_one_name():
    count = Counter(node.name for _, node in public_definitions() if isinstance(node, ast.ClassDef))
    assert [name for name, number in count.items() if number > 1] == []


def test_public_names_are_words_of_the_field():
    strange = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, node in public_definitions()
        for name in names_in(node)
        if NOT_IN_NAMES & {word.lower() for word in re.findall("[a-z]+|[A-Z][a-z]*", name)}
    ]
    assert strange == []


def test_the_name_of_an_output_file_is_written_once():
    """In the room that writes it; three templates are called as their pages are."""
    outputs = re.compile(r"[\w.-]+\.(json|jsonl|parquet|npz|safetensors|html|md|log)")
    count = Counter(
        node.value
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if outputs.fullmatch(node.value)
    )
    several = {name for name, number in count.items() if number > 1}
    assert several == {"report.html", "inventory.html", "drift.html"}


def test_torch_unpickles_no_objects_which_could_run_code():
    """Neither from files, which others may have written, nor from the network."""
    unsafe = re.compile(r"dist\.\w*_object|torch\.load\((?!.*weights_only=True)")
    strange = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in CODE
        for line in path.read_text().splitlines()
        if unsafe.search(line)
    ]
    assert strange == []


def test_nothing_else_grows_at_the_top():
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split("/")[0] for line in done.stdout.splitlines()} <= TOP


@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_fits_a_reader(path):
    text = path.read_text()
    assert path.stem not in NAMELESS
    assert len(text.splitlines()) <= 400
    tree = ast.parse(text)
    assert not text.strip() or ast.get_docstring(tree), "a module opens with why"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node, clean=False)
            lines = node.end_lineno - node.lineno + 1
            lines -= len(documented.splitlines()) + 1 if documented else 0
            assert lines < 50, f"{node.name} has {lines} lines"


def test_imports_have_no_circle_but_those_of_settings_and_what_they_build():
    graph = grimp.build_graph("ssl_pipeline", "stages", "cluster", cache_dir=None)
    arrows = [
        (name, other)
        for name in graph.modules
        for other in graph.find_modules_directly_imported_by(name)
    ]
    groups = networkx.strongly_connected_components(networkx.DiGraph(arrows))
    circles = [group for group in groups if len(group) > 1]
    assert len(circles) == 4
    assert {name for circle in circles for name in circle if not name.startswith(CIRCULAR)} == set()


def test_importing_the_library_imports_no_torch():
    code = "import sys, ssl_pipeline; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_the_command_line_imports_nothing_that_takes_long():
    """Every command, and every stage of a workflow, would wait for it."""
    code = "import sys, stages.cli, stages.core.workflow; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    imported = set(done.stdout.split())
    assert "stages.cli" in imported, done.stderr
    assert not imported & {"torch", "scipy.stats", "scipy.optimize", "matplotlib", "zarr"}


def test_no_study_is_named_in_code():
    studies = {path.stem for path in (ROOT / "workflows/studies").glob("*.yaml")} - {"demo"}
    for path in CODE:
        text = path.read_text().lower()
        assert not [name for name in studies if name in text], path
