"""What the rules ask of a study: paths, parameters and commands, so that rules hold no logic.

A rule declares two small files and no folder, for Snakemake deletes the declared outputs of a
failed rule. Its `params` hold the hash of its stage's version and of the sections that it reads:
changing one of them reruns the rule, and a new title reruns nothing.
"""

import os
from collections.abc import Callable, Mapping
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError
from snakemake.io import ancient
from snakemake.logging import logger

from cluster.config import StageResources
from cluster.slurm import drop_outer_variables
from ssl_pipeline.errors import UserError
from ssl_pipeline.export import training_subjects
from ssl_pipeline.export.manifest import BUNDLE_MANIFEST, WEIGHTS_FILE
from stages.commands.estimate import StageEstimate, estimate_stage
from stages.core.dispatch import LOCAL, load_cluster
from stages.core.resources import DatasetSize, dataset_size
from stages.core.runner import (
    MANIFEST,
    PROVENANCE,
    STAGES,
    is_stale,
    remove_stale_manifests,
    stage_config_hash,
)
from stages.core.stage_runs import runs_of_trial
from stages.core.study import TRIALS_FOLDER, Study, load_study
from stages.core.trials import planned_trial, trial_of, trials
from stages.inventory import raw_listing_hash

DEMO = "workflows/studies/demo.yaml"
STAGES_FOLDER = Path(__file__).resolve().parent.parent


