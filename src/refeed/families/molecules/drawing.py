"""Pictures as SVG, drawn here: conformers as balls and sticks, and small plots of distributions and curves."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np

COLOURS = {1: (232, 232, 232), 6: (88, 94, 104), 7: (49, 92, 214), 8: (214, 54, 40), 9: (86, 170, 70), 15: (222, 130, 20),
           16: (222, 182, 20), 17: (40, 150, 60), 35: (140, 50, 30), 53: (120, 20, 140)}  # fmt: skip
OTHER = (150, 110, 150)
SIZE = 200
INK, MUTED, RULE, REAL, MADE = "#1e2530", "#667080", "#d5d9df", "#c9ced6", "#0072b2"


def conformer(positions: np.ndarray, atoms: np.ndarray, bonds: np.ndarray, *, view: np.ndarray, extent: float) -> str:
    """A conformer seen along the third axis of `view` (3, 3), nearer parts darker; the picture is 2 `extent` Angstrom wide.

    Grown where the conformer is larger than that; the bar is 2 Angstrom long.
    """
    x = (positions - positions.mean(axis=0)) @ view
    extent = max(extent, 1.1 * float(np.abs(x[:, :2]).max(initial=0)))
    scale = SIZE / (2 * extent)
    depth = (x[:, 2] - x[:, 2].min()) / max(float(np.ptp(x[:, 2])), 1e-9)
    at = SIZE / 2 + scale * x[:, :2] * np.array([1, -1])
    radius = np.clip(scale * np.where(atoms == 1, 0.22, 0.36), 1.6, 12)
    parts: list[tuple[float, str]] = []
    for i, j, kind in bonds.tolist():
        near = (depth[i] + depth[j]) / 2
        width = np.clip(scale * (0.15 if kind == 1 else 0.21), 0.9, 6) * (0.75 + 0.5 * near)
        (x1, y1), (x2, y2) = at[i], at[j]
        line = (
            f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{_shade((120, 126, 136), near)}" stroke-width="{width:.1f}"/>'
        )
        parts.append((near - 1e-3, line))
    for atom, z in enumerate(atoms.tolist()):
        near = float(depth[atom])
        colour, edge = _shade(COLOURS.get(z, OTHER), near), _shade(tuple(int(0.6 * c) for c in COLOURS.get(z, OTHER)), near)
        r = radius[atom] * (0.8 + 0.4 * near)
        ball = (
            f'<circle cx="{at[atom, 0]:.1f}" cy="{at[atom, 1]:.1f}" r="{r:.1f}" fill="{colour}" stroke="{edge}" stroke-width=".7"/>'
        )
        parts.append((near, ball))
    bar = f'<path d="M8 {SIZE - 8}h{2 * scale:.1f}" stroke="{MUTED}" stroke-width="2"/>'
    return _svg("".join(part for _, part in sorted(parts)) + bar, SIZE, SIZE)


def plot(
    title: str,
    x: np.ndarray,
    lines: Sequence[tuple[np.ndarray, str, bool]],
    *,
    top: float,
    ticks: Sequence[float],
    unit: str,
) -> str:
    """A small plot of lines (y, colour, filled) over x, from 0 to `top`."""
    width, height, left, right, up, down = 210, 150, 6, 6, 24, 34
    across = left + (x - x[0]) / (x[-1] - x[0]) * (width - left - right)
    base, room = height - down, height - down - up
    marks = [f'<text x="{left}" y="16" font-size="13" fill="{INK}">{title}</text>']
    for y, colour, filled in lines:
        heights = base - np.clip(y / top, 0, 1) * room
        way = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(across, heights, strict=True))
        marks.append(
            f'<path d="M{across[0]:.1f} {base}L{way}L{across[-1]:.1f} {base}Z" fill="{colour}"/>'
            if filled
            else f'<path d="M{way}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
    marks.append(f'<path d="M{left} {base}H{width - right}" stroke="{MUTED}" stroke-width="1"/>')
    for tick in ticks:
        place = left + (tick - x[0]) / (x[-1] - x[0]) * (width - left - right)
        anchor = "start" if place < left + 12 else "end" if place > width - right - 12 else "middle"
        marks.append(f'<text x="{place:.1f}" y="{base + 15}" font-size="12" fill="{MUTED}" text-anchor="{anchor}">{tick:g}</text>')
    marks.append(f'<text x="{width / 2}" y="{height - 4}" font-size="12" fill="{MUTED}" text-anchor="middle">{unit}</text>')
    return _svg("".join(marks), width, height)


def _shade(colour: Sequence[int], near: float) -> str:
    """The colour, faded towards white with distance from the eye."""
    strength = 0.42 + 0.58 * near
    red, green, blue = (round(255 - strength * (255 - part)) for part in colour)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _svg(body: str, width: int, height: int) -> str:
    """A data URI of an SVG on white, so that it reads on a dark page too."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    style = f'<rect width="{width}" height="{height}" fill="#fff"/><g stroke-linecap="round" font-family="sans-serif">'
    return f"data:image/svg+xml;base64,{base64.b64encode(f'{head}{style}{body}</g></svg>'.encode()).decode()}"
