"""Reference pages that the code writes: every setting of a study, and every command.

A page holds a marker, `<!-- settings of study -->`, and what the code says takes its place when the
documentation is built; so neither page can fall behind the code.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import cleandoc
from io import StringIO
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import App
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.console import Console

from cluster.config import Cluster
from stages import cli
from stages.core.study import Study

SYMBOLS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
PLAIN_TYPES = {bool: "boolean", int: "integer", float: "number", str: "text"}


@dataclass(frozen=True)
class Section:
    """A model, and the first key under which a file holds it; empty for the file itself."""

    model: type[BaseModel]
    key: str

    @property
    def title(self) -> str:
        """The heading: the key, and which member of a union it is."""
        name = self.model.model_fields.get("name") or self.model.model_fields.get("kind")
        chosen = (
            get_args(name.annotation) if name and get_origin(name.annotation) is Literal else ()
        )
        which = f" ({chosen[0]})" if chosen else ""
        return f"`{self.key}`{which}" if self.key else "The whole file"

    @property
    def anchor(self) -> str:
        """The heading's id."""
        return self.model.__name__.lower()


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put what the code says in place of the markers of a page (mkdocs calls it)."""
    for marker, write in MARKERS.items():
        if marker in markdown:
            markdown = markdown.replace(marker, write())
    return markdown


def settings_page(root: type[BaseModel]) -> str:
    """A table of the settings of each section of a file."""
    parts = []
    for section in sections(root):
        rows = [_row(name, field) for name, field in section.model.model_fields.items()]
        parts += [
            f"## {section.title} {{ #{section.anchor} }}",
            cleandoc(section.model.__doc__ or ""),
            "\n".join(
                ["| key | type | default | range | meaning |", "|---|---|---|---|---|", *rows]
            ),
        ]
    return "\n\n".join(parts)


def sections(root: type[BaseModel]) -> list[Section]:
    """All models of a file, each once, under its shortest key; nested ones after their parents."""
    found = {root: Section(root, "")}
    queue = [found[root]]
    for section in queue:  # breadth first, so that the shortest key is met first
        for name, field in section.model.model_fields.items():
            for nested, suffix in _models(field.annotation):
                if nested not in found:
                    key = f"{section.key}.{name}" if section.key else name
                    found[nested] = Section(nested, key + suffix)
                    queue.append(found[nested])
    top = ["", *root.model_fields]
    return sorted(queue, key=lambda section: top.index(section.key.split(".")[0]))


def _models(annotation: Any, suffix: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    """The models that an annotation names, and what follows its key where a mapping holds them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, suffix
    inner = ".NAME" if get_origin(annotation) is dict else suffix
    for part in get_args(annotation) if get_origin(annotation) is not Literal else ():
        yield from _models(part, inner)


def _row(name: str, field: FieldInfo) -> str:
    cells = [
        f"`{name}`",
        _type_text(field.annotation),
        _default_text(field),
        _range_text(field),
        field.description or "",
    ]
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _type_text(annotation: Any) -> str:
    """A type in words, with links to the sections that it names."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_text(parts[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in parts)
    if origin in (Union, UnionType):
        return " or ".join("null" if part is NoneType else _type_text(part) for part in parts)
    if origin is dict:
        return f"mapping of {_type_text(parts[0])} to {_type_text(parts[1])}"
    if origin is tuple:
        listed = [_type_text(part) for part in parts if part is not Ellipsis]
        return f"list of {listed[0]}" if Ellipsis in parts else f"[{', '.join(listed)}]"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return PLAIN_TYPES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, BaseModel):
        chosen = getattr(value, "name", None)
        return f"`{chosen}`" if isinstance(chosen, str) and chosen else "its defaults"
    if value == "":
        return "empty"
    if isinstance(value, tuple | dict) and any(True for _ in _instances(value)):
        named = (str(getattr(each, "name", type(each).__name__)) for each in _instances(value))
        return ", ".join(f"`{name}`" for name in named)
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _instances(value: Any) -> Iterator[BaseModel]:
    for each in value.values() if isinstance(value, dict) else value:
        if isinstance(each, BaseModel):
            yield each


def _range_text(field: FieldInfo) -> str:
    """The limits that the schema enforces, those of a list's entries included."""
    return ", ".join(dict.fromkeys([*_limits(field.metadata), *_inner_limits(field.annotation)]))


def _inner_limits(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Annotated:
        for part in get_args(annotation)[1:]:
            yield from _limits(part.metadata if isinstance(part, FieldInfo) else [part])
    for part in get_args(annotation) if get_origin(annotation) is not Literal else ():
        yield from _inner_limits(part)


def _limits(metadata: Any) -> Iterator[str]:
    for limit in metadata:
        for name, symbol in SYMBOLS.items():
            if getattr(limit, name, None) is not None:
                yield f"{symbol} {getattr(limit, name):g}"
        if getattr(limit, "min_length", None):
            yield "not empty"


def commands_page() -> str:
    """What `--help` says of every command."""
    parts = [_help_block()]
    for name in _command_names(cli.app):
        parts += [f"## {name}", _help_block(name)]
        for inner in _command_names(cli.app[name]):
            parts += [f"### {name} {inner}", _help_block(name, inner)]
    return "\n\n".join(parts)


def _command_names(app: App) -> Iterator[str]:
    """The commands of an app, or of a command that has some of its own."""
    return (name for name in app if not name.startswith("-"))


def _help_block(*words: str) -> str:
    text = StringIO()
    cli.app.help_print(words, console=Console(file=text, width=100))
    return f"```text\n{text.getvalue().rstrip()}\n```"


MARKERS: dict[str, Callable[[], str]] = {
    "<!-- settings of study -->": lambda: settings_page(Study),
    "<!-- settings of cluster -->": lambda: settings_page(Cluster),
    "<!-- commands -->": commands_page,
}
