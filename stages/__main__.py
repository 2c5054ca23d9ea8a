"""The one door: `python -m stages STAGE --config STUDY [task=NAME]`, or `ssl-pipeline` for short.

Exit codes: 0 done; 2 the user must change something (one sentence, no traceback); 3 interrupted and
resumable; 1 a bug (a traceback, and the path of the log). Stages and libraries know nothing of
them. A stage runs here, or with `--on` as a job of a cluster that is followed to its end.
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
from cluster.config import ARRAYS
from ssl_pipeline.errors import UserError, nearest, no_room
from ssl_pipeline.evaluation.cells import WHOLE, Share
from ssl_pipeline.export.formats import FORMATS
from ssl_pipeline.progress import console, log_to, say, show_details, show_whole
from ssl_pipeline.report.numerals import count
from stages import estimate, place, status, where
from stages.contract import STAGES
from stages.study import BY_TRIAL, Study, load
from stages.trials import trial_of

WHERE = "local, a profile with a cluster.yaml such as slurm, or the path of such a file"

FULL_DISK = (
    "The disk is full, or the quota used up ({}): free some (`ssl-pipeline clean` says what the "
    "study needs no more), then run the same command again, which goes on."
)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Threads that spin while they wait slow to a crawl beside other work on the same cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = _parser().parse_args(argv)
    known: list[tuple[Path, Study]] = []  # where a stage logs, and the study that it reads
    if arguments.verbose:
        show_details()
    try:
        _check_house()
        return _run(arguments, known)
    except UserError as error:
        say(f"{arguments.command}: {_concealed(str(error), known)}", error=True)
        return 2
    except KeyboardInterrupt as stop:
        why = str(stop) or "interrupted"
        say(f"{arguments.command}: {why}; run the same command again to go on.", error=True)
        return 3
    except Exception as error:
        if no_room(error):
            disk = getattr(error, "filename", None) or "where it writes"
            say(_concealed(f"{arguments.command}: {FULL_DISK.format(disk)}", known), error=True)
            return 2
        trace = _concealed(traceback.format_exc(), known)
        print(trace, file=sys.stderr)
        for log, _ in known:
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "a") as file:
                file.write(trace)
            print(f"This is a bug in ssl-pipeline; its log is {log}.", file=sys.stderr)
        return 1


def _concealed(text: str, known: list[tuple[Path, Study]]) -> str:
    """What an error says, without the paths of scans."""
    for _, study in known:
        text = where.concealed(study, text)
    return text


def _run(arguments: argparse.Namespace, known: list[tuple[Path, Study]]) -> int:
    """Do what a command is for; its exit code where that is no error. Raises anything."""
    command = arguments.command
    if command in STAGES:
        study = load(arguments.config)
        share, words = _share(command, arguments.wildcards)
        study, wildcards = _which(command, words, study)
        log = study.folder / "logs" / f"{study.called(command, wildcards)}.log"
        known.append((log, study))
        with log_to(log):
            return place.run(command, study, wildcards, arguments.on, arguments.config, share)
    if command == "config":
        _config(arguments)
    elif command == "where":
        where.show(load(arguments.config), arguments.code)
    elif command == "embed":
        from stages.embed import embed_folder

        embed_folder(arguments.encoder, arguments.folder, arguments.out, arguments.modality)
    elif command == "export":
        from stages.export import export

        export(arguments.encoder, arguments.to, arguments.out)
    elif command == "adopt":
        from stages.adopt import adopt

        adopt(load(arguments.config), arguments.out)
    elif command == "status":
        show_whole(status.table(load(arguments.config)))
    elif command == "estimate":
        estimate.show(load(arguments.config), place.cluster_at(arguments.on))
    elif command == "logs":
        status.show_log(load(arguments.config), arguments.stage, arguments.follow)
    elif command == "clean":
        from stages.clean import clean

        clean(load(arguments.config), everything=arguments.all, agreed=arguments.yes)
    elif command == "verify":
        from stages.verify import verify

        verify(load(arguments.config), remove=arguments.remove)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ssl-pipeline",
        description="From raw CT and MR volumes to a domain-pretrained 3D encoder, stage by stage.",
        epilog="exit codes: 0 done, 2 change something first, 3 interrupted and resumable, 1 a bug",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say why, and of each item")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, wildcards in STAGES.items():
        help_text = f"run the stage {name}, skipping what is done"
        command = commands.add_parser(name, help=help_text, description=help_text)
        command.add_argument(
            "--config", type=Path, required=True, metavar="STUDY", help="YAML file"
        )
        command.add_argument(
            "--on",
            default=place.HERE,
            metavar="WHERE",
            help=WHERE,
        )
        shown = " ".join(f"{wildcard}=VALUE" for wildcard in wildcards)
        shown += " [trial=VALUE]" if name in BY_TRIAL else ""
        shown += " [share=N/OF]" if name in ARRAYS else ""
        command.add_argument("wildcards", nargs="*", metavar=shown or "KEY=VALUE", help="which one")
    _add_looking(commands)
    config = commands.add_parser("config", help="check a study, show it whole, or print its schema")
    config.add_argument("--config", type=Path, metavar="STUDY", help="YAML file")
    config.add_argument("--show", action="store_true", help="print it with every default")
    config.add_argument("--schema", action="store_true", help="print the JSON schema for editors")
    where = commands.add_parser(
        "where", help="print where a study's report is, or where the scan of a code lies"
    )
    where.add_argument("code", nargs="?", default="", help="of a scan or subject, for a terminal")
    where.add_argument("--config", type=Path, required=True, metavar="STUDY", help="YAML file")
    _add_using(commands)
    return parser


def _add_looking(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The commands that look at a study's stages and jobs, before, during and after them."""
    need = commands.add_parser("estimate", help="say what a study will take, before it is run")
    need.add_argument("--on", default=place.HERE, metavar="WHERE", help=WHERE)
    table = commands.add_parser("status", help="show how far every stage is, and its job")
    logs = commands.add_parser("logs", help="print what a stage says")
    logs.add_argument("stage", metavar="STAGE", help="as `status` names it, such as pretrain")
    logs.add_argument("-f", dest="follow", action="store_true", help="go on as it says more")
    clean = commands.add_parser("clean", help="say what a study no longer needs, and remove it")
    clean.add_argument(
        "--all", action="store_true", help="all that it made, and its paths of origin; no raw scans"
    )
    clean.add_argument("--yes", action="store_true", help="remove it without asking")
    verify = commands.add_parser("verify", help="check what stages made, and name damage")
    verify.add_argument("--remove", action="store_true", help="remove it, to be made again")
    for command in (need, table, logs, clean, verify):
        command.add_argument(
            "--config", type=Path, required=True, metavar="STUDY", help="YAML file"
        )


