"""The HTML report: contents, missing parts, and self-containment."""

import gzip
import re
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.tasks.crop_classification import CropClassification
from ssl_pipeline.training import snapshots
from tests.report.study_folder import (
    ANATOMY,
    CROPS,
    StudyFolder,
    gaps,
    render_page,
    render_tables,
    results,
)

HOSTILE = '<script>alert("1 & 2")</script>'


def _visible_text(html: str) -> str:
    """What a reader sees."""
    seen = re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL)
    return " ".join(unescape(seen).split())


def test_a_whole_study_fills_every_part(page: str) -> None:
    words = _visible_text(page)
    assert "Mostly" not in words  # losing to pixels anywhere is no plain yes
    assert "In part: better than random weights in 4 of 6 comparisons" in words
    assert "better than pixels + PCA in 4 of 6 comparisons (worse in 2)." in words
    assert ".90 [.87, .92]" in words
    assert "+.100 [+.050, +.150], p = .001 (.012) better" in words
    assert "+.010 [−.050, +.070], p = .001 (.012) " in words
    assert "1,234 1 min 4 s" in words  # a linear probe and its features
    assert "4 scans found: 3 accepted from 3 subjects, 1 rejected; 1 label without image." in words
    assert "3 volumes stored" in words
    assert "scans==1.0 CC0-1.0" in words
    assert "name: small" in words
    for alt in ("linear probe: balanced accuracy", "loss: 2 at step 0", "Crop 1", "Axial, coronal"):
        assert f'alt="{alt}' in page
    assert "What it learned from" in words  # the mask beside the diagnosis
    assert words.index("What it learned from") < words.index("Losses and rates")
    assert len(page) < 5e6


def test_its_tables_are_there_as_text(unchanged: StudyFolder) -> None:
    text = render_tables(unchanged)
    assert text.startswith("# ")
    assert "In part: better than random weights in 4 of 6 comparisons" in text
    assert "| .90 [.87, .92] |" in text
    assert "| **+.100 [+.050, +.150], p = .001 (.012)** |" in text
    assert "| +.010 [−.050, +.070], p = .001 (.012) |" in text
    assert "| .95 [.91, .97] | .12 |" in text
    assert "of the split test." in text
    assert text.count("Said by the summary.") == 2  # once a task
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({row.count("|") for row in table.splitlines()}) == 1


def test_without_an_interval_nothing_is_called_better(study: StudyFolder) -> None:
    study.tasks = {"side": CROPS}
    study.write_results(
        "side", "probe", results(gaps((0.3, None, None), (0.2, None, None)), test=2)
    )
    words = _visible_text(render_page(study))
    assert (
        "no confidence interval over subjects: 2 scored subjects; spread over seeds shown" in words
    )
    assert "better than" not in words
    assert ".90 ± .02" in words


def test_an_empty_study_is_a_page_of_sentences(study: StudyFolder) -> None:
    study.tasks = {"side": CROPS}
    words = _visible_text(render_page(study))
    for sentence in (
        "No task has been evaluated",
        "This task has not been evaluated yet.",
        "There is no record of a training run.",
        "There are no images of the pretrained features.",
        "There is no inventory.",
        "No volumes are stored",
        "There is no encoder yet",
        "No provenance records were found.",
    ):
        assert sentence in words
    study.tasks = {}
    assert "The study has no tasks" in _visible_text(render_page(study))


@pytest.mark.parametrize(
    "part", ["pretrain/feature_pca.npz", "pretrain/run.json", "probe", "inventory"]
)
def test_a_missing_part_is_left_out(whole: StudyFolder, part: str) -> None:
    path = whole.folder / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "Provenance" in _visible_text(render_page(whole))


def test_snapshots_of_a_run_are_strips(page: str) -> None:
    assert (
        page.count(
            'alt="Crop 1: input, masked, reconstruction at step 50, reconstruction at step 90."'
        )
        == 1
    )
    assert page.count('alt="Crop 2: input, attention at step 50, attention at step 90."') == 1


def test_the_diagnosis_is_the_one_that_the_run_recorded(page: str) -> None:
    """The log alone would give no alarm: settings may differ."""
    words = _visible_text(page)
    assert "The run is data bound . It waited for data." in words
    first_screen, _, _ = words.partition("Other metrics")
    assert "Pretraining run: data bound. It waited for data." in first_screen


def test_pictures_without_a_decoder_attention_or_map(whole: StudyFolder) -> None:
    crops = np.zeros((1, 8, 8), np.float32)
    run = whole.folder / "pretrain" / "runs" / "abc"
    shutil.rmtree(run / "snapshots")
    snapshots.save_images(run, 90, {"input": crops, "masked": crops})
    (whole.folder / "pretrain" / "feature_pca.npz").unlink()
    html = render_page(whole)
    assert 'alt="Crop 1: input, masked."' in html and "Crop 1: input, attention" not in html
    assert "Feature maps" not in _visible_text(html)


