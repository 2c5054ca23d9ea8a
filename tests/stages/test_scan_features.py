"""Features of another encoder in a study: `evaluate.features`, from the file to the report."""

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from snakemake.exceptions import WorkflowError

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.records import read_results
from stages.core.runner import run_stage
from stages.core.study_file import load_study
from stages.core.workflow import Workflow
from stages.evaluation_check import check_evaluations
from tests.conftest import write_study
from tests.stages.conftest import copy_study, run_cli
from tests.stages.test_promote import edit

SIDE = {"task": "side"}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """A study whose crops show whole scans, and what `embed` says of these; use a copy."""
    file = write_study(tmp_path_factory.mktemp("features") / "first")
    for path in (file.parent / "raw").rglob("*.nii.gz"):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:32, :32], image.affine), path)
    content = yaml.safe_load(file.read_text())
    edit(
        file,
        views={"crop_voxels": [24, 32, 32]},
        training={**content["training"], "steps": 2},
        probe={"methods": [{"name": "knn"}, {"name": "linear", "c_values": [1]}]},
    )
    for name in ("inventory", "preprocess", "pretrain"):
        run_stage(name, load_study(file), {})
    done = run_cli(
        *("embed", load_study(file).encoder, file.parent / "raw/images", "--modality", "MR"),
        *("--out", file.parent / "twin.parquet"),
    )
    assert done.returncode == 0, done.stderr
    edit(
        file, evaluate={**content["evaluate"], "features": {"twin": f"{file.parent}/twin.parquet"}}
    )
    run_stage("probe", load_study(file), SIDE)
    return file


@pytest.fixture
def copy(embedded, tmp_path):
    return copy_study(embedded, tmp_path / "copy")


def results_of(file):
    return read_results(load_study(file).folder / "probe/side")


def rows_of(results, name):
    rows = [row for row in results.rows if row.initialization == name]
    return [row.model_copy(update={"initialization": ""}) for row in rows]


def test_rows_of_what_embed_wrote_equal_those_of_the_encoder(embedded):
    results = results_of(embedded)
    assert results.initializations[:2] == ("pretrained", "twin")
    assert len(rows_of(results, "twin")) == 2
    assert rows_of(results, "twin") == rows_of(results, "pretrained")


def test_the_report_shows_the_row_and_that_its_encoder_is_unknown(copy):
    run_stage("finetune", load_study(copy), SIDE)
    run_stage("finetune", load_study(copy), {"task": "tissue"})
    run_stage("report", load_study(copy), {})
    page = (load_study(copy).folder / "report/report.md").read_text()
    assert "twin: vectors of whole scans that another encoder made" in page
    assert "| twin |" in page
    finetuned = read_results(load_study(copy).folder / "finetune/side")
    assert "twin" not in finetuned.initializations


def test_a_file_that_changes_is_probed_again_and_nothing_else(copy, capsys):
    study = load_study(copy)
    cells = sorted((study.folder / "probe/side/cells").glob("*.json"))
    before = {path: path.stat().st_mtime_ns for path in cells}
    table = pq.read_table(copy.parent / "twin.parquet")
    other = pa.array([[float(n), 1.0] for n in range(len(table))], pa.list_(pa.float32()))
    place = table.column_names.index("features")
    pq.write_table(table.set_column(place, "features", other), copy.parent / "twin.parquet")
    for name in ("inventory", "preprocess", "pretrain"):
        run_stage(name, load_study(copy), {})
    capsys.readouterr()
    run_stage("probe", load_study(copy), SIDE)
    changed = {path for path in cells if path.stat().st_mtime_ns != before[path]}
    assert changed == {path for path in cells if "-twin-" in path.name} != set()
    capsys.readouterr()
    for name in ("pretrain", "probe"):
        run_stage(name, load_study(copy), SIDE if name == "probe" else {})
    assert capsys.readouterr().out.count("nothing to do") == 2


def test_the_settings_of_other_stages_do_not_depend_on_it(copy):
    with_file = load_study(copy)
    content = yaml.safe_load(copy.read_text())
    del content["evaluate"]["features"]
    copy.write_text(yaml.safe_dump(content))
    keys = ("evaluate", "tasks", "model")
    assert with_file.sections_hash(keys, {}) == load_study(copy).sections_hash(keys, {})


def test_a_scan_without_a_vector_is_refused_before_anything_is_trained(copy):
    run_stage("inventory", load_study(copy), {})
    study, path = load_study(copy), copy.parent / "twin.parquet"
    pq.write_table(pq.read_table(path).slice(2), path)
    with pytest.raises(
        UserError, match=r"twin lacks 2 of 6 scans of task 'Side', such as "
    ) as refusal:
        check_evaluations(study)
    assert "person" not in str(refusal.value)
    named = str(refusal.value).split("such as ")[1].split(":")[0].split(", ")
    assert set(named) <= study.pseudonyms.origins.keys()


def test_a_task_that_is_not_probed_needs_no_vectors(copy):
    run_stage("inventory", load_study(copy), {})
    content = yaml.safe_load(copy.read_text())
    side = content["tasks"]["side"]
    other = {**side, "title": "Other", "stages": ["finetune"]}
    path = copy.parent / "twin.parquet"
    assert load_study(edit(copy, tasks={"side": side, "other": other})).features_of("other") == {}
    assert load_study(copy).features_of("side") == {"twin": path}


def test_a_file_that_is_gone_stops_the_workflow_before_its_first_rule(copy):
    of_snakemake = SimpleNamespace(default_resources=None)
    rules = Workflow({"study": str(copy)}, SimpleNamespace(cores=1, resource_settings=of_snakemake))
    assert rules.features_hash().keys() == {"features twin"}
    assert rules.external_encoders_hash() == {}
    (copy.parent / "twin.parquet").unlink()
    with pytest.raises(WorkflowError, match=r"evaluate.features.twin is .*, where no file is"):
        rules.features_hash()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"evaluate": {"features": {"pretrained": "x"}}}, "is the name of an encoder too"),
        ({"evaluate": {"features": {"random": "x"}}}, "features.random means random weights"),
        ({"evaluate": {"features": {"champion": "x"}},
          "promote": {"registry": "r", "name": "head", "gain": {"side": 0.1}}},
         "evaluate names champion"),
        ({"tasks": {"tissue": {"kind": "segmentation", "title": "T", "label": "tissue",
                               "classes": {1: "dark"}}}},
         "of which no task is probed"),
    ],
)  # fmt: skip
def test_a_name_that_is_taken_and_a_study_that_probes_no_scan_are_refused(copy, sections, message):
    with pytest.raises(UserError, match=message):
        load_study(edit(copy, **sections))
