"""`ssl-pipeline registry` on the encoder of a study that has run."""

import json
from xml.etree import ElementTree

from ssl_pipeline import load_encoder
from ssl_pipeline.registry.registry import Registry
from tests.stages.conftest import run_cli


def registry_cli(folder, *words):
    return run_cli("registry", *words, "--registry", folder)


def test_an_encoder_is_added_found_and_rolled_back(whole, tmp_path):
    folder = tmp_path / "encoders"
    for reason in ("the first", "the second"):
        done = registry_cli(
            folder, "add", "chest", "--config", whole, "--alias", "champion", "--reason", reason
        )
        assert done.returncode == 0, done.stderr
    shown = json.loads(registry_cli(folder, "show", "chest@champion").stdout)
    assert shown["content"]["reason"] == "the second"
    assert len(shown["content"]["cohorts"]) == 1 and shown["content"]["salt_fingerprint"]
    assert any(name.startswith("checkpoint/step-") for name in shown["files"])
    assert load_encoder(shown["encoder"]).manifest.training_summary["study"] == "tiny"
    back = registry_cli(folder, "rollback", "chest@champion", "--reason", "worse")
    assert back.returncode == 0, back.stderr
    lines = registry_cli(folder, "list").stdout.splitlines()
    assert [("chest@champion" in line) for line in lines[1:]].count(True) == 1
    assert registry_cli(folder, "history", "chest@champion").stdout.count("back to") == 1
    differs = registry_cli(folder, "diff", "chest@champion", shown["id"][:12]).stdout
    assert "the first" in differs and "the second" in differs and "steps" not in differs
    assert "2 entries, 1 alias and 0 banks as written" in registry_cli(folder, "verify").stdout


def test_the_page_shows_what_each_encoder_continues_and_which_is_in_use(whole, tmp_path):
    folder = tmp_path / "encoders"
    assert (
        registry_cli(folder, "add", "chest", "--config", whole, "--alias", "champion").returncode
        == 0
    )
    registry = Registry(folder)
    first = registry.resolve("chest@champion")
    content = registry.entry(first).content.model_copy(update={"parent": first, "study": "<next>"})
    second = registry.add(content, registry.encoder_folder(first))
    lost = content.model_copy(update={"parent": "f" * 64, "study": "orphan"})
    registry.add(lost, registry.encoder_folder(first))
    page = tmp_path / "registry.html"
    assert registry_cli(folder, "page", page).returncode == 0
    text = page.read_text()
    assert "3 encoders" in text and "&lt;next&gt;" in text and "<next>" not in text
    assert f"continues {'f' * 12}, which is no entry" in text
    tree = ElementTree.fromstring(text[text.index("<main>") : text.index("</main>") + 7])
    (nested,) = tree.findall("ul/li/ul/li")
    assert nested.find("article/h3/code").get("title") == second
    (used,) = (each for each in tree.iter("article") if each.get("class") == "used")
    assert used.find("h3/code").get("title") == first
    assert used.find("h3/span").text == "chest@champion"
    assert [cell.text for cell in tree.findall("div/table/tbody/tr/td")][3] == first[:12]


def test_an_entry_names_no_path_of_raw_scans(whole, tmp_path):
    folder = tmp_path / "encoders"
    assert registry_cli(folder, "add", "chest", "--config", whole).returncode == 0
    for path in folder.rglob("entry.json"):
        assert str(whole.parent) not in path.read_text()


def test_a_folder_that_is_no_registry_is_one_sentence(tmp_path):
    done = registry_cli(tmp_path, "list")
    assert done.returncode == 2
    assert "is no registry" in done.stderr and "Traceback" not in done.stderr
