"""How scores fall when scans are taken worse: curves over severity, and tables by corruption."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_pipeline.atomic import read_json
from ssl_pipeline.evaluation.corruptions import ALL
from ssl_pipeline.report.figures import Mark, Picture, looks, marks, small, svg
from ssl_pipeline.report.judgements import method_name, start_name
from ssl_pipeline.report.numerals import NOTHING, score, with_interval
from ssl_pipeline.report.tables import Table

CORRUPTIONS = {corruption.name: corruption.TITLE for corruption in ALL}
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Degradation:
    """What the page says of a task on worse scans."""

    legend: Sequence[Mark]
    panels: Sequence[Picture]
    curves: Table
    worst: Table
    note: str


def degradation(folder: Path, task: str) -> Degradation | None:
    """Of a study's task; None where it was not tried on worse scans."""
    path = folder / "robustness" / task / "results.json"
    if not path.exists():
        return None
    results = read_json(path)
    methods = list(dict.fromkeys(row["method"] for row in results["rows"]))
    panels = [_panel(results, method) for method in methods]
    told = (_curves(results), _worst(results), results["note"])
    return Degradation(marks(results["starts"]), panels, *told)


def _panel(results: Row, method: str) -> Picture:
    figure, axes = small(3.3, 2.7)
    told = []
    for row in (row for row in results["rows"] if row["method"] == method):
        colour, marker, _ = looks(results["starts"])[row["init"]]
        points = [each for each in row["severities"] if each["mean"] is not None]
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
        ends = f"{score(points[0]['mean'])} to {score(points[-1]['mean'])}"
        told.append(f"{start_name(row['init'])} {ends}")
    axes.set_xlabel("severity")
    axes.set_ylabel(results["metric"])
    title = method_name(method)
    return Picture(svg(figure), f"{title} on worse scans: {', '.join(told)}.", title)


def _curves(results: Row) -> Table:
    """Means over corruptions, by severity, and the corruption error."""
    severities = [each["severity"] for each in results["rows"][0]["severities"]]
    rows = [
        (
            method_name(row["method"]),
            start_name(row["init"]),
            *(_shown(each) for each in row["severities"]),
            score(row["corruption_error"]),
        )
        for row in results["rows"]
    ]
    steps = tuple(str(severity) if severity else "clean" for severity in severities)
    head = ("method", "start", *steps, "error")
    caption = (
        f"{results['metric']}, mean over corruptions, by severity; error is that of all worse scans"
        " over that of random weights with the same method, below 1 is better"
    )
    return Table(caption, head, rows, words=2)


def _worst(results: Row) -> Table:
    """Every corruption at its severest."""
    ways = {(row["method"], row["init"]): row["corruptions"] for row in results["rows"]}
    methods = list(dict.fromkeys(method for method, _ in ways))
    starts = list(dict.fromkeys(init for _, init in ways))
    rows = [
        (
            CORRUPTIONS[kind],
            method_name(method),
            *(_shown(ways[method, init][kind][-1]) for init in starts),
        )
        for kind in next(iter(ways.values()))
        for method in methods
    ]
    head = ("corruption", "method", *map(start_name, starts))
    return Table("Each corruption at its severest", head, rows, words=2)


def _shown(each: Row) -> str:
    if each["mean"] is None:
        return NOTHING
    return with_interval(each["mean"], each["low"], each["high"])
