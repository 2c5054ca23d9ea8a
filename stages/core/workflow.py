"""Adapter between the Snakefile and a study: paths, parameters and commands of the rules.

A rule holds no logic. It declares two small files and no folder, for Snakemake deletes the declared
outputs of a failed rule. Its `params` hold the hash of its stage's version and of the settings that
it reads: changing one of them reruns the rule, and a new title reruns nothing.
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

from cluster.slurm import drop_outer_variables
from ssl_pipeline.errors import UserError
from ssl_pipeline.export import training_subjects
from ssl_pipeline.export.manifest import BUNDLE_MANIFEST, WEIGHTS_FILE
from ssl_pipeline.provenance import PROVENANCE_FILE
from stages.commands.estimate import StageEstimate, estimate_stage
from stages.core.dispatch import LOCAL, load_cluster
from stages.core.layout import MANIFEST, TRIALS_FOLDER, log_file
from stages.core.records import is_stale, remove_stale_manifests, stage_config_hash
from stages.core.resources import DatasetSize, dataset_size
from stages.core.stage import load_stage, may_be_job
from stages.core.stage_runs import evaluation_runs, runs_of_trial
from stages.core.study import Study
from stages.core.study_file import load_study
from stages.core.trials import planned_trial, trial_of, trials
from stages.inventory import decisions_hash, raw_listing_hash

DEMO = "workflows/studies/demo.yaml"
STAGES_FOLDER = Path(__file__).resolve().parent.parent


class Workflow:
    """What the Snakefile needs of a study. `config` is Snakemake's and names the study alone.

    `workflow` is Snakemake's too: `run_on` of the profile's `default-resources` says where heavy
    stages run; --config and --configfile replace what a profile has under `config`, not these.
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
        chosen = (workflow.resource_settings.default_resources or {}).get("run_on")
        self.run_on = str(chosen.raw).strip("'\"") if chosen else LOCAL
        try:
            self.study = load_study(self.path)
            self.cluster = load_cluster(self.run_on)
        except UserError as error:
            raise WorkflowError(str(error)) from None
        if self.cluster:
            drop_outer_variables()  # what Snakemake starts does not belong to an outer job either
        self.folder = self.study.folder
        self.outer_wildcards: tuple[str, ...] = ()  # wildcards before those of a stage
        remove_stale_manifests(self.study)

    @property
    def trial(self) -> "Workflow":
        """The same for the rules of trials, whose first wildcard is the trial."""
        other = copy(self)
        other.outer_wildcards = ("trial",)
        return other

    def outputs(self, name: str) -> dict[str, str]:
        """The two files that the rule of a stage declares."""
        folder = self._folder_pattern(name)
        return {"manifest": str(folder / MANIFEST), "provenance": str(folder / PROVENANCE_FILE)}

    def manifest(self, name: str, **wildcards: str) -> str:
        """The manifest of a stage: the input of the rules after it."""
        return str(self.study.stage_folder(name, wildcards) / MANIFEST)

    def manifest_pattern(self, name: str) -> str:
        """The manifest for any wildcards of a stage, which the rule after it shares."""
        return str(self._folder_pattern(name) / MANIFEST)

    def encoder_of_trial(self, wildcards: Mapping[str, str]) -> list[str]:
        """Inputs of the evaluations of a trial: the manifest of its pretraining, if it has any."""
        trial = trial_of(self.study, wildcards["trial"])
        out = trial.stage_folder("pretrain", {})
        return [str(out / MANIFEST)] if trial.has_pretraining else []

    def trial_manifests(self) -> list[str]:
        """The manifests of all runs of an ablation's trials; none where there is no ablation."""
        runs = (run for trial in trials(self.study) for run in runs_of_trial(trial))
        return [str(run.out / MANIFEST) for run in runs]

    def encoder_inputs(self) -> list[str]:
        """Inputs of evaluations: the manifest of pretraining, and external encoders."""
        own = [self.manifest("pretrain")] if self.study.has_pretraining else []
        for bundle in self.study.external_encoders.values():
            subjects = bundle / training_subjects.FILE_NAME
            own += [str(bundle / name) for name in (WEIGHTS_FILE, BUNDLE_MANIFEST)]
            own += [str(subjects)] if subjects.exists() else []
        return own

    def init_weights(self) -> list[str]:
        """The files of the weights that pretraining starts from, if the study names some."""
        start = self.study.init_from
        return [str(file) for file in start.files if file.exists()] if start else []

    def study_file(self, name: str) -> Callable[[Mapping[str, str]], list[str]]:
        """The study's file and the stage's, whose dates count only where a stage is out of date.

        Snakemake has no record of the parameters of a stage that was run by hand; there the stage's
        own record shows whether a setting that it reads, or its version, has changed.
        """

        def of(wildcards: Mapping[str, str]) -> list[str]:
            files = [os.path.normpath(self.path), os.path.relpath(STAGES_FOLDER / f"{name}.py")]
            study, chosen = self._selected_study(wildcards), _stage_wildcards(name, wildcards)
            return files if is_stale(study, name, chosen) else [ancient(file) for file in files]

        return of

    def evaluation_manifests(self) -> list[str]:
        """The manifests of all evaluations of all tasks."""
        return [str(run.out / MANIFEST) for run in evaluation_runs(self.study)]

    def config_hash(self, name: str) -> Callable[[Mapping[str, str]], str] | str:
        """Hash of a stage's version and of the settings it reads; a function of wildcards if any.

        The steps of a trial, unknown before the stage `flop_budget` has run, are not part of it.
        """
        if not (self.outer_wildcards or load_stage(name).WILDCARDS):
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

        Where scans are downloaded first, they are not there yet when the workflow is read: then the
        manifest of `download` stands for them.
        """
        return "downloaded" if self.study.download.packages else raw_listing_hash(self.study)

    def decisions_hash(self) -> str:
        """Hash of the reviewers' decisions: a new one makes the inventory run again."""
        return decisions_hash(self.study)

    def log_file(self, name: str) -> str:
        """The log file of a stage."""
        marks = "".join(f"-{{{key}}}" for key in load_stage(name).WILDCARDS)
        marks += "".join(f"@{{{key}}}" for key in self.outer_wildcards)
        return str(log_file(self.study, f"{name}{marks}"))

    def command(self, name: str) -> str:
        """The command that runs a stage, as by hand; the same for every study and trial."""
        on = " --on {resources.run_on}" if may_be_job(load_stage(name)) else ""
        which = " {params.which}" if self.which(name) else ""
        return f"python -m stages {name} --config {{input.study[0]}}{on}{which}"

    def which(self, name: str) -> str:
        """The words of the command that say which run of a stage it is, such as `task=organ`."""
        keys = (*self.outer_wildcards, *load_stage(name).WILDCARDS)
        return " ".join(f"{key}={{{key}}}" for key in keys)

    def resources(self, name: str) -> dict[str, Callable[[Mapping[str, str]], int] | int]:
        """Estimated resources of a stage, computed when a job is planned and not at parse time."""

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
        """Threads of a rule: all cores for a stage that runs here, one for a launcher of a job."""
        return 1 if self.cluster and self.cluster.resources(name) else int(self.cores)

    def _folder_pattern(self, name: str) -> Path:
        marks = [f"{{{key}}}" for key in load_stage(name).WILDCARDS]
        apart = (
            [TRIALS_FOLDER, *(f"{{{key}}}" for key in self.outer_wildcards)]
            if self.outer_wildcards
            else []
        )
        return self.folder.joinpath(*apart, name, *marks)


def _stage_wildcards(name: str, wildcards: Mapping[str, str]) -> dict[str, str]:
    """The wildcards of a stage, out of those of its rule."""
    return {key: wildcards[key] for key in load_stage(name).WILDCARDS}
