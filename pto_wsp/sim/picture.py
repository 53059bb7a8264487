"""Timeline -> matplotlib figure. The only file here that needs matplotlib, an optional extra.

Each worker has a lane. Where tasks can be told apart they are bars, and the gaps between them are narrower bars in the
colour of the reason; where there are too many, each column of a lane shows the shares of its time. Start reading at
`draw` and `_panel`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.arguments import is_sequence
from pto_wsp.errors import UsageError
from pto_wsp.sim.inorder import Wait

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    from pto_wsp.sim.timeline import Timeline

__all__ = ["compare", "draw"]

KERNEL_COLOURS = (
    "#4C78A8",
    "#F58518",
    "#54A24B",
    "#B279A2",
    "#72B7B2",
    "#EECA3B",
    "#9D755D",
    "#FF9DA6",
    "#2F4B7C",
    "#A0CBE8",
)
WAITS = {
    Wait.DEPENDENCY: ("#8F8F8F", "waits for predecessors"),
    Wait.IN_ORDER: ("#D9CDB4", "an earlier task is held up"),
    Wait.WINDOW_FULL: ("#D62728", "the window is full"),
    Wait.WORKER_BUSY: ("#C7DDF0", "the next task waits for another worker"),
    Wait.RATE_LIMIT: ("#7B3FA0", "rate limit"),
    Wait.START: ("#17BECF", "start policy or batch"),
    Wait.ORCHESTRATOR: ("#A8A82A", "tasks are not generated yet"),
    Wait.CHANNEL_EMPTY: ("#E377C2", "waits for a token"),
    Wait.CHANNEL_FULL: ("#8C3B1B", "waits for room in a channel"),
}
BOUNDS = {"work / workers": ":", "critical path": "--", "fullest worker": "-.", "rate limit": (0, (6, 1, 1, 1, 1, 1))}
MOST_BARS = 3_000
MOST_LANES = 128
COLUMNS = 1_100  # of a picture that shows shares
BAR, GAP = 0.38, 0.17  # half heights, in lanes
CRITICAL = "#000000"


def draw(timeline: Timeline, ax: Axes | None = None) -> Figure:
    """One timeline."""
    if ax is None:
        ax = _new_figure(1.9 + _height(timeline)).add_subplot()
    assert ax is not None
    _panel(timeline, ax, max(timeline.total_cycles, 1))
    _heading(ax, _title(timeline), _summary(timeline))
    ax.set_xlabel("cycles")
    _legend(ax.figure, [ax])
    result = ax.figure
    return result  # type: ignore[return-value]


def compare(timelines: Any) -> Figure:
    """Several timelines, one below the other, on one axis of time.

    timelines   a dict of label -> Simulation, Timeline or Program, or a sequence of them
    raises      UsageError for an empty one
    """
    named = _named(timelines)
    heights = [max(min(_height(timeline), 11.0 / len(named)), 0.7) for _, timeline in named]
    figure = _new_figure(1.3 + sum(heights) + 0.55 * len(named))
    axes = figure.subplots(len(named), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    most = max(max(timeline.total_cycles for _, timeline in named), 1)
    colours = _colours([timeline for _, timeline in named])
    for (label, timeline), ax in zip(named, axes, strict=True):
        _panel(timeline, ax, most, colours)
        _heading(ax, label, _summary(timeline))
    axes[-1].set_xlabel("cycles")
    _legend(figure, list(axes))
    return figure


def _named(timelines: Any) -> list[tuple[str, Timeline]]:
    if isinstance(timelines, Mapping):
        items = list(timelines.items())
    else:
        items = [("", each) for each in timelines] if is_sequence(timelines) else []
    found = [(label, each.timeline() if hasattr(each, "timeline") else each) for label, each in items]
    if not found or not all(hasattr(timeline, "critical_path") for _, timeline in found):
        raise UsageError(
            "compare_timelines() takes several simulations, timelines or programs: a list, or a dict with a label for "
            f"each; got {timelines!r}"
        )
    return [(label or _title(timeline), timeline) for label, timeline in found]


def _title(timeline: Timeline) -> str:
    return ": ".join(filter(None, (timeline.name, timeline.title)))


def _summary(timeline: Timeline) -> str:
    total = timeline.total_cycles
    share = float(timeline.busy.sum()) / (total * timeline.workers) if total else 0.0
    return f"{len(timeline):,} tasks, {total:,} cycles, workers {share:.0%} busy"


def _height(timeline: Timeline) -> float:
    """Inches of the lanes of a timeline."""
    return float(np.clip(0.36 * timeline.workers, 0.8, 3.6 + 0.045 * min(timeline.workers, MOST_LANES)))


def _new_figure(height: float) -> Figure:
    """A figure that a notebook shows as a picture, whether pyplot has been imported or not."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("pictures of timelines need matplotlib: pip install 'pto_wsp[plot]'") from error

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            out = io.BytesIO()
            self.savefig(out, dpi=110)
            return out.getvalue()

    return Picture(figsize=(11, height), layout="constrained")


