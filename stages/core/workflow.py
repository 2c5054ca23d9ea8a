"""Adapter between the Snakefile and a study: paths, parameters and commands of the rules.

A rule holds no logic. It declares two small files and no folder, for Snakemake deletes the declared
outputs of a failed rule. Its `params` hold the hash of its stage's version, of the settings that it
reads and of files from outside of the study: changing one of them reruns the rule, and a new title
reruns nothing. Its inputs are manifests of earlier stages alone: files of a user, which may be
replaced by older ones or come from a machine whose clock is ahead, count by content.
"""

import os
import sys
from collections.abc import Callable, Mapping
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from cluster.slurm import drop_outer_variables
from ssl_pipeline.errors import UserError, access_error_sentence
from ssl_pipeline.evaluation.config import Ablate, Scaling
from ssl_pipeline.export.manifest import WEIGHTS_FILE
from ssl_pipeline.provenance import PROVENANCE_FILE
from ssl_pipeline.volumes.config import resolve_path
from stages.commands.estimate import StageEstimate, estimate_stage
from stages.core.dispatch import LOCAL, load_cluster
from stages.core.layout import MANIFEST, TRIALS_FOLDER, log_file, report_page
from stages.core.manifests import refresh_manifests
from stages.core.records import stage_config_hash
from stages.core.resources import DatasetSize, dataset_size
from stages.core.stage import load_stage, may_be_job
from stages.core.stage_runs import evaluation_runs, runs_of_trial
from stages.core.study import INIT_FROM, Study
from stages.core.study_file import complete_study, load_study
from stages.core.trials import is_ablation_arm, planned_trial, trial_of, trials
from stages.inventory import raw_listing_hash
from stages.returned_labels import returned_labels_hash
from stages.reviewed import readers_decisions, review_log_hash

