"""The documentation is true: its examples run, its settings, commands, messages and links exist."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from cluster.config import Cluster
from stages import cli
from stages.core.stage import STAGES
from stages.core.stage_request import parse_request
from stages.core.study import Study
from tests.conftest import write_scans
from tests.export.conftest import save_random_bundle

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]

# What a fragment of a study needs beside it, to be a study.
MINIMAL_STUDY = """
name: minimal
data:
  roots:
    - path: /data/ct
      name: ct
      modality: CT
      subject: {pattern: '(?P<id>[^/]+)/'}
      site: {pattern: '^(?P<site>[AB])'}
      targets: {age: {pattern: '_(?P<age>.+)y'}, region: {pattern: '-(?P<region>.+)-'}}
      labels: {organs: {path: /data/organs}, nnunet: {path: /data/nnunet}}
tasks: {}
"""


def blocks(language):
    """The code blocks of a language, each as a test of its own."""
    found = []
    for page in PAGES:
        for match in re.finditer(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S):
            line = page.read_text()[: match.start()].count("\n") + 1
            found.append(pytest.param(match[1], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


def commands():
    """The commands of all blocks, without comments, with the variables that a block sets."""
    found = []
    for block in blocks("bash"):
        variables = {}
        for line in block.values[0].splitlines():
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            words = shlex.split(line, comments=True)
            if len(words) == 1 and re.match(r"[A-Z]+=", words[0]):
                variables |= [words[0].split("=", 1)]
            elif words:
                found.append(pytest.param(words, id=f"{block.id} {' '.join(words)}"))
    return found


def parse_command(words):
    """Parse these words as the command line does; raises where it does not know them."""
    quiet = {"exit_on_error": False, "print_error": False}
    _, bound, _ = cli.app.meta.parse_args(words, **quiet)
    _, bound, _ = cli.app.parse_args(bound.args, **quiet)
    if words[0] in STAGES:
        parse_request(words[0], bound.kwargs["config"], bound.args)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_yaml_block_is_a_part_of_a_study_or_of_a_cluster_file(text):
    content = yaml.safe_load(text)
    if set(content) <= set(Cluster.model_fields):
        Cluster.model_validate(content)
        return
    if "robustness" in content:
        assert content["finetune"]["keep_networks"] == "all"
    Study.model_validate(yaml.safe_load(MINIMAL_STUDY) | content)


@pytest.mark.parametrize("words", commands())
def test_every_command_exists(words):
    if words[0] == "torchrun":
        words = ["python", *words[words.index("-m") :]]
    if words[0] == "ssl-pipeline":
        parse_command(words[1:])
    elif words[:3] == ["python", "-m", "stages"]:
        parse_command(words[3:])
    elif words[0] == "snakemake":
        check_snakemake(words[1:])
    elif words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert {word for word in words[1:] if "=" not in word} <= set(targets)
    elif words[:2] == ["python", "-m"]:
        assert (ROOT / f"{words[2].replace('.', '/')}.py").exists()
    else:
        extras = re.fullmatch(r"pip install ssl-pipeline\[(\w+)\]", " ".join(words))
        assert extras and f"\n{extras[1]} = [" in (ROOT / "pyproject.toml").read_text()


def test_targets_of_make_that_pages_name_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    named = {name for page in PAGES for name in re.findall(r"`make ([a-z-]+)", page.read_text())}
    assert {"demo", "test"} <= named <= set(targets)


def check_snakemake(words):
    rules = re.findall(
        r"^rule (\w+):",
        "\n".join(path.read_text() for path in ROOT.glob("workflows/rules/*.smk")),
        re.M,
    )
    values = {word: words[index + 1] for index, word in enumerate(words[:-1])}
    assert (ROOT / values["--profile"]).exists()
    study = values["--config"].removeprefix("study=")
    assert (ROOT / study).exists() or Path(study).name == "ours.yaml"
    taken = {"-n", "--profile", values["--profile"], "--config", values["--config"]}
    assert set(words) - taken <= set(rules)


@pytest.mark.parametrize("text", blocks("python"))
def test_every_python_block_is_python(text):
    ast.parse(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_exist(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


def test_files_that_pages_name_exist():
    named = re.compile(
        r"`((?:ssl_pipeline|stages|cluster|tests|workflows|examples|docs)/[\w./-]*|[\w/]+/\w+\.py)`"
    )
    for page in PAGES:
        for path in named.findall(page.read_text()):
            made_up = Path(path).stem.startswith(("your", "ours"))
            exists = any((start / path).exists() for start in (ROOT, ROOT / "ssl_pipeline"))
            assert made_up or exists, f"{page.name}: {path}"


def code_texts():
    """The texts in the code, one a string, with … for what is filled in."""
    found = set()
    for part in ("ssl_pipeline", "stages", "cluster"):
        for path in (ROOT / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                found.add(re.sub(r"…+|{\w+(?::[^}]*)?}", "…", text_of(node)))
    return found


def text_of(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) or "…" for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return ""


def test_messages_of_troubleshooting_are_those_of_the_code():
    texts = code_texts()
    messages = re.findall(r"^`(.+)`$", (ROOT / "docs/troubleshooting.md").read_text(), re.M)
    assert len(messages) >= 25
    missing = []
    for message in messages:
        parts = [re.escape(part.strip()) for part in message.split("…") if part.strip(" .:;,()")]
        wanted = re.compile(".*".join(parts), re.S)
        if not any(wanted.search(text) for text in texts):
            missing.append(message)
    assert not missing


def test_readme_and_glossary_stay_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    rows = re.findall(r"^\| (?!word|-)", (ROOT / "docs/glossary.md").read_text(), re.M)
    assert 0 < len(rows) <= 25


def run_example(name, *words):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / f"{name}.py", *words],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return write_scans(tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return save_random_bundle(tmp_path_factory.mktemp("bundle") / "encoder")


def test_the_example_of_search_finds_the_query_itself_first(scans, bundle):
    found = run_example("embed_and_search", bundle, scans[0].parent, scans[2], "--modality", "MR")
    assert len(found) == len(scans)
    assert found[0] == f"1.000  {scans[2]}"


def test_the_example_of_finetuning_lowers_the_loss(scans, bundle, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("".join(f"{path},{number}\n" for number, path in enumerate(scans)))
    found = run_example("finetune_plain_pytorch", bundle, table, "--modality", "MR", "--steps", "8")
    losses = [float(line.split()[-1]) for line in found]
    assert len(losses) == 8
    assert losses[-1] < losses[0]


def test_the_example_of_a_corruption_is_worse_with_each_severity(scans, tmp_path):
    written = run_example("add_a_corruption", scans[0], tmp_path / "out")
    clean = nib.load(scans[0]).get_fdata()
    errors = [np.abs(nib.load(path).get_fdata() - clean).mean() for path in written]
    assert len(errors) == 5
    assert errors == sorted(errors)
    assert errors[0] > 0


def test_the_example_of_features_names_scans_as_a_study_does(scans, tmp_path):
    """By an encoder of Hugging Face's layout that is small and made here."""
    import ssl_pipeline.torchvision_compat  # noqa: F401  (before transformers)

    from transformers import Dinov2Config, Dinov2Model

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Dinov2Config(**sizes, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(tmp_path / "model")
    run_example("export_features", tmp_path / "model", scans[0].parent, tmp_path / "f.parquet")
    found = pq.read_table(tmp_path / "f.parquet").to_pylist()
    assert sorted(row["path"] for row in found) == sorted(path.name for path in scans)
    assert {len(row["features"]) for row in found} == {8}
    script = (ROOT / "examples/export_features.py").read_text()
    assert script[script.index("whole = ") :] in (ROOT / "docs/evaluation.md").read_text()
    assert len({tuple(row["features"]) for row in found}) == len(scans)