# ---- one timeline in one frame


def _panel(timeline: Timeline, ax: Axes, most: int, colours: Mapping[str, str] | None = None) -> None:
    """Everything of a timeline but title and legend. most: cycles that the axis reaches."""
    colours = colours or _colours([timeline])
    rows = min(timeline.workers, MOST_LANES)
    _lanes(rows, ax)
    if len(timeline) > MOST_BARS or rows < timeline.workers:
        _shares(timeline, ax, rows, colours)
    else:
        _gaps(timeline, ax)
        _bars(timeline, ax, colours, most)
    _critical(timeline, ax, rows)
    _bounds(timeline, ax)
    _frame(timeline, ax, rows, most)
    _utilisation(timeline, ax, rows)


def _colours(timelines: Iterable[Timeline]) -> dict[str, str]:
    names = dict.fromkeys(name for timeline in timelines for name in timeline.kernels)
    return {name: KERNEL_COLOURS[k % len(KERNEL_COLOURS)] for k, name in enumerate(names)}


def _boxes(
    left: NDArray[Any], right: NDArray[Any], middle: NDArray[Any], half: float, **style: Any
) -> PolyCollection:
    """One rectangle per entry, between `left` and `right`, `half` above and below `middle`."""
    from matplotlib.collections import PolyCollection

    low, high = middle - half, middle + half
    corners = ((left, low), (right, low), (right, high), (left, high))
    return PolyCollection(list(np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)), **style)


def _lanes(rows: int, ax: Axes) -> None:
    for row in range(0, rows, 2):
        ax.axhspan(row - 0.5, row + 0.5, color="#F6F6F6", zorder=0, lw=0)


def _bars(timeline: Timeline, ax: Axes, colours: Mapping[str, str], most: int) -> None:
    wide = timeline.end - timeline.start > most / 300  # a white edge would hide the others
    for index, name in enumerate(timeline.kernels):
        for some, edge in ((wide, "white"), (~wide, colours[name])):
            of = np.flatnonzero((timeline.kernel == index) & some)
            if len(of):
                start, end, worker = timeline.start[of], timeline.end[of], timeline.worker[of]
                style: dict[str, Any] = {"facecolors": colours[name], "edgecolors": edge, "zorder": 2}
                style.update({"linewidths": 0.5} if edge == "white" else {"linewidths": 0.5, "snap": False})
                ax.add_collection(_boxes(start, end, worker, BAR, label=name, **style))
    if len(timeline) <= 400 and timeline.workers <= 16:
        _names(timeline, ax, most)


def _names(timeline: Timeline, ax: Axes, most: int) -> None:
    """Axis values inside the bars that are wide enough for them."""
    room = most / 120  # cycles per character, about
    for span in timeline:
        text = ",".join(map(str, span.axes))
        if text and (len(text) + 1) * room < span.end - span.start:
            middle = (span.start + span.end) / 2
            ax.text(middle, span.worker, text, ha="center", va="center", fontsize=8, color="white", zorder=5)


def _gaps(timeline: Timeline, ax: Axes) -> None:
    idle = timeline.idle
    for wait, (colour, label) in WAITS.items():
        of = np.flatnonzero((timeline.wait == wait) & (idle > 0))
        if len(of):
            start, worker = timeline.start[of], timeline.worker[of]
            style = {"facecolors": colour, "lw": 0, "label": f"idle: {label}", "zorder": 1}
            ax.add_collection(_boxes(start - idle[of], start, worker, GAP, **style))