class Workflow:
    """A study, seen from the Snakefile. `config` is Snakemake's; it names the study alone.

    `workflow` is Snakemake's too: the profile's `default-resources` say where heavy stages run.
    They survive --config and --configfile, which replace what a profile has under `config`.
    """

    def __init__(self, config: Mapping[str, Any], workflow: Any) -> None:
        others = sorted(set(config) - {"study"})
        if others:
            raise WorkflowError(
                f"--config {others[0]}=... is not taken here: change the study's file, "
                f"and choose it with --config study={DEMO}."
            )
        if "study" not in config:
            logger.info(f"The study is {DEMO}; choose another with --config study=FILE.")
        self.path = Path(config.get("study", DEMO))
        self.cores = workflow.cores
        chosen = (workflow.resource_settings.default_resources or {}).get("where")
        self.run_on = str(chosen.raw).strip("'\"") if chosen else LOCAL
        try:
            self.study = load_study(self.path)
            self.cluster = load_cluster(self.run_on)
        except UserError as error:
            raise WorkflowError(str(error)) from None
        if self.cluster:
            drop_outer_variables()  # what Snakemake starts is no part of an outer job either
        self.folder = self.study.folder
        self.outer_wildcards: tuple[str, ...] = ()  # wildcards before those of a stage
        remove_stale_manifests(self.folder)

    @property
    def trial(self) -> "Workflow":
        """The same for the rules of trials, whose first wildcard says which trial it is."""
        other = copy(self)
        other.outer_wildcards = ("trial",)
        return other

    def outputs(self, name: str) -> dict[str, str]:
        """The two files that the rule of a stage declares."""
        folder = self._folder_pattern(name)
        return {"manifest": str(folder / MANIFEST), "provenance": str(folder / PROVENANCE)}

    def manifest(self, name: str, **wildcards: str) -> str:
        """The manifest of a stage: the input of the rules after it."""
        return str(self.study.stage_folder(name, wildcards) / MANIFEST)

    def manifest_pattern(self, name: str) -> str:
        """The same for any of its wildcards, which the rule after it shares."""
        return str(self._folder_pattern(name) / MANIFEST)

    def encoder_of_trial(self, wildcards: Mapping[str, str]) -> list[str]:
        """What judgements of a trial wait for: its pretraining, if it has any."""
        trial = trial_of(self.study, wildcards["trial"])
        out = trial.stage_folder("pretrain", {})
        return [str(out / MANIFEST)] if trial.has_pretraining else []

    def trial_manifests(self) -> list[str]:
        """The manifests of all that an ablation's trials make; none where there is no ablation."""
        made = (part.out for trial in trials(self.study) for part in runs_of_trial(trial))
        return [str(out / MANIFEST) for out in made]

    def encoder_inputs(self) -> list[str]:
        """What judgements wait for: the manifest of pretraining, and the encoders they name."""
        own = [self.manifest("pretrain")] if self.study.has_pretraining else []
        for bundle in self.study.external_encoders.values():
            whom = bundle / training_subjects.FILE_NAME
            own += [str(bundle / name) for name in (WEIGHTS_FILE, BUNDLE_MANIFEST)]
            own += [str(whom)] if whom.exists() else []
        return own

    def init_weights(self) -> list[str]:
        """The weights that pretraining starts from, if the study names some."""
        start = self.study.init_from
        return [str(file) for file in start.files if file.exists()] if start else []

    def study_file(self, name: str) -> Callable[[Mapping[str, str]], list[str]]:
        """The study's file and the stage's, whose dates count only where a stage is out of date.

        Of a stage that was run by hand Snakemake has no record of parameters to compare with; there
        the stage's own record tells that a file was edited: in what the stage reads, or to another
        version.
        """

        def of(wildcards: Mapping[str, str]) -> list[str]:
            files = [os.path.normpath(self.path), os.path.relpath(STAGES_FOLDER / f"{name}.py")]
            now = is_stale(self._selected_study(wildcards), name, _stage_wildcards(name, wildcards))
            return files if now else [ancient(file) for file in files]

        return of

    def evaluation_manifests(self) -> list[str]:
        """The manifests of every judgement of every task."""
        study = self.study
        return [
            self.manifest(n, task=task)
            for task in study.tasks
            for n in study.evaluation_stages(task)
        ]

    def config_hash(self, name: str) -> Callable[[Mapping[str, str]], str] | str:
        """Hash of a stage's version and of what it reads, as a parameter; by wildcards if any.

        The steps of a trial, which nobody knows before the stage `budget` has run, are no part.
        """
        if not (self.outer_wildcards or STAGES[name]):
            return stage_config_hash(name, self.study, {})

        def of(wildcards: Mapping[str, str]) -> str:
            study = (
                planned_trial(self.study, wildcards["trial"])
                if self.outer_wildcards
                else self.study
            )
            return stage_config_hash(name, study, _stage_wildcards(name, wildcards))

        return of

    def raw_listing_hash(self) -> str:
        """Hash of the listing of the raw folders: new scans make the inventory run again.

        Where scans are gathered first, they are not there yet when the workflow is read: then the
        manifest of `sample` stands for them.
        """
        return "gathered" if self.study.download.packages else raw_listing_hash(self.study)

    def log_file(self, name: str) -> str:
        """Where the door writes what a stage says."""
        marks = "".join(f"-{{{key}}}" for key in STAGES[name])
        marks += "".join(f"@{{{key}}}" for key in self.outer_wildcards)
        return str(self.folder / "logs" / f"{name}{marks}.log")

    def command(self, name: str) -> str:
        """The command that runs a stage, the same as by hand; the same text for every study."""
        keys = (*self.outer_wildcards, *STAGES[name])
        words = "".join(f" {key}={{wildcards.{key}}}" for key in keys)
        on = " --on {resources.where}" if name in StageResources.model_fields else ""
        return f"python -m stages {name} --config {{input.study[0]}}{on}{words}"

    def resources(self, name: str) -> dict[str, Callable[[Mapping[str, str]], int] | int]:
        """What a stage will take, as resources: asked when a job is planned, not for the parse."""

        def of(key: str) -> Callable[[Mapping[str, str]], int]:
            return lambda wildcards: self._estimate(name, wildcards).snakemake_resources[key]

        asked = self.cluster.resources(name) if self.cluster else None
        gpus = {"gpu": asked.gpus * asked.nodes} if asked and asked.gpus else {}
        return {key: of(key) for key in ("disk_mb", "mem_mb", "runtime")} | gpus

    def _estimate(self, name: str, wildcards: Mapping[str, str]) -> StageEstimate:
        study, chosen = self._selected_study(wildcards), _stage_wildcards(name, wildcards)
        return estimate_stage(name, study, chosen, self._dataset, self.cluster)

    def _selected_study(self, wildcards: Mapping[str, str]) -> Study:
        return trial_of(self.study, wildcards["trial"]) if self.outer_wildcards else self.study

    @cached_property
    def _dataset(self) -> DatasetSize:
        return dataset_size(self.study, read_headers=False)

    def threads(self, name: str) -> int:
        """All cores for a stage that works here, one for a launcher that waits for its job."""
        return 1 if self.cluster and self.cluster.resources(name) else int(self.cores)

    def _folder_pattern(self, name: str) -> Path:
        marks = [f"{{{key}}}" for key in STAGES[name]]
        apart = (
            [TRIALS_FOLDER, *(f"{{{key}}}" for key in self.outer_wildcards)]
            if self.outer_wildcards
            else []
        )
        return self.folder.joinpath(*apart, name, *marks)


def _stage_wildcards(name: str, wildcards: Mapping[str, str]) -> dict[str, str]:
    """The wildcards that a stage knows."""
    return {key: wildcards[key] for key in STAGES[name]}
