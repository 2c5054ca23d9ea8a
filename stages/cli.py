"""Command line: `python -m stages STAGE --config STUDY [task=NAME]`, or `ssl-pipeline` for short.

Each command is one function: its parameters are the options, its docstring is the help. A stage
runs here, or with `--on` as a cluster job that is followed to its end. What only one command needs
is imported when it runs. Exit codes are those of stages/core/process.py.
"""

from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from cyclopts import App, Group, Parameter
from cyclopts.exceptions import CycloptsError

from ssl_pipeline.export.formats import FORMATS
from ssl_pipeline.progress import enable_debug, info, print_table
from ssl_pipeline.review.next_labels import TITLES as STRATEGIES
from stages.cli_options import ENCODER_GROUP, EXAMPLE_STUDY, INSPECT_GROUP, StudyFile
from stages.core.dispatch import LOCAL, dispatch_stage, load_cluster
from stages.core.process import USER_EXIT, run_process
from stages.core.stage import STAGES, load_stage
from stages.core.stage_request import optional_keys, parse_request, stage_usage, stage_wildcards
from stages.core.study_file import load_study
from stages.registry_cli import registry_app
from stages.review_cli import review_app

STAGE_GROUP = Group("Stages", sort_key=1)
EXAMPLE_VALUES = {"task": "organ", "trial": "hybrid-0", "shard": "2/8"}
EXAMPLE_BUNDLE = "build/demo/pretrain/encoder"
EXAMPLE_MODEL = "build/demo/finetune/organs/model"
FEATURES_FILE = Path("features.parquet")

Command = TypeVar("Command", bound=Callable[..., Any])
RunOn = Annotated[
    str,
    Parameter(
        metavar="WHERE",
        help="local, a profile with a cluster.yaml such as slurm, or the path of such a file",
    ),
]
Bundle = Annotated[Path, Parameter(help=f"encoder bundle, such as {EXAMPLE_BUNDLE}")]
STRATEGIES_HELP = "; ".join(f"{name}: {what}" for name, what in STRATEGIES.items())
FORMATS_HELP = "; ".join(f"{name}: {what}" for name, what in FORMATS.items())

app = App(
    "ssl-pipeline",
    help="From raw CT and MR volumes to a domain-pretrained 3D encoder, stage by stage.",
    help_format="plaintext",
    help_epilogue="Exit codes: 0 done; 1 a bug; 2 change something; 3 interrupted, or "
    "readers must answer: run it again; 4 an update is due (drift).",
    version=lambda: metadata.version("ssl-pipeline"),
    suppress_keyboard_interrupt=False,
)
app.register_install_completion_command(group=Group("Shell", sort_key=4))
app.meta.group_parameters = Group("Options of all commands", sort_key=5)


