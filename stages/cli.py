"""Command line: `python -m stages STAGE --config STUDY [task=NAME]`, or `ssl-pipeline` for short.

Exit codes: 0 done; 2 the user must change something (one sentence, no traceback); 3 interrupted and
resumable; 1 a bug (a traceback, and the path of the log). Stages and libraries know nothing of
them. A stage runs here, or with `--on` as a cluster job that is followed to its end.
"""

import argparse
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import yaml

import cluster
import stages
from cluster.config import ARRAY_STAGES
from ssl_pipeline.errors import UserError, is_disk_full, suggest_name
from ssl_pipeline.evaluation.cells import UNSHARDED, CellShard
from ssl_pipeline.export.formats import FORMATS
from ssl_pipeline.formatting import format_count
from ssl_pipeline.progress import console, enable_debug, info, log_to, print_table
from stages.commands import estimate, status
from stages.core import dispatch
from stages.core.locate import print_location, redact
from stages.core.runner import STAGES
from stages.core.study import TRIAL_STAGES, Study, load_study
from stages.core.trials import trial_of

RUN_ON_HELP = "local, a profile with a cluster.yaml such as slurm, or the path of such a file"

DISK_FULL_MESSAGE = (
    "The disk is full, or the quota used up ({}): free some (`ssl-pipeline clean` says what the "
    "study needs no more), then run the same command again, which goes on."
)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Threads that spin while they wait slow to a crawl beside other work on the same cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = _parser().parse_args(argv)
    known: list[tuple[Path, Study]] = []  # log file and study of the stage that runs
    if arguments.verbose:
        enable_debug()
    try:
        _check_installation()
        return _run(arguments, known)
    except UserError as error:
        info(f"{arguments.command}: {_redact(str(error), known)}", error=True)
        return 2
    except KeyboardInterrupt as stop:
        why = str(stop) or "interrupted"
        info(f"{arguments.command}: {why}; run the same command again to go on.", error=True)
        return 3
    except Exception as error:
        if is_disk_full(error):
            disk = getattr(error, "filename", None) or "where it writes"
            info(
                _redact(f"{arguments.command}: {DISK_FULL_MESSAGE.format(disk)}", known), error=True
            )
            return 2
        trace = _redact(traceback.format_exc(), known)
        print(trace, file=sys.stderr)
        for log, _ in known:
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "a") as file:
                file.write(trace)
            print(f"This is a bug in ssl-pipeline; its log is {log}.", file=sys.stderr)
        return 1


def _redact(text: str, studies: list[tuple[Path, Study]]) -> str:
    """The text of an error without the paths of scans."""
    for _, study in studies:
        text = redact(study, text)
    return text


def _run(arguments: argparse.Namespace, studies: list[tuple[Path, Study]]) -> int:
    """Run a command; returns its exit code where it raises no error."""
    command = arguments.command
    if command in STAGES:
        study = load_study(arguments.config)
        shard, words = _parse_shard(command, arguments.wildcards)
        study, wildcards = _parse_trial(command, words, study)
        log = study.folder / "logs" / f"{study.run_name(command, wildcards)}.log"
        studies.append((log, study))
        with log_to(log):
            return dispatch.dispatch_stage(
                command, study, wildcards, arguments.on, arguments.config, shard
            )
    if command == "config":
        _config(arguments)
    elif command == "locate":
        print_location(load_study(arguments.config), arguments.code)
    elif command == "embed":
        from stages.commands.embed import embed_folder

        embed_folder(arguments.encoder, arguments.folder, arguments.out, arguments.modality)
    elif command == "export":
        from stages.commands.export import export_encoder

        export_encoder(arguments.encoder, arguments.to, arguments.out)
    elif command == "import":
        from stages.commands.import_weights import import_weights

        import_weights(load_study(arguments.config), arguments.out)
    elif command == "status":
        print_table(status.status_table(load_study(arguments.config)))
    elif command == "estimate":
        estimate.print_estimates(load_study(arguments.config), dispatch.load_cluster(arguments.on))
    elif command == "logs":
        status.print_log(load_study(arguments.config), arguments.stage, arguments.follow)
    elif command == "clean":
        from stages.commands.clean import clean_study

        clean_study(
            load_study(arguments.config), remove_all=arguments.all, assume_yes=arguments.yes
        )
    elif command == "verify":
        from stages.commands.verify import verify_study

        verify_study(load_study(arguments.config), remove=arguments.remove)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ssl-pipeline",
        description="From raw CT and MR volumes to a domain-pretrained 3D encoder, stage by stage.",
        epilog="exit codes: 0 done, 2 change something first, 3 interrupted and resumable, 1 a bug",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="say why a stage runs, and report each item"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, wildcards in STAGES.items():
        help_text = f"run the stage {name}, skipping what is done"
        command = commands.add_parser(name, help=help_text, description=help_text)
        command.add_argument(
            "--config", type=Path, required=True, metavar="STUDY", help="YAML file"
        )
        command.add_argument(
            "--on",
            default=dispatch.LOCAL,
            metavar="WHERE",
            help=RUN_ON_HELP,
        )
        shown = " ".join(f"{wildcard}=VALUE" for wildcard in wildcards)
        shown += " [trial=VALUE]" if name in TRIAL_STAGES else ""
        shown += " [shard=N/OF]" if name in ARRAY_STAGES else ""
        command.add_argument("wildcards", nargs="*", metavar=shown or "KEY=VALUE", help="which one")
    _add_study_commands(commands)
    config = commands.add_parser("config", help="check a study, show it whole, or print its schema")
    config.add_argument("--config", type=Path, metavar="STUDY", help="YAML file")
    config.add_argument("--show", action="store_true", help="print it with every default")
    config.add_argument("--schema", action="store_true", help="print the JSON schema for editors")
    locate = commands.add_parser(
        "locate", help="print the path of a study's report, or of the scan with a code"
    )
    locate.add_argument("code", nargs="?", default="", help="of a scan or subject, for a terminal")
    locate.add_argument("--config", type=Path, required=True, metavar="STUDY", help="YAML file")
    _add_encoder_commands(commands)
    return parser


