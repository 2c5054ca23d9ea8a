"""Loading of settings sections from YAML, with validation errors as one sentence.

The sentence has the file, the key, the value, and the closest key that exists. Shared by the study
file and the cluster file.
"""

import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.io.text import read_text

SectionType = TypeVar("SectionType", bound=Section)
YAML_TAG = "tag:yaml.org,2002:"


class _LiteralLoader(yaml.SafeLoader):
    """Safe YAML in which a word stays a word and a duplicate key is an error.

    Its numbers and booleans are those of YAML 1.2: in YAML 1.1 `no` is false, 010 is 8 and 1:30 is
    90. It knows merge keys (`<<`), and takes a key with nothing behind it for an empty section.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        _check_keys(node)
        return node

    def construct_empty(self, node: yaml.ScalarNode) -> dict[str, Any] | None:
        """An empty section for nothing at all, None for `null`."""
        return None if node.value else {}


_LiteralLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first_letters in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", "[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", "<<", "<"),
):
    _LiteralLoader.add_implicit_resolver(
        f"{YAML_TAG}{_tag}", re.compile(f"(?:{_pattern})\\Z"), list(_first_letters)
    )
_LiteralLoader.add_constructor(f"{YAML_TAG}null", _LiteralLoader.construct_empty)


def _check_keys(node: yaml.MappingNode) -> None:
    """Refuse keys that would be taken for another: 1, "1" and 01, or true and 1."""
    found = set()
    for key, _ in node.value:
        where = f"{key.start_mark.name}, line {key.start_mark.line + 1}"
        if key.tag in (f"{YAML_TAG}bool", f"{YAML_TAG}null"):
            word = key.value or "nothing"
            raise UserError(f"{where}: a key is {word}: put it into quotes if it is a name.")
        if not isinstance(key, yaml.ScalarNode) or key.tag == f"{YAML_TAG}merge":
            continue
        same = _as_number(key.value)
        if same in found:
            raise UserError(f"{where}: {key.value} is given twice: remove one of the two.")
        found.add(same)


def _as_number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def read_mapping(path: Path) -> dict[str, Any]:
    """The content of a YAML file that holds keys. Raises UserError where it does not."""
    try:
        loader = _LiteralLoader(read_text(path))
        loader.name = str(path)
        content = loader.get_single_data()
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no sections: it begins with a key, such as `name: ...`.")
    return content


def parse_section(
    section_type: type[SectionType], content: dict[str, Any], path: Path
) -> SectionType:
    """A section of this kind. Raises UserError, one sentence for the first mistake."""
    try:
        return section_type.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {_error_sentence(error, content, section_type)}") from None


def _error_sentence(
    error: ValidationError, content: dict[str, Any], section_type: type[BaseModel]
) -> str:
    """The first mistake of a pydantic error, in plain words."""
    first = error.errors()[0]
    where = _location_keys(first["loc"], content, first["type"] == "missing")
    key, mistake, given = ".".join(where), first["type"], first["input"]
    more = len(error.errors()) - 1
    tail = f" (and {more} more)" if more else ""
    if mistake == "extra_forbidden":
        suggestion = suggest_name(where[-1], _valid_keys(section_type, where[:-1]))
        return f"{key} is not known: {suggestion}{tail}"
    if mistake == "missing" and isinstance(first["loc"][-1], int):
        listed = ".".join(where[:-1])
        return f"{listed} is {given!r}: its entry {first['loc'][-1] + 1} is missing{tail}."
    if mistake == "missing":
        return f"{key} is missing: add it{tail}."
    if mistake == "union_tag_invalid":
        chosen, known = first["ctx"]["discriminator"].strip("'"), first["ctx"]["expected_tags"]
        tags = [name.strip("' ") for name in known.split(",")]
        tag = first["ctx"]["tag"]
        return f"{key}.{chosen} is {tag}: {suggest_name(tag, tags)}{tail}"
    if mistake == "value_error":
        return f"{key + ': ' if key else ''}{str(first['ctx']['error']).rstrip('.')}{tail}."
    if mistake == "string_pattern_mismatch":
        return f"{key} is {given!r}: letters, digits, _ and -, and a letter or digit first{tail}."
    is_mapping = isinstance(given, dict)
    shown = repr(given) if not is_mapping else "a mapping" if given else "empty"
    reason = re.sub(r"^Input should", "it should", first["msg"])
    purpose = _description(section_type, where)
    return f"{key} is {shown}: {reason}{f' ({purpose})' if purpose else ''}{tail}."


def _location_keys(
    location: tuple[int | str, ...], content: Any, is_last_missing: bool
) -> list[str]:
    """The keys of a location, less the tags of unions, which the file does not show."""
    keys = []
    for left, part in zip(reversed(range(len(location))), location, strict=True):
        listed = isinstance(content, list) and isinstance(part, int) and part < len(content)
        if listed or (isinstance(content, dict) and part in content):
            keys.append(str(part))
            content = content[part]
        elif is_last_missing and not left:
            keys.append(str(part))
    return keys


def _valid_keys(section_type: type[BaseModel], keys: list[str]) -> list[str]:
    """The keys that exist beside a wrong one."""
    *_, last = _schemas_on_path(section_type, keys)
    _, found = last
    return sorted({key for node in found for key in node.get("properties", {})})


def _description(section_type: type[BaseModel], keys: list[str]) -> str:
    """What a setting is for; of an entry of a list, what the list is for; empty if unclear."""
    found = ""
    for nodes, _ in _schemas_on_path(section_type, keys)[1:]:
        words = {node.get("description", found) for node in nodes}
        found = words.pop() if len(words) == 1 else ""
    return found


def _schemas_on_path(
    section_type: type[BaseModel], keys: list[str]
) -> list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """The possible nodes of the schema at each key from the top, as they stand and resolved."""
    schema = section_type.model_json_schema()
    definitions = schema.get("$defs", {})
    path = [([schema], [schema])]
    for part in keys:
        children = [_child_schema(node, part) for node in path[-1][1]]
        resolved = [deeper for node in children for deeper in _resolve_schema(node, definitions)]
        path.append((children, resolved))
    return path


def _child_schema(node: dict[str, Any], key: str) -> dict[str, Any]:
    if key in node.get("properties", {}):
        return dict(node["properties"][key])
    members = (node.get("items"), node.get("additionalProperties"))
    patterned = node.get("patternProperties", {}).values()
    return next((dict(m) for m in (*members, *patterned) if isinstance(m, dict)), {})


def _resolve_schema(node: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """A schema's node with references followed and unions opened."""
    if "$ref" in node:
        return _resolve_schema(definitions[node["$ref"].rsplit("/", 1)[1]], definitions)
    members = node.get("anyOf") or node.get("oneOf")
    if members:
        return [found for member in members for found in _resolve_schema(member, definitions)]
    return [node]
