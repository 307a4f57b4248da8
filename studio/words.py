"""Numbers in words, the same on every page, in every report and on the command line."""


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 05 s`, `1 h 12 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def counted(number: int, noun: str) -> str:
    """`1 picture`, `1,991 pictures`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
