"""A study: one YAML file, composed of the sections that the library's rooms define.

A study sets what differs from the defaults; `ssl-pipeline config --show` prints the rest. Every
mistake in it is told in one sentence: file, key, what it got, and the nearest key that exists.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, PrivateAttr, ValidationError

from cluster.local import Dask
from ssl_pipeline.atomic import sha256_json
from ssl_pipeline.errors import UserError, nearest
from ssl_pipeline.evaluation.config import Evaluate, Finetune, Probe
from ssl_pipeline.evaluation.tasks import TaskConfig
from ssl_pipeline.models import ModelConfig, ViT
from ssl_pipeline.objectives import Hybrid, ObjectiveConfig
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.section import Section
from ssl_pipeline.store.layout import Store
from ssl_pipeline.training.config import Training
from ssl_pipeline.views.config import Views
from ssl_pipeline.volumes.dataset import Data
from ssl_pipeline.volumes.samples import Sample
from ssl_pipeline.volumes.verdicts import Quality

FORMAT_VERSION = 1
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class Study(Section):
    """What goes in, how an encoder is trained on it, and how its worth is measured."""

    format: int = Field(FORMAT_VERSION, description="version of this file's format")
    name: Name = Field(description="short name; the output folder is build/NAME by default")
    title: str = Field("", description="what the report is headed with; changes nothing else")
    output: str = Field("", description="output folder; build/NAME where empty")
    seed: int = Field(0, ge=0, description="seed of everything random")
    sample: Sample = Field(Sample(), description="public scans to gather before the first stage")
    data: Data = Field(description="where raw volumes lie and what is known of them")
    quality: Quality = Field(Quality(), description="which volumes are good enough")
    preprocess: Preprocess = Field(Preprocess(), description="from raw volumes to stored ones")
    store: Store = Field(Store(), description="how volumes are stored")
    dask: Dask = Field(Dask(), description="workers of preprocessing")
    views: Views = Field(Views(), description="crops, masks, augmentation")
    model: ModelConfig = Field(ViT(), description="the encoder")
    objective: ObjectiveConfig = Field(Hybrid(), description="what pretraining optimises")
    training: Training = Field(Training(), description="the training loop")
    tasks: dict[Name, TaskConfig] = Field({}, description="what the encoder is judged by")
    evaluate: Evaluate = Field(Evaluate(), description="what all judgements share")
    probe: Probe = Field(Probe(), description="frozen features")
    finetune: Finetune = Field(Finetune(), description="fine-tuned encoders")

    _source_folder: Path = PrivateAttr(Path())

    @property
    def source_folder(self) -> Path:
        """The folder of the study's file, from which it names lists and tables."""
        return self._source_folder

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return Path(os.path.expandvars(self.output)) if self.output else Path("build") / self.name

    def stage_folder(self, stage: str, wildcards: dict[str, str]) -> Path:
        """Where a stage writes; one folder a value of its wildcards."""
        return self.folder.joinpath(stage, *wildcards.values())

    def sections_hash(self, keys: tuple[str, ...], wildcards: dict[str, str]) -> str:
        """Hash of what a stage reads: `tasks.{task}` is one, `roots.*.weight` that of each."""
        whole = self.model_dump(mode="json")
        return sha256_json({key: _value(whole, key.format(**wildcards).split(".")) for key in keys})


def _value(node: Any, parts: list[str]) -> Any:
    """What lies at a path of keys, `*` meaning every member of a list."""
    if not parts:
        return node
    if parts[0] == "*":
        return [_value(member, parts[1:]) for member in node]
    return _value(node[parts[0]], parts[1:])


class _Loader(yaml.SafeLoader):
    """YAML as everybody writes it, but a key given twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                line = node.start_mark.line + 1
                raise UserError(
                    f"{node.start_mark.name}: {key} is given twice from line {line} on."
                )
        return super().construct_mapping(node, deep)


def load(path: Path) -> Study:
    """Read and check a study. Raises UserError, one sentence for the first mistake."""
    if not path.is_file():
        known = ", ".join(str(p) for p in sorted(Path("workflows/studies").glob("*.yaml")))
        raise UserError(f"There is no study at {path}; here are {known or 'none'}.")
    try:
        with open(path) as file:
            content = yaml.load(file, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no sections: a study begins with `name: ...`.")
    if content.get("format", FORMAT_VERSION) != FORMAT_VERSION:
        raise UserError(
            f"{path}: format is {content['format']}, this version reads {FORMAT_VERSION}: "
            "use the version of ssl-pipeline that the study was written for."
        )
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {_sentence(error, content)}") from None
    study._source_folder = path.parent
    return study


def _sentence(error: ValidationError, content: dict[str, Any]) -> str:
    """The first mistake of a pydantic error, in plain words."""
    first = error.errors()[0]
    where = _keys(first["loc"], content)
    key, kind, given = ".".join(where), first["type"], first["input"]
    more = len(error.errors()) - 1
    tail = f" (and {more} more)" if more else ""
    if kind == "extra_forbidden":
        return f"{key} is not known: {nearest(where[-1], _siblings(where[:-1]))}{tail}"
    if kind == "missing":
        return f"{key} is missing: add it{tail}."
    if kind == "value_error":
        return f"{key + ': ' if key else ''}{str(first['ctx']['error']).rstrip('.')}{tail}."
    shown = "a mapping" if isinstance(given, dict) else repr(given)
    reason = re.sub(r"^Input should", "it should", first["msg"])
    return f"{key} is {shown}: {reason}{tail}."


def _keys(location: tuple[int | str, ...], content: Any) -> list[str]:
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


def _siblings(where: list[str]) -> list[str]:
    """The keys that exist beside a wrong one."""
    schema = Study.model_json_schema()
    definitions = schema["$defs"]
    found = [schema]
    for part in where:
        found = [deeper for node in found for deeper in _resolve(_child(node, part), definitions)]
    return sorted({key for node in found for key in node.get("properties", {})})


def _child(node: dict[str, Any], part: str) -> dict[str, Any]:
    if part in node.get("properties", {}):
        return dict(node["properties"][part])
    members = (node.get("items"), node.get("additionalProperties"))
    patterned = node.get("patternProperties", {}).values()
    return next((dict(m) for m in (*members, *patterned) if isinstance(m, dict)), {})


def _resolve(node: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """A schema's node with references followed and unions opened."""
    if "$ref" in node:
        return _resolve(definitions[node["$ref"].rsplit("/", 1)[1]], definitions)
    members = node.get("anyOf") or node.get("oneOf")
    if members:
        return [found for member in members for found in _resolve(member, definitions)]
    return [node]
