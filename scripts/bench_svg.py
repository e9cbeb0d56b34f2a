"""The frame of the charts that the benchmarks draw."""

from collections.abc import Sequence
from html import escape


def picture(width: int, height: int, parts: Sequence[str]) -> str:
    """Return an SVG of this size with these parts in it."""
    style = 'font-family="sans-serif" font-size="11"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {style}>'
    return "\n".join([head, *parts, "</svg>", ""])


def label(left: float, top: float, text: str, *, bold: bool = False, color: str = "black") -> str:
    """Return a line of text."""
    weight = "bold" if bold else "normal"
    return f'<text x="{left:.1f}" y="{top:.1f}" font-weight="{weight}" fill="{color}">{escape(text)}</text>'
