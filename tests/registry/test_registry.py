"""The registry of encoders: entries never change, aliases are old or new and never neither."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.registry import aliases
from ssl_pipeline.registry.aliases import AliasMovedError
from ssl_pipeline.registry.entry import ENTRY_RECORD, EntryContent
from ssl_pipeline.registry.registry import Registry


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "registry")


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "encoder.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "README.md").write_text("an encoder\n")
    return folder


def add(registry: Registry, bundle: Path, **content: str) -> str:
    return registry.add(EntryContent(name="chest", **content), bundle)


def test_an_entry_holds_the_files_and_is_named_by_its_hash(registry, bundle):
    identifier = add(registry, bundle)
    copied = registry.encoder_folder(identifier)
    assert (copied / "encoder.safetensors").read_bytes() == bytes(range(256)) * 40
    assert (copied / "README.md").read_text() == "an encoder\n"
    assert len(identifier) == 64
    assert list(registry.entries()) == [identifier]
    assert list(registry.find_damage()) == []


def test_the_same_encoder_is_added_once(registry, bundle):
    first = add(registry, bundle)
    assert add(registry, bundle) == first
    assert add(registry, bundle, reason="of another month") != first
    assert len(registry.entries()) == 2


def test_a_checkpoint_goes_with_its_encoder(registry, bundle, tmp_path):
    checkpoint = tmp_path / "step-00000020.pt"
    checkpoint.write_bytes(b"state")
    identifier = registry.add(EntryContent(name="chest"), bundle, [checkpoint])
    assert "checkpoint/step-00000020.pt" in registry.entry(identifier).files


def test_any_change_of_an_entry_is_found(registry, bundle):
    identifier = add(registry, bundle)
    folder = registry.encoder_folder(identifier).parent
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        original = path.read_bytes()
        for changed in (original[:-1], bytes([original[0] ^ 1]) + original[1:]):
            path.write_bytes(changed)
            assert [path.name in each for each in registry.find_damage()] == [True]
        path.unlink()
        assert len(list(registry.find_damage())) == 1
        path.write_bytes(original)
    (folder / "more").write_text("")
    assert "is no part" in next(registry.find_damage())


def test_an_alias_points_to_what_it_was_moved_to_last(registry, bundle):
    first, second = add(registry, bundle), add(registry, bundle, reason="better")
    registry.move("chest", "champion", first, None, "the first")
    registry.move("chest", "champion", second, first, "better")
    assert registry.resolve("chest@champion") == second
    assert registry.aliases() == {"chest@champion": second}


def test_an_alias_that_moved_meanwhile_is_left_there(registry, bundle):
    first, second = add(registry, bundle), add(registry, bundle, reason="better")
    registry.move("chest", "champion", first, None, "the first")
    with pytest.raises(AliasMovedError, match="moved meanwhile"):
        registry.move("chest", "champion", second, None, "by a study that saw no champion")
    assert registry.resolve("chest@champion") == first


def test_a_rollback_goes_back_step_by_step(registry, bundle):
    ids = [add(registry, bundle, reason=str(n)) for n in range(3)]
    for before, entry in zip([None, *ids], ids, strict=False):
        registry.move("chest", "champion", entry, before, "better")
    alias = registry.alias_folder("chest", "champion")
    assert aliases.roll_back(alias, "worse after all") == ids[1]
    assert aliases.roll_back(alias, "and this one") == ids[0]
    with pytest.raises(UserError, match="no other entry before"):
        aliases.roll_back(alias, "further")
    assert registry.resolve("chest@champion") == ids[0]
    assert [move.is_rollback for move in aliases.read_moves(alias)] == [False] * 3 + [True] * 2


def test_any_change_of_a_history_is_found(registry, bundle):
    ids = [add(registry, bundle, reason=str(n)) for n in range(3)]
    for before, entry in zip([None, *ids], ids, strict=False):
        registry.move("chest", "champion", entry, before, "better")
    first, second, _ = sorted(registry.alias_folder("chest", "champion").iterdir())
    original = first.read_bytes()
    first.write_bytes(original.replace(b"better", b"besser"))
    assert "not as it was written" in next(registry.find_damage())
    first.write_bytes(original)
    second.unlink()
    assert "is gone" in next(registry.find_damage())


def test_an_entry_that_is_gone_is_named(registry, bundle):
    first = add(registry, bundle)
    child = add(registry, bundle, parent=first)
    registry.move("chest", "champion", first, None, "the first")
    (registry.encoder_folder(first).parent / ENTRY_RECORD).unlink()
    registry.encoder_folder(first).parent.rename(registry.folder / "away")
    assert [identifier for identifier, entry in registry.lineage(child) if entry is None] == [first]
    assert f"chest@champion names {first[:12]}, which is gone." in registry.find_damage()
    with pytest.raises(UserError, match="no entry"):
        registry.move("chest", "champion", first, first, "again")


def test_references_that_mean_nothing_or_several_are_refused(registry, bundle):
    identifier = add(registry, bundle)
    assert registry.resolve(identifier[:8]) == identifier
    for reference in ("", identifier[:3], "f" * 12):
        with pytest.raises(UserError, match="at least 6 digits"):
            registry.resolve(reference)
    with pytest.raises(UserError, match="its aliases: none"):
        registry.resolve("chest@champion")
    with pytest.raises(UserError, match="is no name in a registry"):
        registry.resolve("../../etc@champion")


def _move_from(folder: Path, expected: str, entry: str, barrier, results) -> None:
    barrier.wait()
    try:
        Registry(folder).move("chest", "champion", entry, expected, "better")
        results.put("moved")
    except AliasMovedError:
        results.put("refused")


def test_of_two_moves_at_once_one_is_refused(registry, bundle):
    context = multiprocessing.get_context("fork")
    ids = [add(registry, bundle, reason=str(n)) for n in range(3)]
    registry.move("chest", "champion", ids[0], None, "the first")
    for _ in range(5):
        expected, barrier, results = (
            registry.resolve("chest@champion"),
            context.Barrier(2),
            context.Queue(),
        )
        movers = [
            context.Process(
                target=_move_from, args=(registry.folder, expected, entry, barrier, results)
            )
            for entry in ids[1:]
        ]
        for mover in movers:
            mover.start()
        assert sorted(results.get(timeout=60) for _ in movers) == ["moved", "refused"]
        for mover in movers:
            mover.join()
    assert list(registry.find_damage()) == []


def _add_and_move_forever(folder: Path, bundle: Path) -> None:
    registry = Registry(folder)
    while True:
        entry = add(registry, bundle, reason=str(random.random()))
        registry.move("chest", "champion", entry, registry.resolve("chest@champion"), "better")


def test_a_process_that_is_killed_leaves_the_alias_old_or_new(registry, bundle):
    registry.move("chest", "champion", add(registry, bundle), None, "the first")
    context, draw = multiprocessing.get_context("fork"), random.Random(0)
    for _ in range(20):
        killed = context.Process(target=_add_and_move_forever, args=(registry.folder, bundle))
        killed.start()
        time.sleep(draw.uniform(0.01, 0.05))
        os.kill(killed.pid, signal.SIGKILL)
        killed.join()
        assert registry.entry(registry.resolve("chest@champion"))
        assert list(registry.find_damage()) == []
