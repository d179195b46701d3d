"""The two comparisons that matter most, as an SVG."""

from __future__ import annotations

from html import escape

from tests.benchmarks.reports import Report, Table

BARS = (("One decision, sync", 3), ("Whole request", 4))
"""Titles of tables, and the column that is drawn."""

WIDTH, LABELS, BAR, GAP = 900, 420, 18, 6


def chart(report: Report) -> str:
    """Return bars for the ratios of one decision and of one whole request."""
    parts, top = [], 10
    for title, column in BARS:
        table = report.table(title)
        if table is not None:
            drawn, top = _bars(table, column, top)
            parts += drawn
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" font-size="13"'
    style = ' font-family="system-ui, sans-serif" fill="#222">'
    return "\n".join([head + style, *parts, "</svg>\n"])


def _bars(table: Table, column: int, top: int) -> tuple[list[str], int]:
    heading = f"{table.title}: {table.columns[column]}"
    parts = [f'<text x="10" y="{top + 14}" font-weight="bold">{escape(heading)}</text>']
    top += BAR + GAP
    most = max(float(row[column]) for row in table.rows)
    for row in table.rows:
        name, value = str(row[0]), float(row[column])
        width = max(1.0, value / most * (WIDTH - LABELS - 70))
        color = "#2a7f62" if name.startswith("this app") or "TierThrottle" in name else "#9aa7b1"
        middle = top + BAR - 5
        parts += [
            f'<text x="{LABELS - 8}" y="{middle}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LABELS}" y="{top}" width="{width:.0f}" height="{BAR}" fill="{color}"/>',
            f'<text x="{LABELS + width + 6:.0f}" y="{middle}">{value:.2f}</text>',
        ]
        top += BAR + GAP
    return parts, top + 2 * GAP
