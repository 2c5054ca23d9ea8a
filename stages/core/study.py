"""A study: one YAML file, composed of the sections that the library's rooms define.

A study sets what differs from the defaults; `ssl-pipeline config --show` prints the rest. Every
mistake in it is told in one sentence: file, key, what it got, and the nearest key that exists.
"""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, model_validator

from cluster.workers import Dask
from ssl_pipeline.config.loader import parse_section, read_mapping
from ssl_pipeline.config.section import Section, override_section
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import PIXELS, RANDOM
from ssl_pipeline.evaluation.config import Ablate, Evaluate, Finetune, Probe, Robustness
from ssl_pipeline.evaluation.tasks import TaskConfig
from ssl_pipeline.init_from import InitFrom
from ssl_pipeline.io.atomic import sha256_json
from ssl_pipeline.models import ModelConfig, ViT
from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.objectives import Hybrid, ObjectiveConfig
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.store.layout import StoreSettings
from ssl_pipeline.training.config import RESUMABLE_KEYS, Training
from ssl_pipeline.views.config import Views
from ssl_pipeline.volumes.config import Data, resolve_path
from ssl_pipeline.volumes.download import Download
from ssl_pipeline.volumes.pseudonyms import PseudonymStore
from ssl_pipeline.volumes.quality_control import QualityThresholds
from stages.core import study_validation