def _add_using(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The commands that use an encoder, wherever it comes from."""
    embed = commands.add_parser("embed", help="write the features of a whole folder as Parquet")
    adopt = commands.add_parser("adopt", help="make a bundle of the weights of init_from, to judge")
    adopt.add_argument("--config", type=Path, required=True, metavar="STUDY", help="YAML file")
    adopt.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="bundle to write")
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


def _check_house() -> None:
    """Both packages must come from one clone: other packages of these names exist."""
    homes = {Path(p.__file__ or "").resolve().parent.parent for p in (cluster, stages)}
    if len(homes) != 1:
        found = " and ".join(str(home) for home in sorted(homes))
        raise UserError(f"`stages` and `cluster` come from different places, {found}: reinstall.")


def _which(name: str, given: list[str], study: Study) -> tuple[Study, dict[str, str]]:
    """The study, or a trial of it, and a stage's wildcards, from words such as `task=organ`."""
    trial = [word for word in given if word.startswith("trial=")]
    if trial and name in BY_TRIAL:
        study = trial_of(study, trial[-1].removeprefix("trial="))
        given = [word for word in given if word not in trial]
        if name == "pretrain" and not study.pretrains:
            raise UserError(f"{study.trial} trains nothing: it judges random weights.")
    return study, _wildcards(name, given, study)


def _share(name: str, given: list[str]) -> tuple[Share, list[str]]:
    """The share of a stage's cells that `share=2/8` asks for, all without it; the other words."""
    found = [word.removeprefix("share=") for word in given if word.startswith("share=")]
    if not found or name not in ARRAYS:
        return WHOLE, given
    number, _, of = found[-1].partition("/")
    if not (number.isdigit() and of.isdigit() and 0 < int(number) <= int(of)):
        raise UserError(f"share={found[-1]} is no share: write share=2/8 for the second of eight.")
    rest = [word for word in given if not word.startswith("share=")]
    return Share(int(number), int(of)), rest


def _wildcards(name: str, given: list[str], study: Study) -> dict[str, str]:
    pairs = dict(word.split("=", 1) for word in given if "=" in word)
    wrong = [word for word in given if "=" not in word] + sorted(set(pairs) - set(STAGES[name]))
    if wrong:
        raise UserError(f"{wrong[0]} is nothing that {name} takes: {_takes(name)}.")
    if set(pairs) != set(STAGES[name]):
        raise UserError(f"{name} needs to know which one: {_takes(name)}.")
    if "task" in pairs and pairs["task"] not in study.tasks:
        raise UserError(
            f"The study has no task {pairs['task']}: {nearest(pairs['task'], study.tasks)}"
        )
    return pairs


def _takes(name: str) -> str:
    words = ", ".join(f"{w}=NAME" for w in STAGES[name]) or "it takes no further words"
    return f"{words}; trial=NAME too where it is one of an ablation" if name in BY_TRIAL else words


def _config(arguments: argparse.Namespace) -> None:
    if arguments.schema:
        print(json.dumps(Study.model_json_schema(), indent=1))
        return
    if arguments.config is None:
        raise UserError("Which study? Name it with --config workflows/studies/demo.yaml.")
    study = load(arguments.config)
    if arguments.show:
        print(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False), end="")
    else:
        tasks = count(len(study.tasks), "task")
        console.print(f"{arguments.config} is valid: {study.name}, {tasks}.", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
