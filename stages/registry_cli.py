"""The commands of `ssl-pipeline registry`, as those of `stages/cli.py` are declared."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import App, Parameter

from ssl_pipeline.progress import info, print_table
from stages.cli_options import ENCODER_GROUP, StudyFile

EXAMPLE_REGISTRY = "--registry /shared/encoders"
EXAMPLE_ALIAS = "chest@champion"

Command = TypeVar("Command", bound=Callable[..., Any])
RegistryFolder = Annotated[
    Path, Parameter("--registry", metavar="FOLDER", help="folder of the registry")
]
Reference = Annotated[
    str, Parameter(help=f"an alias such as {EXAMPLE_ALIAS}, or the beginning of an entry's ID")
]
Reason = Annotated[str, Parameter(help="why, in words that name nobody")]

registry_app = App(
    "registry",
    help="Keep encoders with where they come from, for several studies.",
    help_format="plaintext",
    help_epilogue=f"Examples:\n  ssl-pipeline registry list {EXAMPLE_REGISTRY}",
    group=ENCODER_GROUP,
)


def _command(example: str, name: str = "") -> Callable[[Command], Command]:
    """Add a function as a command, with an example of its use."""
    text = f"Examples:\n  ssl-pipeline registry {example} {EXAMPLE_REGISTRY}"
    return registry_app.command(name=name or None, help_epilogue=text)


@_command("add chest --config study.yaml")
def add(
    name: Annotated[str, Parameter(help="family of encoders that it belongs to, such as chest")],
    /,
    *,
    config: StudyFile,
    registry: RegistryFolder,
    alias: Annotated[str, Parameter(help="alias to point to it, such as challenger")] = "",
    reason: Reason = "added by hand",
) -> None:
    """Add the encoder of a study, with the newest checkpoint of its run."""
    from stages.commands.registry import add_encoder
    from stages.core.study_file import load_study

    add_encoder(load_study(config), registry, name, alias, reason)


@_command("list", name="list")
def list_(*, registry: RegistryFolder) -> None:
    """Print a line for each entry, with the aliases that point to it."""
    from stages.commands.registry import entries_table

    print_table(entries_table(registry))


@_command(f"show {EXAMPLE_ALIAS}")
def show(entry: Reference, /, *, registry: RegistryFolder) -> None:
    """Print the record of an entry as JSON, and where its encoder lies."""
    from stages.commands.registry import describe_entry

    print(describe_entry(registry, entry))


@_command(f"lineage {EXAMPLE_ALIAS}")
def lineage(entry: Reference, /, *, registry: RegistryFolder) -> None:
    """Print what an encoder continues, back to the first, with cohorts and versions."""
    from stages.commands.registry import lineage_table

    print_table(lineage_table(registry, entry))


@_command("page registry.html")
def page(
    page: Annotated[Path, Parameter(help="HTML file to write")],
    /,
    *,
    registry: RegistryFolder,
) -> None:
    """Write all family trees as a page: what each encoder continues, and what is in use."""
    from stages.commands.registry import write_page

    write_page(registry, page)


@_command(f"diff {EXAMPLE_ALIAS} chest@challenger")
def diff(entry: Reference, other: Reference, /, *, registry: RegistryFolder) -> None:
    """Print what differs between two entries: settings, cohorts, versions, training."""
    from stages.commands.registry import difference_table

    print_table(difference_table(registry, entry, other))


@_command(f"history {EXAMPLE_ALIAS}")
def history(
    alias: Annotated[str, Parameter(help=f"alias, such as {EXAMPLE_ALIAS}")],
    /,
    *,
    registry: RegistryFolder,
) -> None:
    """Print all moves of an alias: when, by whom, why, to which entry."""
    from stages.commands.registry import history_table

    print_table(history_table(registry, alias))


@_command(f"rollback {EXAMPLE_ALIAS} --reason 'fails on the new scanner'")
def rollback(
    alias: Annotated[str, Parameter(help=f"alias to move, such as {EXAMPLE_ALIAS}")],
    /,
    *,
    registry: RegistryFolder,
    reason: Reason,
) -> None:
    """Point an alias back to the entry that it pointed to before."""
    from stages.commands.registry import roll_back_alias

    roll_back_alias(registry, alias, reason)


@_command("verify")
def verify(*, registry: RegistryFolder) -> None:
    """Check the hashes of all entries and banks, and the histories of all aliases."""
    from stages.commands.registry import verify_registry

    info(verify_registry(registry))