FORMAT_VERSION = 1
TRIAL_STAGES = ("pretrain", "probe", "finetune")  # the stages that each trial of an ablation runs
TRIALS_FOLDER = "trials"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class Study(Section):
    """What goes in, how an encoder is trained on it, and how its worth is measured."""

    format: int = Field(FORMAT_VERSION, description="version of this file's format")
    name: Name = Field(description="short name; the output folder is build/NAME by default")
    title: str = Field("", description="what the report is headed with; changes nothing else")
    output: str = Field("", description="output folder; build/NAME where empty")
    private: str = Field(
        "",
        description="folder of mode 0700 for the salt and the paths of origin, which results do not"
        " say; `private` beside the output folder where empty. Studies that share it know each"
        " other's subjects. Nothing there may be purged",
    )
    seed: int = Field(0, ge=0, description="seed of everything random")
    download: Download = Field(
        Download(), description="public scans to gather before the first stage"
    )
    data: Data = Field(description="where raw volumes lie and what is known of them")
    quality: QualityThresholds = Field(
        QualityThresholds(), description="which volumes are good enough"
    )
    preprocess: Preprocess = Field(Preprocess(), description="from raw volumes to stored ones")
    store: StoreSettings = Field(StoreSettings(), description="how volumes are stored")
    dask: Dask = Field(Dask(), description="workers of preprocessing")
    views: Views = Field(Views(), description="crops, masks, augmentation")
    model: ModelConfig = Field(ViT(), description="the encoder")
    init_from: InitFrom | None = Field(
        None, description="weights that pretraining starts from; random ones by default"
    )
    objective: ObjectiveConfig = Field(Hybrid(), description="what pretraining optimises")
    training: Training = Field(Training(), description="the training loop")
    monitoring: Monitoring = Field(
        Monitoring(), description="the flight recorder, which changes nothing of what is trained"
    )
    tasks: dict[Name, TaskConfig] = Field({}, description="what the encoder is judged by")
    evaluate: Evaluate = Field(Evaluate(), description="what all judgements share")
    probe: Probe = Field(Probe(), description="frozen features")
    finetune: Finetune = Field(Finetune(), description="fine-tuned encoders")
    robustness: Robustness | None = Field(
        None, description="how judgements hold on worse scans, `{}` for all that can go wrong"
    )
    ablate: Ablate | None = Field(
        None, description="objectives to compare, `{}` for mae, contrastive and hybrid"
    )

    _source_folder: Path = PrivateAttr(Path())
    _trial: str = PrivateAttr("")

    @model_validator(mode="after")
    def _validate(self) -> "Study":
        study_validation.check_study(self)
        return self

    @property
    def source_folder(self) -> Path:
        """The folder of the study's file, from which it names lists and tables."""
        return self._source_folder

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return Path(os.path.expandvars(self.output)) if self.output else Path("build") / self.name

    @property
    def pseudonyms(self) -> PseudonymStore:
        """Where the scans came from, and the codes that name them."""
        beside = self.folder.parent / "private"
        return PseudonymStore(
            resolve_path(self.private) if self.private else beside, self.name, self.folder
        )

    @property
    def trial(self) -> str:
        """Which trial of an ablation it is, such as `hybrid-0`; empty for the study itself."""
        return self._trial

    @property
    def encoder(self) -> Path:
        """The bundle that `pretrain` writes."""
        return self.stage_folder("pretrain", {}) / "encoder"

    @property
    def encoders(self) -> dict[str, Path]:
        """The bundles that its judgements compare, by name: its own, and those of others."""
        if self._trial.startswith(f"{RANDOM}-"):
            return {}
        named = self.evaluate.encoders.items()
        return {name: resolve_path(path) if path else self.encoder for name, path in named}

    @property
    def external_encoders(self) -> dict[str, Path]:
        """Those of them that it does not train itself."""
        return {name: path for name, path in self.encoders.items() if path != self.encoder}

    @property
    def baselines(self) -> tuple[str, ...]:
        """What they are compared with; in an ablation, a trial of its own has that."""
        return () if self._trial and self.encoders else (RANDOM, PIXELS)

    @property
    def has_pretraining(self) -> bool:
        """Whether it trains an encoder that it judges."""
        return self.encoder in self.encoders.values()

    def evaluation_stages(self, task: str) -> tuple[str, ...]:
        """The stages that judge a task."""
        config = self.tasks[task]
        asked = "finetune" in config.evaluation_stages and (
            not config.stages or "robustness" in config.stages
        )
        tried = self.robustness and asked and not self._trial
        return (*config.evaluation_stages, "robustness") if tried else config.evaluation_stages

    def probe_of(self, task: str) -> Probe:
        """The dials of probing that hold for a task."""
        return override_section(self.probe, self.tasks[task].probe)

    def finetune_of(self, task: str) -> Finetune:
        """The dials of fine-tuning that hold for a task."""
        return override_section(self.finetune, self.tasks[task].finetune)

    def stage_folder(self, stage: str, wildcards: dict[str, str]) -> Path:
        """Where a stage writes; one folder a value of its wildcards, and a trial."""
        apart = (TRIALS_FOLDER, self._trial) if self._trial and stage in TRIAL_STAGES else ()
        return self.folder.joinpath(*apart, stage, *wildcards.values())

    def run_name(self, stage: str, wildcards: dict[str, str]) -> str:
        """What a stage's log and jobs are called: `probe-organ`, `probe-organ@hybrid-0`."""
        name = "-".join([stage, *wildcards.values()])
        return f"{name}@{self._trial}" if self._trial else name

    @property
    def redacted_config(self) -> dict[str, Any]:
        """The study with every default, less what says where scans lie and what they are called."""
        labels = {"__all__": {"path", "pattern", "image"}}
        root: dict[str, Any] = {"path": True, "include": True, "exclude": True, "labels": labels}
        data = {"roots": {"__all__": root}, "table": True, "splits": {"lists"}}
        hidden: dict[str, Any] = {"private": True, "output": True, "data": data}
        hidden |= {"evaluate": {"encoders"}, "init_from": {"path"}}
        return self.model_dump(mode="json", exclude=hidden)

    def sections_hash(self, keys: tuple[str, ...], wildcards: dict[str, str]) -> str:
        """Hash of what a stage reads: `tasks.{task}` is one, `roots.*.weight` that of each.

        What people read alone, the title of a task, is not in it, nor what changes no result, nor
        what a run starts from where it starts from nothing: it was not always there to be said.
        """
        absent = set() if self.training.continue_from else {"extends"}
        idle: dict[str, Any] = {
            "tasks": {"__all__": {"title"}},
            "training": absent | RESUMABLE_KEYS,
        }
        idle["init_from"] = {"path"}
        whole = self.model_dump(mode="json", exclude=idle)
        read = {key: _value(whole, key.format(**wildcards).split(".")) for key in keys}
        if read.get("init_from", whole) is None:
            del read["init_from"]
        return sha256_json(read)


def _value(node: Any, parts: list[str]) -> Any:
    """What lies at a path of keys, `*` meaning each member of a list; None in an absent section."""
    if not parts or node is None:
        return node
    if parts[0] == "*":
        return [_value(member, parts[1:]) for member in node]
    return _value(node[parts[0]], parts[1:])


def load_study(path: Path) -> Study:
    """Read and check a study. Raises UserError, one sentence for the first mistake."""
    if not path.is_file():
        known = ", ".join(str(p) for p in sorted(Path("workflows/studies").glob("*.yaml")))
        raise UserError(f"There is no study at {path}; here are {known or 'none'}.")
    content = read_mapping(path)
    if content.get("format", FORMAT_VERSION) != FORMAT_VERSION:
        raise UserError(
            f"{path}: format is {content['format']}, this version reads {FORMAT_VERSION}: "
            "use the version of ssl-pipeline that the study was written for."
        )
    study = parse_section(Study, content, path)
    study._source_folder = path.parent
    return study
