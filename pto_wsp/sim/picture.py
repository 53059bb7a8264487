"""Timeline -> matplotlib figure. The only file here that needs matplotlib, an optional extra."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import UsageError
from pto_wsp.sim.inorder import Wait

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    from pto_wsp.sim.timeline import Timeline

__all__ = ["draw"]

KERNEL_COLOURS = (
    "#4C78A8",
    "#F58518",
    "#54A24B",
    "#B279A2",
    "#72B7B2",
    "#E45756",
    "#EECA3B",
    "#9D755D",
    "#FF9DA6",
)
WAIT_COLOURS = {
    Wait.DEPENDENCY: "#222222", Wait.IN_ORDER: "#B8B8B8", Wait.WINDOW_FULL: "#D62728",
    Wait.CHANNEL_EMPTY: "#8C9EFF",
    Wait.CHANNEL_FULL: "#D62728",
}
WAIT_LABELS = {
    Wait.DEPENDENCY: "idle: waits for predecessors",
    Wait.IN_ORDER: "idle: an earlier task is held up",
    Wait.WINDOW_FULL: "idle: window is full",
    Wait.CHANNEL_EMPTY: "idle: waits for a token",
    Wait.CHANNEL_FULL: "idle: waits for room in a channel",
}
MOST_BARS = 200_000
BAR, GAP = 0.36, 0.04  # half heights, in lanes


def draw(timeline: Timeline, ax: Axes | None = None) -> Figure:
    """Bars for tasks, thin lines for the idle time before them."""
    if len(timeline) > MOST_BARS:
        raise UsageError(
            f"{len(timeline):,} tasks do not fit into a picture (at most {MOST_BARS:,}); "
            "timeline.text() samples them, timeline.save('trace.json') keeps them all for Perfetto"
        )
    if ax is None:
        height = 1.5 + min(0.42 * timeline.workers, 4.2 + 0.16 * timeline.workers, 16.0)
        ax = _new_figure(height).add_subplot()
    assert ax is not None
    _lanes(timeline, ax)
    _bars(timeline, ax)
    _gaps(timeline, ax)
    _frame(timeline, ax)
    result = ax.figure
    return result  # type: ignore[return-value]


def _new_figure(height: float) -> Figure:
    """A figure that a notebook shows as a picture, whether pyplot has been imported or not."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("timeline.plot() needs matplotlib: pip install 'pto_wsp[plot]'") from error

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            out = io.BytesIO()
            self.savefig(out, dpi=110)
            return out.getvalue()

    return Picture(figsize=(11, height), layout="constrained")


def _boxes(
    left: NDArray[Any], right: NDArray[Any], middle: NDArray[Any], half: float, **style: Any
) -> PolyCollection:
    """One rectangle per entry, between `left` and `right`, `half` above and below `middle`."""
    from matplotlib.collections import PolyCollection

    low, high = middle - half, middle + half
    corners = ((left, low), (right, low), (right, high), (left, high))
    return PolyCollection(list(np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)), **style)


def _lanes(timeline: Timeline, ax: Axes) -> None:
    for worker in range(timeline.workers):
        ax.axhspan(worker - 0.45, worker + 0.45, color="#F3F3F3" if worker % 2 else "#FAFAFA", zorder=0, lw=0)


def _bars(timeline: Timeline, ax: Axes) -> None:
    kernel = timeline.kernel
    style = {"edgecolors": "white", "linewidths": 0.6 if len(timeline) <= 2000 else 0.0, "zorder": 2}
    for index, name in enumerate(timeline.kernels):
        of = np.flatnonzero(kernel == index)
        colour = KERNEL_COLOURS[index % len(KERNEL_COLOURS)]
        start, end, worker = timeline.start[of], timeline.end[of], timeline.worker[of]
        ax.add_collection(_boxes(start, end, worker, BAR, facecolors=colour, label=name, **style))
    if len(timeline) <= 400:
        _names(timeline, ax)


def _names(timeline: Timeline, ax: Axes) -> None:
    """Axis values inside the bars that are wide enough for them."""
    room = timeline.total_cycles / 130  # cycles per character, about
    for span in timeline:
        text = ",".join(map(str, span.axes))
        if text and len(text) * room < span.end - span.start:
            middle = (span.start + span.end) / 2
            ax.text(middle, span.worker, text, ha="center", va="center", fontsize=8, color="white", zorder=3)


def _gaps(timeline: Timeline, ax: Axes) -> None:
    idle = timeline.idle
    for wait, colour in WAIT_COLOURS.items():
        of = np.flatnonzero((timeline.wait == wait) & (idle > 0))
        if len(of):
            start, worker = timeline.start[of], timeline.worker[of]
            style = {"facecolors": colour, "lw": 0, "label": WAIT_LABELS[wait], "zorder": 1}
            ax.add_collection(_boxes(start - idle[of], start, worker, GAP, **style))


def _frame(timeline: Timeline, ax: Axes) -> None:
    from matplotlib.ticker import FuncFormatter

    total = timeline.total_cycles
    busy = int((timeline.end - timeline.start).sum())
    share = busy / (total * timeline.workers) if total else 0.0
    ax.set_title(
        f"{timeline.name}: {len(timeline):,} tasks, {total:,} cycles, workers {share:.0%} busy",
        loc="left",
        fontsize=11,
        fontweight="bold",
    )
    ax.set_xlim(0, max(total, 1))
    ax.set_ylim(timeline.workers - 0.5, -0.5)
    step = max(1, -(-timeline.workers // 24))
    ax.set_yticks(range(0, timeline.workers, step), [timeline.lane(w) for w in range(0, timeline.workers, step)])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda cycles, _: f"{cycles:,.0f}"))
    ax.set_xlabel("cycles")
    ax.tick_params(length=0)
    ax.grid(axis="x", color="#DDDDDD", lw=0.6, zorder=0)
    ax.set_axisbelow(True)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        figure: Any = ax.figure
        figure.legend(
            handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False, fontsize=9
        )
