"""Numbers and lists as verdicts write them in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evolve.verdicts.bootstrap import Interval


def percent(share: float) -> str:
    """Return a share in percent, rounded down: only what is the optimum reads 100.00 %."""
    return f"{math.floor(share * 1e4 + 1e-6) / 100:.2f} %"


def points(difference: float) -> str:
    """Return a difference of shares in percentage points, without its sign."""
    return f"{abs(100 * difference):.2f} points"


def signed_range(interval: Interval) -> str:
    """Return an interval of differences in percentage points, with signs."""
    low, high = (_signed(each) for each in (interval.low, interval.high))
    return f"95 % interval {low} to {high}"


def _signed(difference: float) -> str:
    text = f"{100 * difference:+.2f}"
    return "0" if float(text) == 0 else text.replace("-", "−")


def listed(parts: Sequence[str]) -> str:
    """Join words as in a sentence: ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def counted(count: int, noun: str) -> str:
    """Return a count with its noun in the right number."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
