"""A study: one YAML file, composed of the sections that the library's packages define.

A study sets what differs from the defaults; `ssl-pipeline config --show` prints the rest. Every
mistake in it is reported in one sentence: file, key, value, and the nearest key that exists.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr

from cluster.workers import Dask
from ssl_pipeline.config.section import Section, override_section
from ssl_pipeline.evaluation.cells import PIXELS, RANDOM
from ssl_pipeline.evaluation.config import Ablate, Evaluate, Finetune, Probe, Robustness, Scaling
from ssl_pipeline.evaluation.tasks import TaskConfig
from ssl_pipeline.export import training_subjects
from ssl_pipeline.export.manifest import BUNDLE_MANIFEST, WEIGHTS_FILE
from ssl_pipeline.init_from import InitFrom
from ssl_pipeline.io.atomic import sha256_file, sha256_json
from ssl_pipeline.models import ModelConfig, ViT
from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.objectives import Hybrid, ObjectiveConfig
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.plan import Planning
from ssl_pipeline.registry.config import Promote
from ssl_pipeline.registry.registry import CHAMPION
from ssl_pipeline.review.config import Review
from ssl_pipeline.store.layout import StoreSettings
from ssl_pipeline.training.config import RESUMABLE_KEYS, Training
from ssl_pipeline.views.config import Views
from ssl_pipeline.volumes.config import Data, expand_path, resolve_path
from ssl_pipeline.volumes.download import Download
from ssl_pipeline.volumes.pseudonyms import PseudonymStore
from ssl_pipeline.volumes.quality_control import QualityThresholds
from stages.core import layout

FORMAT_VERSION = 1
INIT_FROM = "init_from"  # the initial weights, as an input of pretraining
EVALUATED_FILES = (WEIGHTS_FILE, BUNDLE_MANIFEST, training_subjects.FILE_NAME)  # of a bundle
# Names of folders and files, of which a file system takes 255 bytes, with what is joined to them.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=80)]


class Study(Section):
    """A study: its data, how an encoder is pretrained on them, and how it is evaluated."""

    format: int = Field(FORMAT_VERSION, description="version of this file's format")
    name: Name = Field(description="short name; the output folder is build/NAME by default")
    title: str = Field("", description="title of the report; changes nothing else")
    output: str = Field(
        "",
        description="output folder, build/NAME where empty; variables and ~ are expanded",
    )
    private: str = Field(
        "",
        description="folder of mode 0700 for the salt and the paths of origin, which results do not"
        " contain; `private` beside the output folder where empty. Studies that share it know each"
        " other's subjects. Nothing there may be purged",
    )
    seed: int = Field(0, ge=0, description="seed of everything random")
    download: Download = Field(
        Download(), description="public scans to download before the first stage"
    )
    data: Data = Field(description="raw scans: where they are, their metadata, subjects and splits")
    quality: QualityThresholds = Field(
        QualityThresholds(), description="thresholds of quality control"
    )
    review: Review | None = Field(
        None, description="what people are asked before preprocessing, `{}` for the defaults"
    )
    plan: Planning = Field(
        Planning(), description="planning of the settings that are auto, by the training scans"
    )
    preprocess: Preprocess = Field(
        Preprocess(), description="resampling, foreground and intensity of stored volumes"
    )
    store: StoreSettings = Field(StoreSettings(), description="how volumes are stored")
    dask: Dask = Field(Dask(), description="workers of preprocessing")
    views: Views = Field(Views(), description="crops, masks, augmentation")
    model: ModelConfig = Field(ViT(), description="the encoder")
    init_from: InitFrom | None = Field(
        None, description="weights that pretraining starts from; random ones by default"
    )
    objective: ObjectiveConfig = Field(Hybrid(), description="objective of pretraining")
    training: Training = Field(Training(), description="the training loop")
    monitoring: Monitoring = Field(
        Monitoring(), description="monitoring of the run, which does not affect the training"
    )
    tasks: dict[Name, TaskConfig] = Field({}, description="tasks that the encoder is evaluated on")
    evaluate: Evaluate = Field(Evaluate(), description="settings of all evaluations")
    probe: Probe = Field(Probe(), description="settings of probes on frozen features")
    finetune: Finetune = Field(Finetune(), description="settings of fine-tuning")
    robustness: Robustness | None = Field(
        None, description="evaluation on corrupted scans, `{}` for all corruptions"
    )
    promote: Promote | None = Field(
        None, description="when the encoder replaces the champion of a registry"
    )
    ablate: Ablate | None = Field(
        None, description="objectives to compare, `{}` for mae, contrastive and hybrid"
    )

    scaling: Scaling | None = Field(
        None, description="shorter runs to compare, `{}` for a sixteenth and a quarter"
    )

    _source_folder: Path = PrivateAttr(Path())
    _champion: tuple[str, Path] | None = PrivateAttr(None)  # its ID in the registry, its bundle
    _trial: str = PrivateAttr("")
    _trial_stages: frozenset[str] = PrivateAttr(frozenset())  # those with a run for each trial

    @property
    def source_folder(self) -> Path:
        """The folder of the study's file, from which it names lists and tables."""
        return self._source_folder

    @property
    def folder(self) -> Path:
        """The output folder. Raises UserError for a variable in its path that is not set."""
        return expand_path(self.output) if self.output else Path("build") / self.name

    @property
    def pseudonyms(self) -> PseudonymStore:
        """The pseudonyms of scans and subjects, and the paths that they stand for."""
        private = resolve_path(self.private) if self.private else layout.private_folder(self)
        return PseudonymStore(private, self.name, self.folder)

    @property
    def trial(self) -> str:
        """Which trial it is, such as `hybrid-0`; empty for the study itself."""
        return self._trial

    @property
    def encoder(self) -> Path:
        """The bundle that `pretrain` writes."""
        return self.stage_folder("pretrain", {}) / layout.ENCODER_FOLDER

    @property
    def champion(self) -> str:
        """ID of the registry's encoder that its own is to replace; empty where there is none."""
        return self._champion[0] if self._champion else ""

    def with_champion(self, identifier: str, bundle: Path) -> "Study":
        """The same with a champion, which is evaluated beside its own encoder."""
        other = self.model_copy()
        other._champion = (identifier, bundle)
        return other

    @property
    def encoders(self) -> dict[str, Path]:
        """The bundles that evaluations compare, by name: its own, and external ones."""
        if self._trial.startswith(f"{RANDOM}-"):
            return {}
        named = self.evaluate.encoders.items()
        found = {name: resolve_path(path) if path else self.encoder for name, path in named}
        return found | ({CHAMPION: self._champion[1]} if self._champion else {})

    @property
    def external_encoders(self) -> dict[str, Path]:
        """The encoders that the study does not train itself."""
        return {name: path for name, path in self.encoders.items() if path != self.encoder}

    def encoder_title(self, name: str) -> str:
        """What the study's file calls one of its external encoders."""
        if self.promote and name == CHAMPION:
            return f"{self.promote.reference} of {self.promote.registry}"
        return f"evaluate.encoders.{name}"

    @property
    def external_encoder_hashes(self) -> dict[str, str]:
        """Hash of each external encoder with its training subjects, under its name as an input."""
        found = {}
        for name, bundle in self.external_encoders.items():
            paths = [bundle / file for file in EVALUATED_FILES]
            hashes = [path.exists() and sha256_file(path) for path in paths]
            found[f"encoder {name}"] = sha256_json(hashes)
        return found

    def features_of(self, task: str) -> dict[str, Path]:
        """Files of other encoders' features, for the probes of a task; trials have none."""
        section = self.tasks[task]
        is_probed = section.TAKES_SCAN_FEATURES and "probe" in section.evaluation_stages
        if self._trial or not is_probed:
            return {}
        return {name: resolve_path(path) for name, path in self.evaluate.features.items()}

    @property
    def feature_hashes(self) -> dict[str, str]:
        """Hash of each of these files, under its name as an input; empty where it is not there."""
        files = {name: resolve_path(path) for name, path in self.evaluate.features.items()}
        return {
            f"features {name}": sha256_file(path) if path.is_file() else ""
            for name, path in files.items()
        }

    @property
    def external_hashes(self) -> dict[str, str]:
        """Hashes of the files that others wrote and stages read, except scans and labels.

        Initial weights that are not there have none.
        """
        start, found = self.init_from, self.external_encoder_hashes | self.feature_hashes
        if start is None or not start.weights_path.is_file():
            return found
        return found | {INIT_FROM: start.files_sha256}

    @property
    def baselines(self) -> tuple[str, ...]:
        """Baselines of the encoders; among trials they have trials of their own."""
        return () if self._trial and self.encoders else (RANDOM, PIXELS)

    @property
    def has_pretraining(self) -> bool:
        """Whether it pretrains an encoder that it evaluates."""
        return self.encoder in self.encoders.values()

    def evaluates_robustness(self, task: str) -> bool:
        """Whether a task's fine-tuned networks are evaluated on corrupted scans."""
        config = self.tasks[task]
        is_chosen = not config.stages or "robustness" in config.stages
        has_networks = "finetune" in config.evaluation_stages and not self._trial
        return self.robustness is not None and is_chosen and has_networks

    def probe_of(self, task: str) -> Probe:
        """The settings of probing for a task."""
        return override_section(self.probe, self.tasks[task].probe)

    def finetune_of(self, task: str) -> Finetune:
        """The settings of fine-tuning for a task; a trial leaves no model."""
        section = override_section(self.finetune, self.tasks[task].finetune)
        return section.model_copy(update={"keep_networks": "none"}) if self._trial else section

    def stage_folder(self, stage: str, wildcards: dict[str, str]) -> Path:
        """The folder of a stage: one for each value of its wildcards, and for each trial."""
        apart = (layout.TRIALS_FOLDER, self._trial) if stage in self._trial_stages else ()
        return self.folder.joinpath(*apart, stage, *wildcards.values())

    def run_name(self, stage: str, wildcards: dict[str, str]) -> str:
        """The name of a stage's log and jobs: `probe-organ`, `probe-organ@hybrid-0`."""
        name = "-".join([stage, *wildcards.values()])
        return f"{name}@{self._trial}" if self._trial else name

    def starts_from_decoder(self, task: str) -> bool:
        """Whether fine-tuning on a task goes on from a decoder that pretraining has trained."""
        config = self.tasks[task]
        is_segmented = config.kind == "segmentation" and "finetune" in config.evaluation_stages
        return is_segmented and self.finetune_of(task).decoder.start == "pretrained"

    @property
    def redacted_config(self) -> dict[str, Any]:
        """The study with every default, without paths and names of scans."""
        labels = {"__all__": {"path", "pattern", "image_pattern"}}
        root: dict[str, Any] = {"path": True, "include": True, "exclude": True, "labels": labels}
        data = {"roots": {"__all__": root}, "splits": {"lists"}, "table": True}
        hidden: dict[str, Any] = {"private": True, "output": True, "data": data}
        hidden |= {
            "evaluate": {"encoders", "features"},
            "init_from": {"path"},
            "promote": {"registry"},
        }
        return self.model_dump(mode="json", exclude=hidden)

    def sections_hash(self, keys: tuple[str, ...], wildcards: dict[str, str]) -> str:
        """Hash of the settings that a stage reads, such as `tasks.{task}` or `data.roots.*.weight`.

        Titles of tasks are not in it, nor settings that change no result, nor files of features,
        which are inputs of the stage that reads them, nor `continue_from`,
        `replay` and `init_from` where they are not set.
        """
        optional = ("continue_from", "replay")
        absent = {key for key in optional if getattr(self.training, key) is None}
        idle: dict[str, Any] = {"tasks": {"__all__": {"title"}}, "init_from": {"path", "of"}}
        idle["promote"], idle["evaluate"] = {"registry"}, {"features"}
        idle["training"] = absent | RESUMABLE_KEYS
        whole = self.model_dump(mode="json", exclude=idle)
        read = {key: _value(whole, key.format(**wildcards).split(".")) for key in keys}
        if read.get("init_from", whole) is None:
            del read["init_from"]
        return sha256_json(read)


def _value(node: Any, parts: list[str]) -> Any:
    """The value at a path of keys, `*` meaning each member of a list; None in an absent section."""
    if not parts or node is None:
        return node
    if parts[0] == "*":
        return [_value(member, parts[1:]) for member in node]
    return _value(node[parts[0]], parts[1:])