def _flag(help_text: str, *names: str) -> Parameter:
    """A switch that is off by default."""
    return Parameter(names or None, help=help_text, negative="", show_default=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        code = app.meta(argv, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        command = " ".join(["ssl-pipeline", *(error.command_chain or ())])
        info(f"{command}: {error} See `{command} --help`.", error=True)
        return USER_EXIT
    return code or 0  # help returns nothing


@app.meta.default
def _run_command(
    *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    verbose: Annotated[
        bool, _flag("give the reason of each run, and report each item", "--verbose", "-v")
    ] = False,
) -> int:
    """Parse the words of a command, and run it with errors as exit codes."""
    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    if verbose:
        enable_debug()
    name = " ".join(app.parse_commands(words)[0])
    return run_process(name, lambda: command(*bound.args, **bound.kwargs) or 0)


def _examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def _add_stage(name: str) -> None:
    """Add the command of a stage."""
    required, optional = stage_wildcards(name), optional_keys(name)
    command = f"python -m stages {name} --config {EXAMPLE_STUDY}"
    words = "".join(f" {key}={EXAMPLE_VALUES[key]}" for key in required)
    more = (f"{command}{words} {key}={EXAMPLE_VALUES[key]}" for key in optional)
    shown = bool(required or optional)

    def run(
        *words: Annotated[str, Parameter(name="KEY=VALUE", help=stage_usage(name), show=shown)],
        config: StudyFile,
        on: RunOn = LOCAL,
    ) -> int:
        return dispatch_stage(parse_request(name, config, words), on)

    app.command(
        run,
        name=name,
        group=STAGE_GROUP,
        help=f"{load_stage(name).TITLE}.",
        help_epilogue=_examples(command + words, *more),
        sort_key=STAGES.index(name),
    )


for _name in STAGES:
    _add_stage(_name)


def _command(group: Group, example: str, name: str = "") -> Callable[[Command], Command]:
    """Add a function as a command, with an example of its use."""
    return app.command(
        name=name or None, group=group, help_epilogue=_examples(f"ssl-pipeline {example}")
    )


@_command(INSPECT_GROUP, f"config --config {EXAMPLE_STUDY} --show")
def config(
    *,
    config: Annotated[Path | None, Parameter(metavar="STUDY", help="YAML file")] = None,
    show: Annotated[bool, _flag("print it with every default")] = False,
    schema: Annotated[bool, _flag("print the JSON schema for editors")] = False,
) -> None:
    """Check a study, print it with every default, or print the schema of studies."""
    from stages.commands.config import print_config

    print_config(config, show=show, schema=schema)


@_command(INSPECT_GROUP, f"estimate --config {EXAMPLE_STUDY} --on slurm")
def estimate(
    *,
    config: StudyFile,
    on: RunOn = LOCAL,
    hours: Annotated[
        float | None, Parameter(help="print the settings that fit into so many hours instead")
    ] = None,
) -> None:
    """Estimate disk, memory and time of every stage of a study before it runs."""
    from stages.commands.estimate import print_estimates
    from stages.commands.propose import print_proposal

    if hours is None:
        print_estimates(load_study(config), load_cluster(on))
    else:
        print_proposal(load_study(config, as_written=True), load_cluster(on), hours)


@_command(INSPECT_GROUP, f"calibrate --config {EXAMPLE_STUDY} --on slurm")
def calibrate(
    *,
    config: StudyFile,
    on: RunOn = LOCAL,
    seconds: Annotated[float, Parameter(help="that it may take, about")] = 120.0,
) -> None:
    """Measure pretraining where it will run, for `estimate`, and check that hardware."""
    from stages.commands.calibrate import calibrate as measure

    measure(config, on, seconds)


@_command(INSPECT_GROUP, f"status --config {EXAMPLE_STUDY}")
def status(*, config: StudyFile) -> None:
    """Show the state of every stage of a study, its progress, and its job."""
    from stages.commands.status import status_table

    print_table(status_table(load_study(config)))


@_command(INSPECT_GROUP, f"logs pretrain -f --config {EXAMPLE_STUDY}")
def logs(
    stage: Annotated[str, Parameter(help="as `status` names it, such as pretrain or probe-organ")],
    /,
    *,
    config: StudyFile,
    follow: Annotated[bool, _flag("go on as the log grows", "--follow", "-f")] = False,
) -> None:
    """Print the log of a stage."""
    from stages.commands.status import print_log

    print_log(load_study(config), stage, follow)


@_command(INSPECT_GROUP, f"verify --config {EXAMPLE_STUDY} --remove")
def verify(
    *,
    config: StudyFile,
    remove: Annotated[bool, _flag("remove damaged files, to be made again")] = False,
) -> None:
    """Check the hashes of all outputs of a study, and name damaged files."""
    from stages.commands.verify import verify_study

    verify_study(load_study(config), remove=remove)


@_command(INSPECT_GROUP, f"clean --config {EXAMPLE_STUDY}")
def clean(
    *,
    config: StudyFile,
    everything: Annotated[
        bool, _flag("all that it wrote, and its paths of origin; no raw scans", "--all")
    ] = False,
    yes: Annotated[bool, _flag("remove it without asking")] = False,
) -> None:
    """List the files that a study no longer needs, and remove them if confirmed."""
    from stages.commands.clean import clean_study

    clean_study(load_study(config), remove_all=everything, assume_yes=yes)


@_command(INSPECT_GROUP, f"locate 3f9c1a2b7d40 --config {EXAMPLE_STUDY}")
def locate(
    code: Annotated[str, Parameter(help="code of a scan or subject; on a terminal alone")] = "",
    /,
    *,
    config: StudyFile,
) -> None:
    """Print the path of a study's report, or that of the scan with a code."""
    from stages.core.locate import print_location

    print_location(load_study(config), code)


@_command(INSPECT_GROUP, f"next --config {EXAMPLE_STUDY} --task organs --count 20", name="next")
def next_(
    *,
    config: StudyFile,
    task: Annotated[str, Parameter(help="of the study")],
    count: Annotated[int, Parameter(metavar="N", help="scans to list")],
    strategy: Annotated[str, Parameter(choices=tuple(STRATEGIES), help=STRATEGIES_HELP)] = "random",
    reader: Annotated[
        str, Parameter(help="short code of who labels them", show_default=False)
    ] = "",
) -> None:
    """List the training scans to label next, and make a folder of them for annotation tools."""
    from stages.commands.next_labels import choose_next

    choose_next(load_study(config), task, count, strategy, reader)


@_command(INSPECT_GROUP, "drift --config study.yaml || mail -s 'update due' team < /dev/null")
def drift(*, config: StudyFile) -> int:
    """Say whether new scans are unlike those that the registry's champion knows (exit code 4)."""
    from stages.commands.drift import find_drift

    return find_drift(load_study(config))


@_command(INSPECT_GROUP, "findings reports.csv --out findings.csv")
def findings(
    reports: Annotated[Path, Parameter(help="CSV or Parquet with the columns path and report")],
    /,
    *,
    out: Annotated[Path, Parameter(metavar="FILE", help="CSV to write, for `data.table`")],
    column: Annotated[str, Parameter(help="that has the text")] = "report",
    lexicon: Annotated[Path | None, Parameter(help="YAML file of findings and phrases")] = None,
    command: Annotated[
        str | None, Parameter(help="that finds them instead: JSON lines in, JSON lines out")
    ] = None,
) -> None:
    """Write which findings reports assert or deny, as a table without their text."""
    from stages.commands.findings import write_findings

    write_findings(reports, out, column, lexicon, command)


@_command(ENCODER_GROUP, f"embed {EXAMPLE_BUNDLE} scans --out features.parquet")
def embed(
    encoder: Bundle,
    folder: Annotated[Path, Parameter(help="folder of scans, of any depth")],
    /,
    *,
    out: Annotated[Path, Parameter(metavar="FILE", help="Parquet file to write")] = FEATURES_FILE,
    modality: Annotated[Literal["CT", "MR"] | None, Parameter(help="if files lack it")] = None,
    root: Annotated[str | None, Parameter(help="the study's root whose files are like it")] = None,
    intensity_offset: Annotated[
        float | None, Parameter(help="added to values, in place of what held in pretraining")
    ] = None,
    missing_value: Annotated[
        float | None, Parameter(help="of unmeasured voxels, in place of what held in pretraining")
    ] = None,
) -> None:
    """Write the features of all scans of a folder as one Parquet file."""
    from ssl_pipeline.export.stored_values import ScanHints
    from stages.commands.embed import embed_folder

    hints = ScanHints(modality, root, intensity_offset, missing_value)
    embed_folder(encoder, folder, out, hints)


@_command(ENCODER_GROUP, f"predict {EXAMPLE_MODEL} scans --out predictions")
def predict(
    model: Annotated[Path, Parameter(help=f"task model, such as {EXAMPLE_MODEL}")],
    folder: Annotated[Path, Parameter(help="folder of scans, of any depth")],
    /,
    *,
    out: Annotated[Path, Parameter(metavar="FOLDER", help="where predictions are written")],
    ensemble: Annotated[
        tuple[Path, ...],
        Parameter("--with", metavar="MODEL", negative=(), help="one more model, to average with"),
    ] = (),
    modality: Annotated[Literal["CT", "MR"] | None, Parameter(help="if files lack it")] = None,
    root: Annotated[str | None, Parameter(help="the study's root whose files are like it")] = None,
    intensity_offset: Annotated[
        float | None, Parameter(help="added to values, in place of what held in training")
    ] = None,
    missing_value: Annotated[
        float | None, Parameter(help="of unmeasured voxels, in place of what held in training")
    ] = None,
    device: Annotated[Literal["cpu", "cuda"], Parameter(help="what computes")] = "cpu",
) -> None:
    """Predict with a task model for all scans of a folder: label maps, overlays and a table."""
    from ssl_pipeline.export.stored_values import ScanHints
    from stages.commands.predict import Models, predict_folder

    hints = ScanHints(modality, root, intensity_offset, missing_value)
    predict_folder(Models((model, *ensemble), device), folder, out, hints)


@_command(ENCODER_GROUP, f"find {EXAMPLE_BUNDLE} scan.nii.gz scans --at=-31.5,12,40 --out places")
def find(
    encoder: Bundle,
    scan: Annotated[Path, Parameter(help="file of the scan that shows the place, or its folder")],
    folder: Annotated[Path, Parameter(help="folder of scans to search, of any depth")],
    /,
    *,
    out: Annotated[Path, Parameter(metavar="FOLDER", help="where table and pictures are written")],
    at: Annotated[str, Parameter(metavar="R,A,S", help="place in mm, as 3D Slicer shows it")] = "",
    label: Annotated[
        Path | None, Parameter(help="what is drawn on the scan, to carry over; --at is its middle")
    ] = None,
    modality: Annotated[Literal["CT", "MR"] | None, Parameter(help="if files lack it")] = None,
    root: Annotated[str | None, Parameter(help="the study's root whose files are like it")] = None,
    intensity_offset: Annotated[
        float | None, Parameter(help="added to values, in place of what held in pretraining")
    ] = None,
    missing_value: Annotated[
        float | None, Parameter(help="of unmeasured voxels, in place of what held in pretraining")
    ] = None,
) -> None:
    """Find the place of one click in all scans of a folder: a table, points and pictures."""
    from ssl_pipeline.export.stored_values import ScanHints
    from stages.commands.find import Click, find_in_folder

    hints = ScanHints(modality, root, intensity_offset, missing_value)
    find_in_folder(encoder, Click(scan, at, label), folder, out, hints)


@_command(ENCODER_GROUP, f"export {EXAMPLE_BUNDLE} --to onnx --out encoder.onnx")
def export(
    folder: Annotated[Path, Parameter(help=f"encoder bundle or task model: {EXAMPLE_BUNDLE}")],
    /,
    *,
    to: Annotated[str, Parameter(choices=tuple(FORMATS), help=FORMATS_HELP)],
    out: Annotated[Path, Parameter(metavar="FILE", help="file, or folder, to write")],
) -> None:
    """Write an encoder or a task model as one file, or one folder, for other software."""
    from stages.commands.export import export_to_format

    export_to_format(folder, to, out)


@_command(ENCODER_GROUP, f"import --config {EXAMPLE_STUDY} --out build/public", name="import")
def import_(
    *,
    config: StudyFile,
    out: Annotated[Path, Parameter(metavar="FOLDER", help="bundle to write")],
) -> None:
    """Make an encoder bundle of the public weights that a study names in `init_from`."""
    from stages.commands.import_weights import import_weights

    import_weights(load_study(config), out)


app.command(review_app)
app.command(registry_app)
