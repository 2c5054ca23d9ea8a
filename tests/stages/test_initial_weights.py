"""A run that starts from weights: what is loaded and recorded, and their training subjects."""

import json
import shutil

import ssl_pipeline.torchvision_compat  # noqa: F401  (before timm)

import pytest
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from ssl_pipeline import load_encoder
from ssl_pipeline.errors import UserError
from ssl_pipeline.export import training_subjects
from ssl_pipeline.registry.entry import EntryContent
from ssl_pipeline.registry.registry import Registry
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.training.ranks import RankInfo
from stages.commands.clean import clean_study
from stages.commands.import_weights import import_weights
from stages.core.initial_weights import freeze_initial_weights
from stages.core.pretraining_runs import pretraining_run, read_cohort, run_folder
from stages.core.records import manifest_hash
from stages.core.runner import run_stage
from stages.core.study_file import load_study
from stages.leakage import leakage_warning
from stages.trainer import build_trainer
from tests.conftest import read_json, write_study


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The encoder of another study of the same scans, which held out others."""
    file = write_study(tmp_path_factory.mktemp("first"))
    (file.parent / "test.txt").write_text("0\n1\n")
    for name in ("inventory", "preprocess", "pretrain"):
        run_stage(name, load_study(file), {})
    return load_study(file).encoder


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    file = write_study(tmp_path_factory.mktemp("second"))
    for name in ("inventory", "preprocess"):
        run_stage(name, load_study(file), {})
    return file


@pytest.fixture
def starting(stored, tmp_path):
    """Copies of the stored study that start from weights."""

    def build(name, path, more=""):
        folder = tmp_path / "study"
        shutil.copytree(stored.parent, folder, dirs_exist_ok=True)
        text = stored.read_text().replace(str(stored.parent), str(folder))
        file = folder / "tiny.yaml"
        file.write_text(f"{text}init_from: {{name: {name}, path: {path}}}\n{more}")
        return load_study(file)

    return build


def timm_weights(path, seed=0):
    torch.manual_seed(seed)
    network = VisionTransformer(embed_dim=128, depth=6, num_heads=4)
    torch.save(network.state_dict(), path)
    return path


def catalog_of(study):
    return Catalog.read(study.folder / "preprocess/catalog.parquet")


def test_a_run_begins_with_the_weights_of_another_studys_encoder(bundle, starting, capsys):
    study = starting("bundle", bundle)
    catalog = catalog_of(study)
    run = pretraining_run(study)
    trainer, _ = build_trainer(run, catalog, run.cohort.entries(catalog), RankInfo())
    begun = trainer.objective.encoder.state_dict()
    given = load_file(bundle / "encoder.safetensors")
    assert begun.keys() == given.keys()
    assert all(torch.equal(begun[name], given[name]) for name in given)
    capsys.readouterr()
    run_stage("pretrain", study, {})
    sentence = read_json(study.folder / "pretrain/run.json")["init_from"]
    total = len(given)
    assert sentence.startswith(f"init_from: {total} of {total} tensors loaded from weights in ")
    assert sentence in capsys.readouterr().out
    card = (study.encoder / "encoder.json").read_text()
    assert sentence in card and str(bundle) not in card
    assert str(bundle) not in json.dumps(study.redacted_config)
    run_stage("pretrain", study, {})
    assert "pretrain: nothing to do" in capsys.readouterr().out


def test_an_alias_means_what_it_meant_when_the_cohort_was_frozen(bundle, starting, tmp_path):
    registry, later = Registry(tmp_path / "encoders"), tmp_path / "later"
    shutil.copytree(bundle, later)
    (later / "encoder.safetensors").write_bytes(b"other weights")
    first, second = (registry.add(EntryContent(name="chest"), each) for each in (bundle, later))
    registry.move("chest", "champion", first, None, "the first")
    study = starting("registry", f"{registry.folder}, of: chest@champion")
    file = study.source_folder / "tiny.yaml"
    begun = run_folder(study)
    freeze_initial_weights(study)
    registry.move("chest", "champion", second, first, "better")
    assert run_folder(load_study(file)) == begun
    assert load_study(file).init_from.read_training_subjects().subjects
    away = registry.encoder_folder(first).parent.rename(tmp_path / "away")
    with pytest.raises(
        UserError, match=f"{first[:12]} of .* which is gone: copy it again"
    ) as refusal:
        run_folder(load_study(file))
    assert "NAME@ALIAS" not in str(refusal.value) and "raise training.cohort" in str(refusal.value)
    away.rename(registry.encoder_folder(first).parent)
    text = file.read_text().replace("chest@champion", second[:12])
    file.write_text(text)
    assert load_study(file).init_from.weights_path.read_bytes() == b"other weights"
    assert run_folder(load_study(file)) != begun


def test_weights_of_other_software_are_imported_unchanged(starting, tmp_path, capsys):
    weights = timm_weights(tmp_path / "public.pt")
    study = starting("timm", weights)
    import_weights(study, tmp_path / "public")
    assert "name it in evaluate.encoders" in capsys.readouterr().out
    loaded = load_encoder(tmp_path / "public")
    given = torch.load(weights)
    own = loaded.model.state_dict()
    assert torch.equal(own["blocks.0.attn.qkv.weight"], given["blocks.0.attn.qkv.weight"])
    assert training_subjects.read(tmp_path / "public").is_third_party
    with pytest.raises(UserError, match="names no weights"):
        import_weights(study.model_copy(update={"init_from": None}), tmp_path / "none")


def test_weights_decide_a_run_and_their_place_does_not(starting, tmp_path, capsys):
    one = timm_weights(tmp_path / "one.pt")
    study = starting("timm", one)
    run_stage("pretrain", study, {})
    folder, made = run_folder(study), manifest_hash(study, "pretrain")
    one.rename(tmp_path / "elsewhere.pt")
    with pytest.raises(UserError, match="where no weights are"):
        run_stage("pretrain", study, {})
    clean_study(study, remove_all=False, assume_yes=True)
    assert (folder / "checkpoints").exists()  # nobody can tell whose it is, so it stays
    moved = starting("timm", tmp_path / "elsewhere.pt")
    capsys.readouterr()
    run_stage("pretrain", moved, {})
    assert "pretrain: nothing to do" in capsys.readouterr().out
    timm_weights(tmp_path / "elsewhere.pt", seed=1)
    assert run_folder(moved) != folder
    run_stage("pretrain", moved, {})
    assert manifest_hash(moved, "pretrain") != made


def test_training_subjects_of_the_initial_weights_are_inherited(bundle, starting):
    study = starting("bundle", bundle)
    before = training_subjects.read(bundle)
    run_stage("pretrain", study, {})
    now, own = training_subjects.read(study.encoder), set(read_cohort(study).checksums)
    assert now.voxel_hashes > before.voxel_hashes and own <= now.scans
    assert now.salt_fingerprint != before.salt_fingerprint and now.other_salt_fingerprints == {
        before.salt_fingerprint
    }
    # Person 4 and 5 are held out here, and were trained on there.
    with pytest.raises(UserError, match="was pretrained on 2 subjects of the split test") as error:
        leakage_warning(study, catalog_of(study).entries, study.encoders)
    assert "pretrain anew without what it started from" in str(error.value)


def test_codes_of_one_salt_are_inherited_and_other_salts_are_listed(tmp_path, catalog):
    entry = catalog.entries[0]
    start = training_subjects.TrainingSubjects(
        frozenset({"s"}), frozenset({"n"}), frozenset({"p"}), "salt", frozenset({"older"})
    )
    training_subjects.write(tmp_path, [entry.id], [entry], "salt", start)
    same = training_subjects.read(tmp_path)
    assert same.subjects == {"s", entry.subject} and same.scans == {"n", entry.id}
    assert same.voxel_hashes == {"p", entry.voxel_hash} and same.other_salt_fingerprints == {
        "older"
    }
    training_subjects.write(tmp_path, [entry.id], [entry], "another", start)
    other = training_subjects.read(tmp_path)
    assert other.subjects == {entry.subject} and other.voxel_hashes == {"p", entry.voxel_hash}
    assert other.other_salt_fingerprints == {"salt", "older"}
    assert not other.is_unknown and not other.is_third_party


def test_initial_weights_without_training_subjects_are_refused(bundle, starting, tmp_path):
    silent = shutil.copytree(bundle, tmp_path / "silent")
    (silent / training_subjects.FILE_NAME).unlink()
    study = starting("bundle", silent)
    run_stage("pretrain", study, {})
    said = read_json(study.folder / "pretrain/run.json")["init_from"]
    assert "their training subjects are not known" in said
    with pytest.raises(
        UserError, match="started from one that does not say which subjects it was trained"
    ):
        leakage_warning(study, catalog_of(study).entries, study.encoders)


def test_results_of_foreign_weights_begin_with_a_warning(starting, tmp_path):
    study = starting("timm", timm_weights(tmp_path / "w.pt"))
    run_stage("pretrain", study, {})
    run_stage("probe", study, {"task": "side"})
    results = read_json(study.folder / "probe/side/results.json")
    assert "started from weights of other software, which do not say" in results["warning"]
    assert "allow_pretraining_subjects" not in results["warning"]
    # Another run that starts from this one inherits the doubt.
    training_subjects.write(tmp_path, [], [], "salt", training_subjects.read(study.encoder))
    assert training_subjects.read(tmp_path).is_third_party


def test_a_start_of_another_size_ends_before_training(starting, bundle):
    study = starting("bundle", bundle)
    wider = study.model_copy(update={"model": study.model.model_copy(update={"preset": "S"})})
    with pytest.raises(UserError, match="6 blocks of width 128"):
        run_stage("pretrain", wider, {})
    assert not list((wider.folder / "pretrain").glob("runs/*/checkpoints/*"))
