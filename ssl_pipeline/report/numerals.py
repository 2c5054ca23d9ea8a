"""How the report writes numbers: scores without a leading zero, and an interval in brackets behind.

One place, so that every table reads alike: `.93 [.90, .95]`, `+.120 [+.080, +.160]`, `.93 ± .02`.
"""

NOTHING = "–"
Number = float | None


def score(value: Number, digits: int = 2) -> str:
    """A score: `.93`, `1.00`, or a dash where it is not defined."""
    if value is None:
        return NOTHING
    text = f"{abs(value):.{digits}f}"
    sign = "−" if value < 0 and float(text) else ""
    return sign + (text[1:] if text.startswith("0.") else text)


def signed(value: Number) -> str:
    """A difference of scores, with its sign: `+.120`."""
    text = score(value, 3)
    return f"+{text}" if value is not None and value > 0 and float(text) else text


def with_interval(mean: Number, low: Number, high: Number) -> str:
    """A score and its interval: `.93 [.90, .95]`; the score alone where there is none."""
    if low is None or high is None:
        return score(mean)
    return f"{score(mean)} [{score(low)}, {score(high)}]"


def with_spread(mean: Number, deviation: Number) -> str:
    """A score and its standard deviation over seeds: `.93 ± .02`."""
    return score(mean) if deviation is None else f"{score(mean)} ± {score(deviation)}"


def difference(mean: Number, low: Number, high: Number) -> str:
    """A difference and its interval: `+.120 [+.080, +.160]`."""
    if low is None or high is None:
        return signed(mean)
    return f"{signed(mean)} [{signed(low)}, {signed(high)}]"


def probability(value: float) -> str:
    """A p-value: `= .03`, `< .001`."""
    return "< .001" if value < 0.001 else f"= {score(value, 2 if value >= 0.1 else 3)}"


def count(number: int, noun: str) -> str:
    """A number and its noun: `1 scan`, `1,200 scans`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    """Seconds as a person says them: `3.2 s`, `4 min 10 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def size(number: int) -> str:
    """Bytes as a person says them: `3.2 MiB`."""
    value = float(number)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
