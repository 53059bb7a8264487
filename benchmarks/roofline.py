"""Draws what the vector, matmul and attention benchmarks found under the roofs that the machine benchmark found."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

KINDS = {"vector": ("o", "tab:blue"), "matmul": ("s", "tab:orange"), "attention": ("D", "tab:green")}
CUBE = re.compile(r"matmul (f32|i8) +(\d+)x\2x\2")

# Where the text of a point may stand: points to the right and up, which end touches it.
PLACES = [(5, -2, "left"), (-5, -2, "right"), (0, 5, "center"), (0, -10, "center"), (4, 4, "left"), (4, -9, "left"),
          (-4, 4, "right"), (-4, -9, "right"), (0, 13, "center"), (0, -18, "center")]


def label(claim: str, name: str) -> str:
    """What stands beside the point."""
    if claim == "matmul":
        return " ".join(CUBE.fullmatch(name).groups())  # type: ignore[union-attr]
    return name.split()[1] if claim == "attention" else name.removesuffix(" f32")


def annotate(axes: Any, text: str, at: tuple[float, float], color: str, taken: list[Any]) -> None:
    """Write the text where it hides no other and no point, or else to the right."""
    for x, y, side in PLACES:
        note = axes.annotate(text, at, (x, y), textcoords="offset points", fontsize=6.5, color=color, ha=side)
        box = note.get_window_extent()
        if not any(box.overlaps(other) for other in taken):
            break
        note.remove()
    else:
        note = axes.annotate(text, at, PLACES[0][:2], textcoords="offset points", fontsize=6.5, color=color)
    taken.append(note.get_window_extent())


def draw(claims: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """GFLOP/s over operations per byte of inputs and outputs, as the benchmarks count them. Of the products, cubes."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10.5, 6.5))
    span, lowest = (0.1, 130.0), 2.5
    facts = claims["machine"]
    peak = next(row["median"] for row in facts if row["unit"] == "GFLOP/s")
    for row, style in zip([r for r in facts if r["unit"] == "GB/s"], ("-", "--", ":")):
        corner = peak / row["median"]
        axes.plot([span[0], corner, span[1]], [span[0] * row["median"], peak, peak], style, color="gray", linewidth=1)
        start = max(span[0], lowest / row["median"])        # where the roof comes into the picture
        axes.annotate(f"{row['name']}: {row['median']:.0f} GB/s", (start * 1.1, start * 1.16 * row["median"]),
                      fontsize=8, color="gray", rotation=39, rotation_mode="anchor")
    axes.annotate(f"multiply-add in registers: {peak:.0f} GFLOP/s", (span[0] * 1.1, peak * 1.08), fontsize=8,
                  color="gray")
    axes.set(xscale="log", yscale="log", xlim=span, ylim=(lowest, peak * 3),
             xlabel="operations per byte of inputs and outputs", ylabel="GFLOP/s on one core")
    points = []
    for claim, (marker, color) in KINDS.items():
        rows = [r for r in claims.get(claim, []) if r["flops"] and r["bytes"]]
        if claim == "matmul":
            rows = [r for r in rows if CUBE.fullmatch(r["name"])]
        for number, row in enumerate(rows):
            at = row["flops"] / row["bytes"], row["flops"] / row["median"] / 1e9
            [point] = axes.plot(*at, marker, color=color, markersize=5, label=claim if number == 0 else None)
            points.append((label(claim, row["name"]), at, color, point))
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    figure.tight_layout()
    taken = [point.get_window_extent() for *_, point in points]
    for text, at, color, _ in points:
        annotate(axes, text, at, color, taken)
    figure.savefig(file, dpi=85)
