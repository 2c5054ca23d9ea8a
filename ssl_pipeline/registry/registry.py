"""A registry: a folder of entries and aliases that several studies share, without a server.

`entries/ID/` are the entries (`entry.py`), `aliases/NAME/ALIAS/` the aliases (`aliases.py`) of the
family NAME, and `banks/NAME/` the banks of its domains, of which the first of a domain counts. An
entry is named by its ID, by the beginning of it, or as NAME@ALIAS.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import sha256_file, sha256_json
from ssl_pipeline.io.records import create_record, read_record
from ssl_pipeline.registry import aliases
from ssl_pipeline.registry.entry import (
    CHECKPOINT_FOLDER,
    ENCODER_FOLDER,
    SHORT_ID,
    EntryContent,
    RegistryEntry,
    entry_folders,
    files_below,
    find_damage,
    read_entry,
    write_entry,
)
from ssl_pipeline.training.domain_bank import DomainBank

CHAMPION, CHALLENGER = "champion", "challenger"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
LEAST_DIGITS = 6
BANK_REMEDY = "copy it again from a backup of the registry"


@dataclass(frozen=True)
class Registry:
    """The registry in a folder, which is made by the first addition."""

    folder: Path

    @property
    def _entries(self) -> Path:
        return self.folder / "entries"

    def add(self, content: EntryContent, encoder: Path, checkpoint: Sequence[Path] = ()) -> str:
        """Add copies of an encoder bundle and of the files of a checkpoint; return the entry's ID.

        What is there already, with the same content, is not added again.
        """
        _check_name(content.name)
        sources = {f"{ENCODER_FOLDER}/{name}": encoder / name for name in files_below(encoder)}
        sources |= {f"{CHECKPOINT_FOLDER}/{path.name}": path for path in checkpoint}
        return write_entry(self._entries, content, sources)

    def entries(self) -> Mapping[str, RegistryEntry]:
        """All entries by ID, the oldest first as far as the clocks of their machines agreed."""
        found = {folder.name: read_entry(folder) for folder in entry_folders(self._entries)}
        return dict(sorted(found.items(), key=lambda item: (item[1].created_at, item[0])))

    def entry(self, identifier: str) -> RegistryEntry:
        """The entry of a whole ID. Raises UserError where it is gone or damaged."""
        return read_entry(self._entries / identifier)

    def encoder_folder(self, identifier: str) -> Path:
        """The folder of an entry's encoder bundle."""
        return self._entries / identifier / ENCODER_FOLDER

    def resolve(self, reference: str) -> str:
        """The ID that an ID, the beginning of one, or NAME@ALIAS means.

        Raises UserError where it means none, or several.
        """
        if "@" in reference:
            return self._resolve_alias(reference)
        found = [f.name for f in entry_folders(self._entries) if f.name.startswith(reference)]
        if len(reference) < LEAST_DIGITS or len(found) != 1:
            raise UserError(
                f"{reference} means {len(found)} entries of {self.folder}: give NAME@ALIAS, such "
                f"as chest@{CHAMPION}, or at least {LEAST_DIGITS} digits of an ID that "
                "`ssl-pipeline registry list` prints."
            )
        return found[0]

    def aliases(self) -> dict[str, str]:
        """The ID that each alias, as NAME@ALIAS, points to now."""
        found = {}
        for alias in sorted((self.folder / "aliases").glob("*/*")):
            entry = aliases.current_entry(alias)
            if entry:
                found[f"{alias.parent.name}@{alias.name}"] = entry
        return found

    def alias_folder(self, name: str, alias: str) -> Path:
        """The folder of the moves of an alias."""
        _check_name(name)
        _check_name(alias)
        return self.folder / "aliases" / name / alias

    def current(self, name: str, alias: str) -> str | None:
        """The ID that NAME@ALIAS points to; None where there is no such alias."""
        return aliases.current_entry(self.alias_folder(name, alias))

    def checkpoint_folder(self, identifier: str) -> Path:
        """The folder of an entry's checkpoint, which is not there where it has none."""
        return self._entries / identifier / CHECKPOINT_FOLDER

    def move(self, name: str, alias: str, entry: str, expected: str | None, reason: str) -> None:
        """Point NAME@ALIAS to an entry of this registry, if it still points to `expected`.

        Raises AliasMovedError where it does not, UserError where the entry is damaged or gone.
        """
        self.entry(entry)
        aliases.move_alias(self.alias_folder(name, alias), entry, expected, reason)

    def lineage(self, identifier: str) -> Iterator[tuple[str, RegistryEntry | None]]:
        """An entry and those that it continues, the newest first; None for one that is gone."""
        while identifier:
            folder = self._entries / identifier
            entry = read_entry(folder) if folder.exists() else None
            yield identifier, entry
            identifier = entry.content.parent if entry else ""

    def add_bank(self, name: str, bank: DomainBank) -> None:
        """Freeze the bank of a domain for the family; one that is there already stays."""
        _check_name(name)
        folder = self.folder / "banks" / name
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            create_record(folder / f"{sha256_json(bank.domain)[:16]}.json", bank)

    def banks(self, name: str) -> dict[str, DomainBank]:
        """The banks of a family's domains by their SHA-256, in the order of their titles."""
        _check_name(name)
        files = sorted((self.folder / "banks" / name).glob("*.json"))
        found = {sha256_file(path): read_record(DomainBank, path, BANK_REMEDY) for path in files}
        return dict(sorted(found.items(), key=lambda item: item[1].title))

    def bank_files(self) -> list[Path]:
        """The files of the banks of all families."""
        return sorted((self.folder / "banks").glob("*/*.json"))

    def find_damage(self) -> Iterator[str]:
        """One sentence for each file of any entry, alias or bank that is not as it was written."""
        present = entry_folders(self._entries)
        for folder in present:
            yield from find_damage(folder)
        yield from self._damaged_aliases({folder.name for folder in present})
        yield from self._damaged_banks()

    def _damaged_aliases(self, known: set[str]) -> Iterator[str]:
        """What is wrong with the histories of aliases; `known` are the IDs of all entries."""
        for alias in sorted((self.folder / "aliases").glob("*/*")):
            try:
                moves = aliases.read_moves(alias)
            except UserError as error:
                yield str(error)
                continue
            for entry in {move.entry for move in moves} - known:
                yield f"{alias.parent.name}@{alias.name} names {entry[:SHORT_ID]}, which is gone."

    def _damaged_banks(self) -> Iterator[str]:
        """What is wrong with banks: one that cannot be read, or that an entry was measured on."""
        for path in self.bank_files():
            try:
                read_record(DomainBank, path, BANK_REMEDY)
            except UserError as error:
                yield str(error)
        present = {sha256_file(path) for path in self.bank_files()}
        for folder in entry_folders(self._entries):
            for missing in sorted(_measured_on(folder) - present):
                yield (
                    f"{self.folder / 'banks'} has no bank {missing[:SHORT_ID]} as it was when "
                    f"{folder.name[:SHORT_ID]} was measured on it: {BANK_REMEDY}."
                )

    def _resolve_alias(self, reference: str) -> str:
        name, _, alias = reference.partition("@")
        found = aliases.current_entry(self.alias_folder(name, alias))
        if not found:
            known = ", ".join(self.aliases()) or "none"
            raise UserError(f"{self.folder} has no alias {reference}; its aliases: {known}.")
        return found


def _measured_on(folder: Path) -> set[str]:
    """The hashes of the banks that an entry's record holds measures on; none if it is damaged."""
    with suppress(UserError):
        promotion = read_entry(folder).content.promotion
        return {measure.bank_sha256 for measure in promotion.measures} if promotion else set()
    return set()


def _check_name(name: str) -> None:
    """Raise UserError where a name of a family or an alias could not be part of a path."""
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name in a registry: use letters, digits, - and _.")