def _add_study_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands that inspect a study's stages and jobs."""
    estimates = commands.add_parser(
        "estimate", help="estimate disk, memory and time of a study before it runs"
    )
    estimates.add_argument("--on", default=dispatch.LOCAL, metavar="WHERE", help=RUN_ON_HELP)
    table = commands.add_parser("status", help="show the state of every stage, and its job")
    logs = commands.add_parser("logs", help="print the log of a stage")
    logs.add_argument("stage", metavar="STAGE", help="as `status` names it, such as pretrain")
    logs.add_argument("-f", dest="follow", action="store_true", help="follow the log as it grows")
    clean = commands.add_parser("clean", help="list what a study no longer needs, and remove it")
    clean.add_argument(
        "--all",
        action="store_true",
        help="everything it wrote, and its paths of origin; no raw scans",
    )
    clean.add_argument("--yes", action="store_true", help="remove it without asking")
    verify = commands.add_parser(
        "verify", help="check the hashes of all outputs, and name damaged files"
    )
    verify.add_argument(
        "--remove", action="store_true", help="remove damaged files, to be made again"
    )
    for command in (estimates, table, logs, clean, verify):
        command.add_argument(
            "--config", type=Path, required=True, metavar="STUDY", help="YAML file"
        )


def _add_encoder_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands that use an encoder, wherever it comes from."""
    embed = commands.add_parser("embed", help="write the features of a whole folder as Parquet")
    imported = commands.add_parser("import", help="make a bundle of the weights of init_from")
    imported.add_argument("--config", type=Path, required=True, metavar="STUDY", help="YAML file")
    imported.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="bundle to write"
    )
    formats = "; ".join(f"{name}: {what}" for name, what in FORMATS.items())
    export = commands.add_parser("export", help="write an encoder as one file for other software")
    for command in (embed, export):
        command.add_argument(
            "encoder", type=Path, help="encoder bundle, such as build/demo/pretrain/encoder"
        )
    embed.add_argument("folder", type=Path, help="folder of scans, of any depth")
    embed.add_argument("--out", type=Path, default=Path("features.parquet"), help="file to write")
    embed.add_argument("--modality", choices=("CT", "MR"), help="where the files do not say it")
    export.add_argument("--to", choices=FORMATS, required=True, help=formats)
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")


def _check_installation() -> None:
    """Both packages must come from one clone: other packages of these names exist."""
    homes = {Path(p.__file__ or "").resolve().parent.parent for p in (cluster, stages)}
    if len(homes) != 1:
        found = " and ".join(str(home) for home in sorted(homes))
        raise UserError(f"`stages` and `cluster` come from different places, {found}: reinstall.")


def _parse_trial(name: str, words: list[str], study: Study) -> tuple[Study, dict[str, str]]:
    """The study, or a trial of it, and a stage's wildcards, from words such as `task=organ`."""
    trial = [word for word in words if word.startswith("trial=")]
    if trial and name in TRIAL_STAGES:
        study = trial_of(study, trial[-1].removeprefix("trial="))
        words = [word for word in words if word not in trial]
        if name == "pretrain" and not study.has_pretraining:
            raise UserError(f"{study.trial} trains nothing: it evaluates random weights.")
    return study, _parse_wildcards(name, words, study)


def _parse_shard(name: str, words: list[str]) -> tuple[CellShard, list[str]]:
    """The shard of a stage's cells that `shard=2/8` asks for, all without it; the other words."""
    found = [word.removeprefix("shard=") for word in words if word.startswith("shard=")]
    if not found or name not in ARRAY_STAGES:
        return UNSHARDED, words
    number, _, of = found[-1].partition("/")
    if not (number.isdigit() and of.isdigit() and 0 < int(number) <= int(of)):
        raise UserError(f"shard={found[-1]} is no shard: write shard=2/8 for the second of eight.")
    rest = [word for word in words if not word.startswith("shard=")]
    return CellShard(int(number), int(of)), rest


def _parse_wildcards(name: str, words: list[str], study: Study) -> dict[str, str]:
    pairs = dict(word.split("=", 1) for word in words if "=" in word)
    wrong = [word for word in words if "=" not in word] + sorted(set(pairs) - set(STAGES[name]))
    if wrong:
        raise UserError(f"{name} does not take {wrong[0]}: {_usage(name)}.")
    if set(pairs) != set(STAGES[name]):
        raise UserError(f"{name} needs to know which one: {_usage(name)}.")
    if "task" in pairs and pairs["task"] not in study.tasks:
        raise UserError(
            f"The study has no task {pairs['task']}: {suggest_name(pairs['task'], study.tasks)}"
        )
    return pairs


def _usage(name: str) -> str:
    words = ", ".join(f"{w}=NAME" for w in STAGES[name]) or "it takes no further words"
    return f"{words}; trial=NAME too for one of an ablation" if name in TRIAL_STAGES else words


def _config(arguments: argparse.Namespace) -> None:
    if arguments.schema:
        print(json.dumps(Study.model_json_schema(), indent=1))
        return
    if arguments.config is None:
        raise UserError("Which study? Name it with --config workflows/studies/demo.yaml.")
    study = load_study(arguments.config)
    if arguments.show:
        print(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False), end="")
    else:
        tasks = format_count(len(study.tasks), "task")
        console.print(f"{arguments.config} is valid: {study.name}, {tasks}.", soft_wrap=True)
