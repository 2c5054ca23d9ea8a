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

SectionType = TypeVar("SectionType", bound=Section)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML in which a duplicate key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                line = node.start_mark.line + 1
                raise UserError(
                    f"{node.start_mark.name}: {key} is given twice from line {line} on."
                )
        return super().construct_mapping(node, deep)


def read_mapping(path: Path) -> dict[str, Any]:
    """The content of a YAML file that holds keys. Raises UserError where it does not."""
    try:
        with open(path) as file:
            content = yaml.load(file, _UniqueKeyLoader)
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
    where = _location_keys(first["loc"], content)
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
    shown = "a mapping" if isinstance(given, dict) else repr(given)
    reason = re.sub(r"^Input should", "it should", first["msg"])
    return f"{key} is {shown}: {reason}{tail}."


def _location_keys(location: tuple[int | str, ...], content: Any) -> list[str]:
    """The keys of a location, less the tags of unions, which the file does not show."""
    keys = []
    for left, part in zip(reversed(range(len(location))), location, strict=True):
        listed = isinstance(content, list) and isinstance(part, int) and part < len(content)
        if listed or (isinstance(content, dict) and part in content):
            keys.append(str(part))
            content = content[part]
        elif not left:
            keys.append(str(part))
    return keys


def _valid_keys(section_type: type[BaseModel], keys: list[str]) -> list[str]:
    """The keys that exist beside a wrong one."""
    schema = section_type.model_json_schema()
    definitions = schema.get("$defs", {})
    found = [schema]
    for part in keys:
        found = [
            deeper
            for node in found
            for deeper in _resolve_schema(_child_schema(node, part), definitions)
        ]
    return sorted({key for node in found for key in node.get("properties", {})})


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