DEMO = "workflows/studies/demo.yaml"
Found = TypeVar("Found")


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
        self.path = _study_path(config)
        self.cores = workflow.cores
        chosen = (workflow.resource_settings.default_resources or {}).get("run_on")
        self.run_on = str(chosen.raw).strip("'\"") if chosen else LOCAL
        try:
            # A plan that is made meanwhile is no change of what the user has written.
            self._study_as_written = load_study(self.path, as_written=True)
            self.study = complete_study(self._study_as_written, self.path)
            self.cluster = load_cluster(self.run_on)
            self.folder = self.study.folder
            refresh_manifests(self.study)
        except UserError as error:
            raise WorkflowError(str(error)) from None
        except OSError as error:
            raise WorkflowError(access_error_sentence(error) or str(error)) from None
        if self.cluster:
            drop_outer_variables()  # what Snakemake starts does not belong to an outer job either
        _put_own_python_first()
        self.outer_wildcards: tuple[str, ...] = ()  # wildcards before those of a stage

    @property
    def wildcard_patterns(self) -> dict[str, str]:
        """What wildcards may be: the study's tasks and trials, so that no rule makes another."""
        names = {"task": self.study.tasks, "trial": [each.trial for each in trials(self.study)]}
        # Names are letters, digits, _ and -; of none a pattern that nothing matches.
        return {key: "|".join(each) or "(?!)" for key, each in names.items()}

    def print_report_location(self) -> None:
        """Say where the report is, at the end of a run for whatever target."""
        page = report_page(self.study)
        logger.info(
            f"The report is {page}."
            if page.exists()
            else f"There is no report yet: snakemake without a target makes {page}."
        )

    def print_remedy(self) -> None:
        """Say at the end of a run that failed or was interrupted where its reason is."""
        logger.info(
            "A stage stopped: its own sentence, above Snakemake's exceptions and at the end of its "
            "log, says why. The same command then goes on."
        )

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

    def budget_of_trial(self, wildcards: Mapping[str, str]) -> list[str]:
        """What the steps of a trial come from: for an ablation the manifest of `flop_budget`."""
        arm = wildcards["trial"].rpartition("-")[0]
        return [self.manifest("flop_budget")] if is_ablation_arm(self.study, arm) else []

    def trial_manifests(self, section: Ablate | Scaling | None) -> list[str]:
        """The manifests of all runs of the trials of a section; none where there is no section."""
        names = section.trials if section else []
        runs = (run for name in names for run in runs_of_trial(trial_of(self.study, name)))
        return [str(run.out / MANIFEST) for run in runs]

    def finished_scaling(self) -> list[str]:
        """The manifest of `scaling`, once it is there: the report shows it, and asks for none."""
        manifest = self.manifest("scaling")
        return [manifest] if self.study.scaling and Path(manifest).exists() else []

    def encoder_manifest(self) -> list[str]:
        """The manifest of pretraining, where the study evaluates an encoder of its own."""
        return [self.manifest("pretrain")] if self.study.has_pretraining else []

    def external_encoders_hash(self) -> dict[str, str]:
        """Content of the encoders that the study does not train itself, by their names.

        Raises WorkflowError where one is not there: the stages before would run in vain.
        """
        for name, bundle in self.study.external_encoders.items():
            if not (bundle / WEIGHTS_FILE).is_file():
                title = self.study.encoder_title(name)
                raise WorkflowError(
                    f"{title} is {bundle}, where no {WEIGHTS_FILE} is: correct the path, or "
                    "restore the bundle."
                )
        keys = [f"encoder {name}" for name in self.study.external_encoders]
        return {key: self._external[key] for key in keys}

    def features_hash(self) -> dict[str, str]:
        """Content of the features that other encoders made, by name.

        Raises WorkflowError where a file is not there: the stages before would run in vain.
        """
        for name, path in self.study.evaluate.features.items():
            if not resolve_path(path).is_file():
                raise WorkflowError(
                    f"evaluate.features.{name} is {path}, where no file is: correct the path."
                )
        keys = [f"features {name}" for name in self.study.evaluate.features]
        return {key: self._external[key] for key in keys}

    def init_weights_hash(self) -> str:
        """Content of the weights that pretraining starts from; empty where they are random."""
        return self._external.get(INIT_FROM, "")

    def evaluation_manifests(self) -> list[str]:
        """The manifests of all evaluations of all tasks."""
        return [str(run.out / MANIFEST) for run in evaluation_runs(self.study)]

    def promotion_manifest(self) -> list[str]:
        """The manifest of `promote`, where the study promotes its encoder."""
        return [self.manifest("promote")] if self.study.promote else []

    def config_hash(self, name: str) -> Callable[[Mapping[str, str]], str] | str:
        """Hash of a stage's version and of the settings it reads; a function of wildcards if any.

        The steps of a trial, unknown before the stage `flop_budget` has run, are not part of it.
        """
        if not (self.outer_wildcards or load_stage(name).WILDCARDS):
            return stage_config_hash(name, self._study_as_written, {})

        def of(wildcards: Mapping[str, str]) -> str:
            study = self._study_as_written
            if self.outer_wildcards:
                study = planned_trial(study, wildcards["trial"])
            return stage_config_hash(name, study, _stage_wildcards(name, wildcards))

        return of

    def raw_listing_hash(self) -> str:
        """Hash of the listing of the raw folders: new scans make the inventory run again.

        Where scans are downloaded first, they are not there yet when the workflow is read: then the
        manifest of `download` stands for them.
        """
        return "downloaded" if self.study.download.packages else raw_listing_hash(self.study)

    def decisions_hash(self) -> str:
        """Hash of the readers' decisions: a new one makes the inventory run again.

        Raises WorkflowError where their log is not as it was written.
        """
        return _checked(readers_decisions, self.study).fingerprint

    def returned_labels_hash(self) -> str:
        """Hash of the labels that came back: a new one makes the inventory run again.

        Raises WorkflowError where it is not known what one is for.
        """
        return _checked(returned_labels_hash, self.study)

    def review_log_hash(self) -> str:
        """Hash of all answers of readers; empty where the study asks for none.

        Raises WorkflowError as `decisions_hash` does.
        """
        return _checked(review_log_hash, self.study) if self.study.review else ""

    def review_manifest(self) -> list[str]:
        """The manifest of `reviewed`, where the study asks for a review."""
        return [self.manifest("reviewed")] if self.study.review else []

    def log_file(self, name: str) -> str:
        """The log file of a stage."""
        marks = "".join(f"-{{{key}}}" for key in load_stage(name).WILDCARDS)
        marks += "".join(f"@{{{key}}}" for key in self.outer_wildcards)
        return str(log_file(self.study, f"{name}{marks}"))

    def command(self, name: str) -> str:
        """The command that runs a stage, as by hand; the same for every study and trial.

        Every value that it is filled with is quoted for the shell. A rule of trials inherits the
        command, so it always ends in the words of the run, of which there may be none.
        """
        on = " --on {resources.run_on:q}" if may_be_job(load_stage(name)) else ""
        return f"python -m stages {name} --config {{resources.study:q}}{on} {{params.which:q}}"

    def which(self, name: str) -> list[str]:
        """The words of the command that say which run of a stage it is, such as `task=organ`."""
        keys = (*self.outer_wildcards, *load_stage(name).WILDCARDS)
        return [f"{key}={{{key}}}" for key in keys]

    def resources(self, name: str) -> dict[str, Callable[[Mapping[str, str]], int | str] | int]:
        """Estimated resources of a stage, computed when a job is planned and not at parse time.

        The study's path is among them, for what is no input or parameter reruns nothing where the
        study is moved.
        """

        def of(key: str) -> Callable[[Mapping[str, str]], int]:
            return lambda wildcards: self._estimate(name, wildcards).snakemake_resources[key]

        asked = self.cluster.resources(name) if self.cluster else None
        gpus = {"gpu": asked.gpus * asked.nodes} if asked and asked.gpus else {}
        estimated = {key: of(key) for key in ("disk_mb", "mem_mb", "runtime")}
        return {"study": lambda wildcards: str(self.path), **estimated, **gpus}

    def _estimate(self, name: str, wildcards: Mapping[str, str]) -> StageEstimate:
        study, chosen = self._selected_study(wildcards), _stage_wildcards(name, wildcards)
        return estimate_stage(name, study, chosen, self._dataset, self.cluster)

    def _selected_study(self, wildcards: Mapping[str, str]) -> Study:
        return trial_of(self.study, wildcards["trial"]) if self.outer_wildcards else self.study

    @cached_property
    def _external(self) -> dict[str, str]:
        return self.study.external_hashes

    @cached_property
    def _dataset(self) -> DatasetSize:
        return dataset_size(self.study)

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


def _checked(read: Callable[[Study], Found], study: Study) -> Found:
    try:
        return read(study)
    except UserError as error:
        raise WorkflowError(str(error)) from None


def _stage_wildcards(name: str, wildcards: Mapping[str, str]) -> dict[str, str]:
    """The wildcards of a stage, out of those of its rule."""
    return {key: wildcards[key] for key in load_stage(name).WILDCARDS}


def _study_path(config: Mapping[str, Any]) -> Path:
    """The path that --config names. Raises WorkflowError for what Snakemake took for no text."""
    found = config.get("study", DEMO)
    if not isinstance(found, str):
        raise WorkflowError(f"--config study={found} names no file: write it as ./NAME.yaml.")
    return Path(found)


def _put_own_python_first() -> None:
    """Have the rules' `python` be this one, where its environment has not been activated."""
    own = str(Path(sys.executable).parent)
    others = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join([own, *(p for p in others if p not in ("", own))])
