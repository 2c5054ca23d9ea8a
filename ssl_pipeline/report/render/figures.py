"""Figures of the report: score curves and training curves, as small SVG panels.

Figures are SVG in a data URI, with letters as shapes: they look the same on every system.
Colours are of the colour-blind-safe palette of Okabe and Ito; markers differ too.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ssl_pipeline.evaluation.cells import (
    BODY_BOX,
    EXTERNAL,
    GREY_VALUES,
    NOT_PRETRAINED,
    PIXELS,
    RANDOM,
    RESNET,
)
from ssl_pipeline.evaluation.records import ScoreRow
from ssl_pipeline.formatting import format_score
from ssl_pipeline.objectives.terms import TERMS
from ssl_pipeline.report.data.results import TaskResult, initialization_title, method_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEXT_COLOUR, GRID_COLOUR = "#333333", "#d5d9de"
# Style of each initialization: colour, matplotlib's marker, and the marker as a letter.
BASELINE_STYLES = {
    RANDOM: ("#D55E00", "s", "■"),
    PIXELS: ("#009E73", "^", "▲"),
    RESNET: ("#777777", "X", "✖"),
    EXTERNAL: ("#000000", "*", "★"),
    BODY_BOX: ("#777777", "X", "✖"),
    GREY_VALUES: ("#009E73", "^", "▲"),
}
ENCODER_COLOURS = ("#0072B2", "#CC79A7", "#E69F00", "#56B4E9")
ENCODER_MARKERS = (("o", "●"), ("D", "◆"), ("v", "▼"), ("P", "✚"))
LogRow = Mapping[str, float | int]  # a line of the metrics log
LOG_TITLES = {
    "loss": "loss",
    "learning_rate": "learning rate",
    "samples_per_s": "samples per second",
    "gradient_norm": "gradient norm",
}
LOSS_TERMS = tuple(TERMS)
LINE_STYLES = ("-", "--", ":", "-.")  # beside the colour, so that lines differ in print too
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#777777")
PREFERRED_METHODS = (
    "linear",
    "full",
)  # methods by which tasks are shown on the first screen, in this order
LARGEST_DRAWN = 1e6  # a score beyond it, in either direction, would make all others one line
MAX_POINTS = 400  # of a curve; more cannot be distinguished at this width


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, with alternative text."""

    uri: str
    alt: str
    title: str = ""


@dataclass(frozen=True)
class LegendEntry:
    """An entry of a legend."""

    glyph: str
    colour: str
    text: str


def legend(results: Sequence[TaskResult]) -> list[LegendEntry]:
    """Colour and marker of each initialization."""
    return legend_entries(
        list(dict.fromkeys(init for each in results for init in each.initializations))
    )


def legend_entries(initializations: Sequence[str]) -> list[LegendEntry]:
    """Colour and marker of each of these initializations."""
    return [
        LegendEntry(look[2], look[0], initialization_title(i))
        for i, look in marker_styles(initializations).items()
    ]


