"""The family trees of a registry as one HTML page: what each encoder continues, and what is in use.

It loads nothing and has no script. Encoders of a family are nested below the one that they
continue, the oldest first; below each tree stand the moves of its aliases.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.atomic import write_text
from ssl_pipeline.registry.aliases import read_moves
from ssl_pipeline.registry.domain_losses import mean_loss
from ssl_pipeline.registry.entry import SHORT_ID, RegistryEntry
from ssl_pipeline.registry.registry import Registry
from ssl_pipeline.report.render.templates import template_environment
from ssl_pipeline.training.domain_bank import DomainBank

CONFIDENCE = 0.95


@dataclass(frozen=True)
class TreeNode:
    """An encoder of a tree, with those that continue it."""

    id: str
    aliases: Sequence[str]
    entry: RegistryEntry
    facts: Sequence[str]
    losses: Sequence[tuple[str, str]]  # of held-out places, by domain
    children: Sequence["TreeNode"]


@dataclass(frozen=True)
class Family:
    """The encoders of one name."""

    name: str
    roots: Sequence[TreeNode]
    moves: Sequence[tuple[str, ...]]  # of its aliases: alias, time, by, entry, reason


def write_registry_page(registry: Registry, path: Path) -> None:
    """Write the page. Raises UserError where an entry or alias is damaged."""
    write_text(path, render_registry_page(registry))


def render_registry_page(registry: Registry) -> str:
    """The page as HTML; equal registries make equal pages."""
    entries = registry.entries()
    families = [_family(registry, entries, name) for name in _family_names(entries)]
    template = template_environment().get_template("registry.html")
    return template.render(
        families=families, summary=format_count(len(entries), "encoder"), short=SHORT_ID
    )


def _family_names(entries: Mapping[str, RegistryEntry]) -> list[str]:
    return sorted({entry.content.name for entry in entries.values()})


def _family(registry: Registry, entries: Mapping[str, RegistryEntry], name: str) -> Family:
    own = {sha: entry for sha, entry in entries.items() if entry.content.name == name}
    roots = [sha for sha, entry in own.items() if entry.content.parent not in own]
    banks, pointing = registry.banks(name), registry.aliases()
    nodes = [_node(sha, own, banks, pointing) for sha in roots]
    return Family(name, nodes, list(_moves(registry, name)))


def _node(
    sha256: str,
    own: Mapping[str, RegistryEntry],
    banks: Mapping[str, DomainBank],
    pointing: Mapping[str, str],
) -> TreeNode:
    children = [child for child, entry in own.items() if entry.content.parent == sha256]
    return TreeNode(
        id=sha256,
        aliases=[alias for alias, target in pointing.items() if target == sha256],
        entry=own[sha256],
        facts=list(_facts(own[sha256], own)),
        losses=list(_losses(own[sha256], banks)),
        children=[_node(child, own, banks, pointing) for child in children],
    )


def _facts(entry: RegistryEntry, own: Mapping[str, RegistryEntry]) -> Iterator[str]:
    """What stands in the first line of an encoder, beside its study and date."""
    content = entry.content
    if "steps" in content.training_summary:
        yield f"{content.training_summary['steps']:,} steps"
    if content.cohorts:
        yield format_count(content.cohorts[0].volumes, "volume")
    if content.parent and content.parent not in own:
        yield f"continues {content.parent[:SHORT_ID]}, which is no entry of this family here"


def _losses(entry: RegistryEntry, banks: Mapping[str, DomainBank]) -> Iterator[tuple[str, str]]:
    promotion = entry.content.promotion
    for measure in promotion.measures if promotion else ():
        if bank := banks.get(measure.bank_sha256):
            found = mean_loss(bank, measure, CONFIDENCE).mean
            yield bank.title, f"{found:.3f}"


def _moves(registry: Registry, name: str) -> Iterator[tuple[str, ...]]:
    for reference in registry.aliases():
        family, _, alias = reference.partition("@")
        if family == name:
            for move in read_moves(registry.alias_folder(name, alias)):
                way = "back to " if move.is_rollback else ""
                entry = f"{way}{move.entry[:SHORT_ID]}"
                time = move.moved_at[:16].replace("T", " ")
                yield alias, time, move.moved_by, entry, move.reason