def _shares(timeline: Timeline, ax: Axes, rows: int, colours: Mapping[str, str]) -> None:
    """An image: of each row and stretch of time, how much of it each kernel ran, and each reason to wait took."""
    from matplotlib.colors import to_rgba

    total = max(timeline.total_cycles, 1)
    columns = min(COLUMNS, total)
    row_of = timeline.worker.astype(np.int64) * rows // timeline.workers
    width = np.bincount(np.arange(timeline.workers) * rows // timeline.workers, minlength=rows)
    kinds = [(colours[name], name, timeline.kernel == k, timeline.start, timeline.end)
             for k, name in enumerate(timeline.kernels)]  # fmt: skip
    idle = timeline.idle
    for wait, (colour, label) in WAITS.items():
        of = (timeline.wait == wait) & (idle > 0)
        if of.any():
            kinds.append((colour, f"idle: {label}", of, timeline.start - idle, timeline.start))
    shares = [_share(start[of], end[of], row_of[of], rows, columns, total) for _, _, of, start, end in kinds]
    tall = max(4, 900 // rows)
    levels = np.cumsum(shares, axis=0) / width[:, None]  # [kinds, rows, columns], 0 .. 1
    height = (np.arange(tall) + 0.5) / tall
    kind = (levels[:, :, None, :] <= height[::-1, None]).sum(axis=0)  # [rows, tall, columns]
    palette = np.array([to_rgba(colour) for colour, *_ in kinds] + [(1.0, 1.0, 1.0, 0.0)])
    image = np.zeros((rows, tall + 2 * max(tall // 12, 1), columns, 4))
    image[:, max(tall // 12, 1) : -max(tall // 12, 1)] = palette[kind]
    extent = (0, total, rows - 0.5, -0.5)
    ax.imshow(image.reshape(-1, columns, 4), extent=extent, aspect="auto", interpolation="nearest", zorder=2)
    for colour, label, *_ in kinds:
        ax.plot([], [], "s", color=colour, ms=8, label=label)


def _share(start: NDArray[Any], end: NDArray[Any], row: NDArray[Any], rows: int, columns: int, total: int) -> Any:
    """[rows, columns] the sum of the parts of these stretches in each column, in columns."""
    scale = columns / total
    begin, until = start * scale, end * scale
    first, last = np.floor(begin).astype(np.int64), np.minimum(np.floor(until).astype(np.int64), columns - 1)
    found = np.zeros((rows, columns + 1))
    inside = first == last
    np.add.at(found, (row[inside], first[inside]), (until - begin)[inside])
    across = ~inside
    np.add.at(found, (row[across], first[across]), (first + 1 - begin)[across])
    np.add.at(found, (row[across], last[across]), (until - last)[across])
    whole = np.zeros((rows, columns + 1))
    np.add.at(whole, (row[across], first[across] + 1), 1.0)
    np.add.at(whole, (row[across], last[across]), -1.0)
    return (found + np.cumsum(whole, axis=1))[:, :columns]


def _critical(timeline: Timeline, ax: Axes, rows: int) -> None:
    """Outlines of what is on the critical path, joined by lines; a line alone where there are many tasks."""
    path = timeline.critical_path
    if not len(path):
        return
    row = timeline.worker[path].astype(np.int64) * rows // timeline.workers
    start, end = timeline.start[path], timeline.end[path]
    if len(timeline) <= MOST_BARS and rows == timeline.workers and np.count_nonzero(np.diff(row)) <= 300:
        new = np.append(True, (row[1:] != row[:-1]) | (start[1:] != end[:-1]))  # tasks in a row have one outline
        style = {"facecolors": "none", "edgecolors": CRITICAL, "linewidths": 1.3, "zorder": 4}
        ax.add_collection(_boxes(start[new], end[np.append(new[1:], True)], row[new], BAR, **style))
        for k in np.flatnonzero(row[1:] != row[:-1]).tolist():
            up = 1 if row[k + 1] > row[k] else -1
            between = [row[k] + up * BAR, row[k + 1] - up * BAR]
            ax.plot([end[k], start[k + 1]], between, color=CRITICAL, lw=1.1, zorder=4)
        ax.plot([], [], color=CRITICAL, lw=1.3, label="critical path")
        return
    times: NDArray[Any] = np.stack([start, end], axis=1).reshape(-1)
    lanes: NDArray[Any] = np.repeat(row, 2)
    jumps = np.count_nonzero(row[1:] != row[:-1])
    form: dict[str, Any] = {"lw": 0.9}
    if jumps > 300:  # lines would hide the lanes: where it is at some moments
        moments = (np.arange(300) + 0.5) * timeline.total_cycles / 300
        at = np.clip(np.searchsorted(start, moments, side="right") - 1, 0, len(path) - 1)
        times, lanes = moments, row[at]
        form = {"lw": 0, "marker": "_", "ms": 3.2, "mew": 1.4}
    ax.plot(times, lanes, color=CRITICAL, zorder=4, label="critical path", **form)


def _bounds(timeline: Timeline, ax: Axes) -> None:
    """The lower bounds of the makespan as vertical lines; one for those that are as good as equal."""
    drawn: list[int] = []
    for name, cycles in timeline.bounds.items():
        if cycles and all(abs(cycles - other) > 0.004 * timeline.total_cycles for other in drawn):
            drawn.append(cycles)
            style: dict[str, Any] = {"color": "#C2185B", "lw": 1.3, "ls": BOUNDS.get(name, ":"), "zorder": 3}
            ax.axvline(cycles, label=f"lower bound: {name}", **style)


def _frame(timeline: Timeline, ax: Axes, rows: int, most: int) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.set_xlim(0, most)
    ax.set_ylim(rows - 0.5, -0.5)
    step = max(1, -(-rows // 16))
    of = [row * timeline.workers // rows for row in range(0, rows, step)]
    ax.set_yticks(range(0, rows, step), [timeline.lane(worker) for worker in of])
    ax.xaxis.set_major_locator(MaxNLocator(10 if most < 10**8 else 7, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda cycles, _: f"{cycles:,.0f}"))
    ax.tick_params(length=0)
    ax.grid(axis="x", color="#DDDDDD", lw=0.6, zorder=0)
    ax.set_axisbelow(True)
    if timeline.total_cycles < most:
        ax.axvspan(timeline.total_cycles, most, color="white", zorder=0.5, lw=0)
        ax.axvline(timeline.total_cycles, color="#444444", lw=0.9, zorder=3)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)


def _utilisation(timeline: Timeline, ax: Axes, rows: int) -> None:
    """How busy each worker was, as bars to the right of the lanes, with numbers where there is room."""
    total = timeline.total_cycles
    if not total:
        return
    row = np.arange(timeline.workers) * rows // timeline.workers
    share = np.bincount(row, timeline.busy, minlength=rows) / np.bincount(row, minlength=rows) / total
    beside = ax.inset_axes((1.008, 0.0, 0.055, 1.0))
    beside.barh(np.arange(rows), share, height=0.76, color="#9AA5B1", lw=0)
    beside.set_xlim(0, 1)
    beside.set_ylim(rows - 0.5, -0.5)
    beside.set_yticks([])
    beside.set_xticks([])
    beside.set_title("busy", fontsize=8, color="#444444")
    for side in beside.spines.values():
        side.set_visible(False)
    if rows <= 20:
        for at, value in enumerate(share.tolist()):
            beside.text(0.04, at, f"{value:.0%}", va="center", fontsize=7.5, color="#1A1A1A")


def _heading(ax: Axes, title: str, summary: str) -> None:
    ax.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    ax.set_title(summary, loc="right", fontsize=9.5, color="#444444")


def _legend(figure: Any, axes: Sequence[Axes]) -> None:
    """One legend for all frames, below them."""
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        kernels = [label for label in found if not label.startswith(("idle: ", "lower bound: ", "critical path"))]
        order = [*kernels[:8], *(label for label in found if label not in kernels)]
        if len(kernels) > 8:
            order.insert(8, kernels[8])
        handles = [found[label] for label in order]
        figure.legend(handles, order, loc="outside lower center", ncols=min(len(order), 5), frameon=False, fontsize=8.5)
