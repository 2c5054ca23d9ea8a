"""What more pretraining has bought: scores of encoders against the samples that they saw."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from ssl_pipeline.evaluation.ablation import find_row
from ssl_pipeline.evaluation.cells import BASELINE_METHOD, PIXELS, RANDOM
from ssl_pipeline.evaluation.metrics.metric import METRICS
from ssl_pipeline.evaluation.records import (
    AblationTable,
    ArmDifference,
    ScalingResults,
)
from ssl_pipeline.formatting import format_difference, format_duration, format_score
from ssl_pipeline.report.data.results import method_title
from ssl_pipeline.report.render.figures import (
    LINE_COLOURS,
    LINE_STYLES,
    PREFERRED_METHODS,
    TEXT_COLOUR,
    Picture,
    small_figure,
    svg_uri,
)
from ssl_pipeline.report.render.markdown_table import markdown_table
from ssl_pipeline.report.render.table import Table
from ssl_pipeline.report.sections.ablation import budget_text, comparison_parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OUTCOMES = {
    "better": "more pretraining still helped",
    "worse": "more pretraining did harm",
    "undecided": "no clear gain",
    "no interval": "too few subjects for an interval",
}


@dataclass(frozen=True)
class ScalingSection:
    """Curves and sentences of the tasks, and what the encoders cost."""

    sentences: Sequence[str]
    panels: Sequence[Picture]
    table: Table


def scaling_section(results: ScalingResults) -> ScalingSection:
    """What the report shows: each task by its primary method."""
    panels = [_panel(results, table, method) for table, method in _primary_tables(results)]
    return ScalingSection(scaling_sentences(results), panels, length_table(results))


def scaling_sentences(results: ScalingResults) -> list[str]:
    """What the last step up has bought on each task, for each number of labelled subjects."""
    return [
        sentence
        for table, method in _primary_tables(results)
        for sentence in _sentences(results, table, method)
    ]


def render_scaling(results: ScalingResults) -> str:
    """The same as Markdown, with the scores and differences of every method."""
    titles = {arm.name: f"{arm.steps:,} steps" for arm in results.arms}
    tables = [_with_titles(table, titles) for table in results.tables]
    parts = [f"# What more pretraining has bought in {results.study}", *scaling_sentences(results)]
    parts.append(markdown_table(length_table(results)))
    for name in dict.fromkeys(table.name for table in tables):
        parts += comparison_parts([table for table in tables if table.name == name])
    return "\n\n".join(parts) + "\n"


def _primary_tables(results: ScalingResults) -> list[tuple[AblationTable, str]]:
    """The table and method by which each task is shown."""
    tasks = dict.fromkeys(table.name for table in results.tables)
    return [_primary_table(results, task) for task in tasks]


def _primary_table(results: ScalingResults, task: str) -> tuple[AblationTable, str]:
    """The table and method by which a task is shown."""
    by_method = {
        row.method: table
        for table in results.tables
        if table.name == task
        for row in table.rows
        if row.method != BASELINE_METHOD
    }
    method = next((m for m in PREFERRED_METHODS if m in by_method), next(iter(by_method)))
    return by_method[method], method


def _sentences(results: ScalingResults, table: AblationTable, method: str) -> Iterator[str]:
    """What the last step up has bought, for each number of labelled subjects."""
    shorter, longer = results.arms[-2:]
    for found in table.differences:
        if (found.arm, found.against, found.method) == (longer.name, shorter.name, method):
            yield (
                f"{table.task}, {method_title(method)}, {budget_text(found.subjects, table)} "
                f"labelled subjects: from {shorter.steps:,} to {longer.steps:,} steps "
                f"{_change_text(found, table)}."
            )


def _change_text(found: ArmDifference, table: AblationTable) -> str:
    change = format_difference(found.mean, found.low, found.high)
    return f"{METRICS[table.metric].title} changed by {change}: {OUTCOMES[found.outcome]}"


def _panel(results: ScalingResults, table: AblationTable, method: str) -> Picture:
    """Scores against samples seen, a line for each number of labelled subjects.

    Random weights have seen none; pixels are a level without a marker.
    """
    figure, axes = small_figure(4.2, 3.0)
    ends = []
    for index, subjects in enumerate(_label_budgets(table, method)):
        look = LINE_COLOURS[index % len(LINE_COLOURS)], LINE_STYLES[index % len(LINE_STYLES)]
        label = f"{budget_text(subjects, table)} labelled"
        scores = _draw_line(axes, results, table, (method, subjects), look, label)
        ends.append(f"{label}: {' to '.join(map(format_score, scores))}")
    samples = ["none", *(f"{arm.samples:,}" for arm in results.arms)]
    axes.set_xticks(range(len(samples)), samples)
    axes.set_xlabel("samples seen in pretraining")
    axes.set_ylabel(METRICS[table.metric].title)
    axes.legend(fontsize=8, frameon=False, labelcolor=TEXT_COLOUR)
    title = f"{table.task}, {method_title(method)}"
    return Picture(svg_uri(figure), f"{title} against samples seen; {'; '.join(ends)}.", title)


def _draw_line(
    axes: "Axes",
    results: ScalingResults,
    table: AblationTable,
    key: tuple[str, int],
    look: tuple[str, str],
    label: str,
) -> list[float]:
    """Draw the line of a method and number of labelled subjects; returns its first and last."""
    rows = {(row.arm, row.method, row.subjects): row for row in table.rows}
    colour, style = look
    arms = [RANDOM, *(arm.name for arm in results.arms)]
    found = [(place, find_row(rows, arm, *key)) for place, arm in enumerate(arms)]
    points = [(place, row.mean, row) for place, row in found if row and row.mean is not None]
    scores = [mean for _, mean, _ in points]
    places = [place for place, _, _ in points]
    axes.plot(places, scores, color=colour, linestyle=style, marker="o", label=label)
    for place, _, row in points:
        if row.interval:
            axes.plot([place] * 2, row.interval, color=colour, linewidth=1.1)
    pixels = find_row(rows, PIXELS, *key)
    if pixels and pixels.mean is not None:
        axes.axhline(pixels.mean, color=colour, linestyle=style, linewidth=0.9, alpha=0.6)
    return [scores[0], scores[-1]] if scores else []


def _label_budgets(table: AblationTable, method: str) -> list[int]:
    """Numbers of labelled subjects of a method, rising; 0 is all, and last."""
    found = {row.subjects for row in table.rows if row.method == method}
    return sorted(found, key=lambda subjects: (subjects == 0, subjects))


def length_table(results: ScalingResults) -> Table:
    """The lengths of pretraining, and what each encoder took."""
    rows = [
        (
            f"{arm.steps:,}",
            f"{100 * arm.share:g} %",
            f"{arm.samples:,}",
            format_duration(fmean(arm.seconds)),
            ", ".join(arm.diagnoses),
        )
        for arm in results.arms
    ]
    head = ("steps", "of the study's", "samples seen", "time per encoder", "diagnoses of its runs")
    return Table("What was trained", head, rows)


def _with_titles(table: AblationTable, titles: dict[str, str]) -> AblationTable:
    """The table with words in place of the names of arms."""

    def title(arm: str) -> str:
        return titles.get(arm, arm)

    rows = [row.model_copy(update={"arm": title(row.arm)}) for row in table.rows]
    differences = [
        each.model_copy(update={"arm": title(each.arm), "against": title(each.against)})
        for each in table.differences
    ]
    return table.model_copy(update={"rows": tuple(rows), "differences": tuple(differences)})