def marker_styles(initializations: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and glyph of each initialization."""
    encoders = [start for start in initializations if start not in NOT_PRETRAINED]
    return {
        start: BASELINE_STYLES.get(start) or _encoder_style(encoders.index(start))
        for start in initializations
    }


def _encoder_style(number: int) -> tuple[str, str, str]:
    """Beyond the fourth, colours come with other markers; the seventeenth is drawn as the first."""
    return ENCODER_COLOURS[number % 4], *ENCODER_MARKERS[(number + number // 4) % 4]


def interval_note(results: Sequence[TaskResult]) -> str:
    """What the bars or dashes around the means show."""
    share = 100 * results[0].results.confidence
    kinds = {each.has_intervals: f"Bars: {share:g} % confidence intervals." for each in results}
    return " ".join(kinds[sure] if sure else "Dashes: single seeds." for sure in sorted(kinds))


def score_panels(results: Sequence[TaskResult]) -> list[Picture]:
    """One panel per method: score against labelled subjects; all of a task on one scale."""
    limits = _axis_limits([row for each in results for row in each.results.rows])
    return [_score_panel(each, method, limits) for each in results for method in each.methods]


def log_panels(rows: Sequence[LogRow]) -> list[Picture]:
    """One panel for the loss, each of its parts, learning rate and speed, against the step."""
    if not rows:
        return []
    order = ["loss", *LOSS_TERMS, "learning_rate", "samples_per_s", "gradient_norm"]
    titles = {name: LOG_TITLES.get(name, f"loss: {name}") for name in order if name in rows[-1]}
    return [log_panel(rows, title, {name: ""}) for name, title in titles.items()]


def log_panel(rows: Sequence[LogRow], title: str, lines: Mapping[str, str]) -> Picture:
    """Some numbers of the log against the step, with a legend where there are several."""
    figure, axes = small_figure(3.3, 2.1)
    ranges = []
    for index, (name, word) in enumerate(lines.items()):
        points = [(row["step"], row[name]) for row in _subsample(rows, name)]
        axes.plot(
            *zip(*points, strict=True),
            color=LINE_COLOURS[index],
            linestyle=LINE_STYLES[index],
            linewidth=1.5,
            marker="o" if len(points) < 8 else "",
            markersize=3,
            label=word,
        )
        ends = [f"{value:.3g} at step {step:g}" for step, value in (points[0], points[-1])]
        ranges.append(f"{word} {', '.join(ends)}".strip())
    if len(lines) > 1:
        axes.legend(fontsize=8, frameon=False, labelcolor=TEXT_COLOUR)
    axes.set_xlabel("step")
    axes.margins(x=0.03, y=0.12)
    if "samples_per_s" in lines:
        axes.set_ylim(bottom=0)
    return Picture(svg_uri(figure), f"{title}: {'; '.join(ranges)}.", title)


def _subsample(rows: Sequence[LogRow], name: str) -> list[LogRow]:
    """The rows that have a number, at most as many as can be distinguished, and the last one."""
    having = [row for row in rows if name in row]
    return [*having[: -1 : -(-len(having) // MAX_POINTS)], having[-1]]


def summary_panel(result: TaskResult, method: str) -> Picture:
    """The panel by which a task is shown on the first screen."""
    return _score_panel(result, method, _axis_limits(result.results.rows))


def primary_method(results: Sequence[TaskResult]) -> tuple[TaskResult, str]:
    """The result and method by which a task is shown on the first screen."""
    by_method = {method: each for each in results for method in each.methods}
    method = next(
        (method for method in PREFERRED_METHODS if method in by_method), next(iter(by_method))
    )
    return by_method[method], method


def _score_panel(result: TaskResult, method: str, limits: tuple[float, float]) -> Picture:
    figure, axes = small_figure(3.9, 2.9)
    _draw_scores(axes, result, method, limits)
    metric, title = result.metric.title, method_title(method)
    ends = _describe_last_points(result, method)
    return Picture(svg_uri(figure), f"{title}: {metric} against labelled subjects; {ends}.", title)


def _describe_last_points(result: TaskResult, method: str) -> str:
    """The last point of each curve, in words."""
    series = result.series(method).items()
    last = (f"{initialization_title(init)} {format_score(rows[-1].mean)}" for init, rows in series)
    return f"with most, {', '.join(last)}"


def _draw_scores(
    axes: "Axes", result: TaskResult, method: str, limits: tuple[float, float]
) -> None:
    budgets, chance = result.label_budgets(method), 1 / max(1, len(result.results.classes))
    if result.metric.has_chance_level and limits[0] < chance < limits[1]:
        axes.axhline(chance, color="#777777", linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            "chance",
            (1, chance),
            (-2, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            color="#666666",
            fontsize=8.5,
        )
    series = result.series(method)
    for index, (init, rows) in enumerate(series.items()):
        shift = 0.13 * (index - (len(series) - 1) / 2)
        places = [budgets.index(row.subjects) + shift for row in rows]
        _plot_series(axes, marker_styles(result.initializations)[init], rows, places)
    axes.set_xticks(range(len(budgets)), [result.budget_text(number) for number in budgets])
    axes.set_xlim(-0.45, len(budgets) - 0.55)
    axes.set_ylim(*limits)
    axes.set_xlabel("labelled subjects")
    axes.set_ylabel(result.metric.title)


def _plot_series(
    axes: "Axes", style: tuple[str, str, str], rows: Sequence[ScoreRow], positions: Sequence[float]
) -> None:
    """Means with their intervals, or with a dot a seed where there is no interval."""
    known = [
        (x, row.mean, row)
        for x, row in zip(positions, rows, strict=True)
        if row.mean is not None and abs(row.mean) <= LARGEST_DRAWN
    ]
    colour, marker, _ = style
    axes.plot(
        [x for x, _, _ in known],
        [mean for _, mean, _ in known],
        color=colour,
        marker=marker,
        markersize=5.5,
        linewidth=1.6,
        zorder=3,
    )
    for x, _, row in known:
        if row.interval:
            ends = [min(max(end, -LARGEST_DRAWN), LARGEST_DRAWN) for end in row.interval]
            axes.plot([x, x], ends, color=colour, linewidth=1.4, zorder=2)
        else:
            seeds = [
                value for value in row.per_seed if value is not None and abs(value) <= LARGEST_DRAWN
            ]
            axes.plot(
                [x] * len(seeds),
                seeds,
                color=colour,
                marker="_",
                markersize=8,
                linestyle="none",
                alpha=0.6,
                zorder=2,
            )


def _axis_limits(rows: Sequence[ScoreRow]) -> tuple[float, float]:
    """A scale that holds all means, intervals and seeds of a task, as far as they are drawn."""
    values = [value for row in rows for value in (row.mean, row.low, row.high)]
    values += [value for row in rows if row.interval is None for value in row.per_seed]
    shown = [value for value in values if value is not None and abs(value) <= LARGEST_DRAWN]
    if not shown:
        return 0.0, 1.0
    low = min(shown) - 0.06
    return low if min(shown) < 0 else max(low, -0.02), min(max(shown) + 0.06, 1.03)


def small_figure(width: float, height: float) -> tuple["Figure", "Axes"]:
    """An empty figure (inches) without a frame's noise."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, _style_axes(figure.add_subplot())


def _style_axes(axes: Any) -> "Axes":
    """Axes without a frame's noise."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#888888")
    axes.tick_params(colors=TEXT_COLOUR, labelsize=9, length=3)
    axes.grid(axis="y", color=GRID_COLOUR, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.label.set(color=TEXT_COLOUR, fontsize=9.5)
    axes.yaxis.label.set(color=TEXT_COLOUR, fontsize=9.5)
    plain: Axes = axes
    return plain


def svg_uri(figure: "Figure") -> str:
    """A figure as a data URI, the same bytes whenever it is drawn."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "report"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