def test_whatever_a_study_is_called_is_shown_and_not_run(whole: StudyFolder) -> None:
    whole.title = HOSTILE
    title = whole.tasks["side"].model_copy(update={"title": HOSTILE})
    whole.tasks = {"side": title}
    html = render_page(whole)
    assert html.count("<script") == 1  # the page's own
    assert HOSTILE in _visible_text(html.replace("&lt;", "\x00")).replace("\x00", "<")


def test_the_page_stands_alone(page: str) -> None:
    html, _, script = page.partition("<script>")
    assert "http" not in script and "fetch" not in script
    sources = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\')>\s]+)', html)
    assert sources
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    targets = {source[1:] for source in sources if source.startswith("#")}
    assert targets <= set(re.findall(r'id="([^"]+)"', html))


def test_no_path_of_a_scan_is_shown(page: str, raw: Path) -> None:
    assert str(raw) not in page
    assert not re.search(r"s\d\.nii|broken|alone", page)
    assert "does not begin like a NIfTI file" in page and "label without image" in page


def test_the_snippet_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(r'<pre id="snippet">(.*?)</pre>', page, re.DOTALL)
    assert found
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(ANATOMY.read_bytes()))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(unescape(found[1]), names)
    features = names["features"]
    assert isinstance(features, np.ndarray)
    assert features.shape == (128,)
    assert np.isfinite(features).all()


def test_the_first_screen_has_a_figure_a_sentence_and_scores_for_each_task(
    page: str,
) -> None:
    first_screen = page[
        page.index('<section id="conclusions">') : page.index('<section id="tasks">')
    ]
    articles = re.findall(r"<article>(.*?)</article>", first_screen, re.DOTALL)
    assert len(articles) == 2
    for article, metric in zip(articles, ("balanced accuracy", "mean Dice"), strict=True):
        assert article.count("<img") == 1
        words = _visible_text(article)
        assert f"Pretraining helps: {metric} .90 against .80 of random weights, with 20" in words
        assert "pretrained .90 [.87, .92] random weights .80 [.77, .82]" in words


def test_a_task_of_shift_is_in_no_headline_and_has_a_sentence_of_its_own(
    whole: StudyFolder, page: str
) -> None:
    before = _visible_text(page)
    headline = re.search(r"Does pretraining help\?.*?\.", before)
    other = {"train_on": {"site": ["north"]}, "score_on": {"site": ["south"]}}
    shift = CropClassification.model_validate(CROPS.model_dump() | other | {"title": "Elsewhere"})
    whole.tasks = {"shift": shift, **whole.tasks}
    lost = gaps((-0.1, -0.15, -0.05), (-0.1, -0.15, -0.05))
    whole.write_results("shift", "probe", results(lost, task=shift))
    html = render_page(whole)
    words, text = _visible_text(html), render_tables(whole)
    assert headline and headline[0] in words
    assert "And on scans unlike those of training? No: worse than random weights in 2 of 2" in words
    assert "On scans unlike those of training: No: worse than random weights in 2 of 2" in text
    *_, last = re.findall(r"<article>(.*?)</article>", html, re.DOTALL)
    assert "Elsewhere Shift: trained on site north, scored on site south." in _visible_text(last)
    assert "Shift: trained on site north, scored on site south. Trained on 20 labelled" in text


def test_a_difference_that_is_not_clear_has_no_label(page: str) -> None:
    words = _visible_text(page)
    assert "undecided" not in words
    assert words.count("without a label: no clear difference") == 2  # once a task


def test_a_group_without_another_has_no_table(study: StudyFolder) -> None:
    study.tasks = {"side": CROPS}
    whole = results(gaps((0.1, 0.05, 0.15)))
    study.write_results("side", "probe", whole)
    assert "balanced accuracy by site" in render_page(study)
    alone = whole.model_copy(update={"subgroups": whole.subgroups[:1]})
    study.write_results("side", "probe", alone)
    assert "by site" not in render_page(study)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 0}', '{"format": 1, "task": "incomplete"}']
)
@pytest.mark.parametrize(
    "file", ["probe/side/results.json", "probe/side/costs.json", "pretrain/run.json"]
)
def test_a_damaged_record_is_refused_in_one_sentence(
    whole: StudyFolder, file: str, content: str
) -> None:
    (whole.folder / file).write_text(content)
    with pytest.raises(UserError, match=f"{file} is damaged, or of another format version: "):
        render_page(whole)
