"""How scores fall when scans are taken worse: curves over severity, and tables by corruption."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ssl_pipeline.evaluation.corruptions import ALL_CORRUPTIONS
from ssl_pipeline.evaluation.robustness.evaluators import OOD, STABILITY
from ssl_pipeline.formatting import format_score
from ssl_pipeline.io.atomic import read_json
from ssl_pipeline.report.data.results import initialization_title, method_title
from ssl_pipeline.report.render.figures import (
    LegendEntry,
    Picture,
    legend_entries,
    marker_styles,
    small_figure,
    svg_uri,
)
from ssl_pipeline.report.sections.tables import Table, format_estimate

CORRUPTION_TITLES = {corruption.name: corruption.TITLE for corruption in ALL_CORRUPTIONS}
Row = Mapping[str, Any]


@dataclass(frozen=True)
class RobustnessSection:
    """What the page says of a task on worse scans."""

    legend: Sequence[LegendEntry]
    panels: Sequence[Picture]
    severity_table: Table
    corruption_table: Table
    feature_tables: Sequence[Table]
    notes: Sequence[str]


def read_robustness(folder: Path, task: str) -> Row | None:
    """What a study's task scored on worse scans; None where it was not tried."""
    path = folder / "robustness" / task / "results.json"
    return cast(Row, read_json(path)) if path.exists() else None


def robustness_section(results: Row) -> RobustnessSection:
    """Curves and tables of what `worse_scans` found."""
    methods = list(dict.fromkeys(row["method"] for row in results["rows"]))
    panels = [_severity_panel(results, method) for method in methods]
    curves, worst, *further = robustness_tables(results)
    judged = dict.fromkeys(row["init"] for row in results["rows"])
    drawn = [start for start in results["starts"] if start in judged]
    return RobustnessSection(
        legend_entries(drawn), panels, curves, worst, further, results["notes"]
    )


def robustness_tables(results: Row) -> list[Table]:
    """Curves over severities, all corruptions at their severest, and what features say."""
    return [_severity_table(results), _corruption_table(results), *_feature_tables(results)]


def _severity_panel(results: Row, method: str) -> Picture:
    figure, axes = small_figure(3.3, 2.7)
    told = []
    for row in (row for row in results["rows"] if row["method"] == method):
        colour, marker, _ = marker_styles(results["starts"])[row["init"]]
        points = [each for each in row["severities"] if each["mean"] is not None]
        if not points:  # a score may not be defined
            continue
        steps = [each["severity"] for each in points]
        axes.plot(
            steps,
            [each["mean"] for each in points],
            color=colour,
            marker=marker,
            markersize=4.5,
            linewidth=1.4,
        )
        for each in points:
            if each["low"] is not None:
                bounds = [each["low"], each["high"]]
                axes.plot([each["severity"]] * 2, bounds, color=colour, linewidth=1.1)
        ends = f"{format_score(points[0]['mean'])} to {format_score(points[-1]['mean'])}"
        told.append(f"{initialization_title(row['init'])} {ends}")
    axes.set_xlabel("severity")
    axes.set_ylabel(results["metric"])
    title = method_title(method)
    return Picture(svg_uri(figure), f"{title} on worse scans: {', '.join(told)}.", title)


def _severity_table(results: Row) -> Table:
    """Means over corruptions, by severity, and the corruption error."""
    severities = [each["severity"] for each in results["rows"][0]["severities"]]
    rows = [
        (
            method_title(row["method"]),
            initialization_title(row["init"]),
            *(format_estimate(each) for each in row["severities"]),
            format_score(row["corruption_error"]),
        )
        for row in results["rows"]
    ]
    steps = tuple(str(severity) if severity else "clean" for severity in severities)
    head = ("method", "start", *steps, "error")
    caption = (
        f"{results['metric']}, mean over corruptions, by severity; error is that of all worse scans"
        " over that of random weights with the same method, below 1 is better"
    )
    return Table(caption, head, rows, text_columns=2)


def _feature_tables(results: Row) -> Iterator[Table]:
    """What features say without labels: over severities, and of the groups of subjects."""
    rows = results.get("features", ())
    captions = {
        OOD: "Are worse scans noticed? AUC of features' distance from those learned from, "
        "worse scans against the same as they are; .5 is chance",
        STABILITY: "Is a scan still itself? Intraclass correlation of features, as they are and "
        "worse; 1 is no change",
    }
    for method, caption in captions.items():
        own = [row for row in rows if row["method"] == method]
        if own:
            head = ("start", *(str(p["severity"]) for p in own[0]["severities"][1:]))
            told = [
                (
                    initialization_title(row["init"]),
                    *(format_estimate(p) for p in row["severities"][1:]),
                )
                for row in own
            ]
            yield Table(caption, head, told)
    shares = {
        (row["group"], row["init"]): format_estimate(row) for row in results.get("shares", ())
    }
    if shares:
        names, inits = (list(dict.fromkeys(each)) for each in zip(*shares, strict=True))
        told = [
            (initialization_title(init), *(shares[name, init] for name in names)) for init in inits
        ]
        caption = (
            "What else do features show? Share of the variance of subjects' mean features that is "
            "the groups', of scans as they are"
        )
        yield Table(caption, ("start", *names), told)


def _corruption_table(results: Row) -> Table:
    """Every corruption at its severest."""
    ways = {(row["method"], row["init"]): row["corruptions"] for row in results["rows"]}
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
    return Table("Each corruption at its severest", head, rows, text_columns=2)
