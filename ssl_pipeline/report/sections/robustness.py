"""Robustness section: scores on corrupted scans, by severity and by corruption."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ssl_pipeline.evaluation.corruptions import ALL_CORRUPTIONS
from ssl_pipeline.evaluation.metrics.metric import METRICS
from ssl_pipeline.evaluation.records import RobustnessResults
from ssl_pipeline.evaluation.robustness.evaluators import OOD, STABILITY
from ssl_pipeline.formatting import format_score
from ssl_pipeline.report.data.results import initialization_title, method_title
from ssl_pipeline.report.render.figures import (
    LegendEntry,
    Picture,
    legend_entries,
    marker_styles,
    small_figure,
    svg_uri,
)
from ssl_pipeline.report.render.table import Table
from ssl_pipeline.report.sections.tables import format_estimate

CORRUPTION_TITLES = {corruption.name: corruption.TITLE for corruption in ALL_CORRUPTIONS}


@dataclass(frozen=True)
class RobustnessSection:
    """Figures and tables of a task on corrupted scans."""

    legend: Sequence[LegendEntry]
    panels: Sequence[Picture]
    severity_table: Table
    corruption_table: Table
    feature_tables: Sequence[Table]
    notes: Sequence[str]

    @property
    def tables(self) -> list[Table]:
        """All tables, in their order."""
        return [self.severity_table, self.corruption_table, *self.feature_tables]


def robustness_section(results: RobustnessResults) -> RobustnessSection:
    """Figures and tables of the results on corrupted scans."""
    methods = list(dict.fromkeys(row.method for row in results.rows))
    evaluated = {row.initialization for row in results.rows}
    return RobustnessSection(
        legend_entries([init for init in results.initializations if init in evaluated]),
        [_severity_panel(results, method) for method in methods],
        _severity_table(results),
        _corruption_table(results),
        list(_feature_tables(results)),
        results.notes,
    )


def _severity_panel(results: RobustnessResults, method: str) -> Picture:
    figure, axes = small_figure(3.3, 2.7)
    ranges = []
    for row in (row for row in results.rows if row.method == method):
        colour, marker, _ = marker_styles(results.initializations)[row.initialization]
        points = [(each.severity, each.mean) for each in row.severities if each.mean is not None]
        if not points:  # a score may not be defined
            continue
        axes.plot(
            *zip(*points, strict=True), color=colour, marker=marker, markersize=4.5, linewidth=1.4
        )
        for each in row.severities:
            if each.interval:
                axes.plot([each.severity] * 2, each.interval, color=colour, linewidth=1.1)
        ends = f"{format_score(points[0][1])} to {format_score(points[-1][1])}"
        ranges.append(f"{initialization_title(row.initialization)} {ends}")
    axes.set_xlabel("severity")
    axes.set_ylabel(METRICS[results.metric].title)
    title = method_title(method)
    return Picture(svg_uri(figure), f"{title} on corrupted scans: {', '.join(ranges)}.", title)


def _severity_table(results: RobustnessResults) -> Table:
    """Means over corruptions, by severity, and the corruption error."""
    severities = [each.severity for each in results.rows[0].severities]
    rows = [
        (
            method_title(row.method),
            initialization_title(row.initialization),
            *(format_estimate(each) for each in row.severities),
            format_score(row.corruption_error),
        )
        for row in results.rows
    ]
    steps = tuple(str(severity) if severity else "clean" for severity in severities)
    head = ("method", "initialization", *steps, "error")
    caption = (
        f"{METRICS[results.metric].title}, mean over corruptions, by severity; error is the "
        "corruption error relative to random weights with the same method, below 1 is better"
    )
    return Table(caption, head, rows, text_columns=2)


def _feature_tables(results: RobustnessResults) -> Iterator[Table]:
    """Label-free measures of the features: by severity, and by subgroup."""
    rows = results.features
    captions = {
        OOD: "OOD detection AUROC: corrupted against clean scans, by the distance of features to "
        "those of training scans; .5 is chance",
        STABILITY: "Feature stability: intraclass correlation of features of clean and corrupted "
        "scans; 1 is no change",
    }
    for method, caption in captions.items():
        own = [row for row in rows if row.method == method]
        if own:
            head = ("initialization", *(str(p.severity) for p in own[0].severities[1:]))
            cells = [
                (
                    initialization_title(row.initialization),
                    *(format_estimate(p) for p in row.severities[1:]),
                )
                for row in own
            ]
            yield Table(caption, head, cells)
    shares = {
        (row.attribute, row.initialization): format_estimate(row)
        for row in results.explained_variance
    }
    if shares:
        names, inits = (list(dict.fromkeys(each)) for each in zip(*shares, strict=True))
        cells = [
            (initialization_title(init), *(shares[name, init] for name in names)) for init in inits
        ]
        caption = (
            "Variance explained by subgroup: share of the variance of subjects' mean features "
            "between groups, on clean scans"
        )
        yield Table(caption, ("initialization", *names), cells)


def _corruption_table(results: RobustnessResults) -> Table:
    """Every corruption at its highest severity."""
    ways = {(row.method, row.initialization): row.corruptions for row in results.rows}
    methods = list(dict.fromkeys(method for method, _ in ways))
    starts = list(dict.fromkeys(init for _, init in ways))
    rows = [
        (
            CORRUPTION_TITLES[kind],
            method_title(method),
            *(format_estimate(ways[method, init][kind][-1]) for init in starts),
        )
        for kind in next(iter(ways.values()))
        for method in methods
    ]
    head = ("corruption", "method", *map(initialization_title, starts))
    return Table("Each corruption at its highest severity", head, rows, text_columns=2)
