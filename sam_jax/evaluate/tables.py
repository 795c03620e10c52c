"""Results as Markdown tables."""

from collections.abc import Sequence

# What the rows of the model are called; the others are named as their baseline.
MODEL = "sam"


def table_lines(titles: Sequence[str], rows: Sequence[Sequence[str | float | None]]) -> list[str]:
    """A table: numbers with three digits, nothing for None."""
    return [_line(titles), "|---" * len(titles) + "|", *map(_line, rows)]


def _line(cells: Sequence[str | float | None]) -> str:
    return "| " + " | ".join(map(_text, cells)) + " |"


def _text(cell: str | float | None) -> str:
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else f"{cell:.3f}"
