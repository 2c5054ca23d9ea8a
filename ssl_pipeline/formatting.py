"""Formatting of numbers for people: scores, intervals, counts, durations, sizes.

One place, so that all tables look the same: `.93 [.90, .95]`, `+.120 [+.080, +.160]`, `.93 ± .02`.
"""

import re

NO_VALUE = "–"
TAG_START = re.compile(r"<(?=[A-Za-z/!?])")
LARGEST_IN_FULL = 1e6  # a number from there on has an exponent
Number = float | None


def format_score(value: Number, digits: int = 2) -> str:
    """A score: `.93`, `1.00`, `1.2e+08`, or a dash where it is not defined."""
    if value is None:
        return NO_VALUE
    text = f"{abs(value):.{digits}f}" if abs(value) < LARGEST_IN_FULL else f"{abs(value):.1e}"
    sign = "−" if value < 0 and float(text) else ""
    return sign + (text[1:] if text.startswith("0.") else text)


def format_signed(value: Number) -> str:
    """A difference of scores, with its sign: `+.120`."""
    text = format_score(value, 3)
    return f"+{text}" if value is not None and value > 0 and float(text) else text


def format_with_interval(mean: Number, low: Number, high: Number) -> str:
    """A score and its interval: `.93 [.90, .95]`; the score alone where there is none."""
    if low is None or high is None:
        return format_score(mean)
    return f"{format_score(mean)} [{format_score(low)}, {format_score(high)}]"


def format_with_spread(mean: Number, sd: Number) -> str:
    """A score and its standard deviation over seeds: `.93 ± .02`."""
    return format_score(mean) if sd is None else f"{format_score(mean)} ± {format_score(sd)}"


def format_difference(mean: Number, low: Number, high: Number) -> str:
    """A difference and its interval: `+.120 [+.080, +.160]`."""
    if low is None or high is None:
        return format_signed(mean)
    return f"{format_signed(mean)} [{format_signed(low)}, {format_signed(high)}]"


def format_p_value(value: float) -> str:
    """A p-value: `= .03`, `< .001`."""
    return "< .001" if value < 0.001 else f"= {format_score(value, 2 if value >= 0.1 else 3)}"


def format_count(number: int, noun: str) -> str:
    """A number and its noun: `1 scan`, `1,200 scans`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def format_duration(seconds: float) -> str:
    """Seconds as a person says them: `3.2 s`, `4 min 10 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def format_bytes(n_bytes: int | float) -> str:
    """Bytes as a person says them: `512 B`, `3.2 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"


def markdown_line(text: str) -> str:
    """A text of a user as one line of Markdown, also in a table, in which nothing is HTML."""
    return TAG_START.sub("&lt;", " ".join(text.splitlines())).replace("|", r"\|")


def escape_bytes(text: str) -> str:
    r"""A file's name that can be printed and stored: bytes that are not UTF-8 become `\xfc`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
