"""Numbers and tables of the benchmark's Markdown."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["number", "rows", "share"]


def share(value: float | None) -> str:
    """A fraction in percent; ``-`` when there is none."""
    return "-" if value is None else f"{100 * value:.1f} %"


def number(value: float | None) -> str:
    """With separators; ``-`` when there is none."""
    return "-" if value is None else f"{value:,.0f}"


def rows(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))
