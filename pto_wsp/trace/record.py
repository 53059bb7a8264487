"""What a @workload body does while it runs: every kernel call and loop is recorded in the innermost open block.

The recorder of the running body is context-local, so that threads and tasks do not see each other's.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pto_wsp.errors import SourceLine, UsageError
from pto_wsp.trace.source import where
from pto_wsp.types import Dense

if TYPE_CHECKING:
    from pto_wsp.scalar_expr import LoopVar
    from pto_wsp.trace.workload import Workload

CHANNEL_NODES = ("send", "consume", "receive", "connect")
"""Kinds of nodes that never record themselves: who builds one has to use it."""

LOOP_NAMES = "bhsdijklmn"  # default names of P's loops, in order of construction, cyclically


@dataclass(eq=False)
class Frame:
    """An open block: the nodes recorded in it so far."""

    kind: str  # "workload", or what opened it, for messages: "P(b)", "P.when"
    line: SourceLine
    vars: tuple[LoopVar, ...] = ()
    nodes: list[Workload] = field(default_factory=list)
    choice: Workload | None = None  # the P.when block that a P.otherwise may still complete


class Recorder:
    """The blocks that are open while a @workload body, or a function given as a loop body, runs."""

    def __init__(self, name: str, type_check: bool = True, detached: bool = False) -> None:
        self.name = name
        self.type_check = type_check
        self.detached = detached  # inside a function body: the loops around it are not known here
        self.type_errors: list[Any] = []
        self.frames = [Frame("workload", where())]
        self.choices: list[Frame] = []  # P.when and its like, called and not entered yet
        self.loose: dict[int, Workload] = {}  # built here but (so far) part of nothing
        self.added: dict[int, Workload] = {}  # recorded in some block
        self.outer = current()  # the body that calls this one
        self._axes = 0
        self._token: Token[Recorder | None] | None = None

    def __enter__(self) -> Recorder:
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._token is not None
        _current.reset(self._token)

    def next_name(self) -> str:
        """Default name of the next axis given to P: b, h, s, d, i, j, k, l, m, n and again. Named axes count too."""
        self._axes += 1
        return LOOP_NAMES[(self._axes - 1) % len(LOOP_NAMES)]

    def add(self, node: Workload) -> Workload:
        """Make a node part of the innermost open block."""
        self.frames[-1].nodes.append(node)
        self.loose.pop(id(node), None)
        self.added[id(node)] = node
        return node

    def built(self, node: Workload) -> None:
        """Note a new node: its parts have found their place, it has not."""
        for part in node.parts():
            self.loose.pop(id(part), None)
        if not self.detached or node.kind in CHANNEL_NODES:
            self.loose[id(node)] = node

    def open(self, frame: Frame) -> Frame:
        self.frames.append(frame)
        return frame

    def close(self, frame: Frame) -> list[Workload]:
        """The nodes of a finished block.

        raises UsageError when a block inside it is still open: its loop was left by break, return or an exception
        """
        if self.frames[-1] is not frame:
            raise self._left_early(self.frames[-1])
        self.frames.pop()
        return frame.nodes

    def finish(self) -> list[Workload]:
        """The nodes of the whole body."""
        nodes = self.close(self.frames[0])
        if self.choices:
            kind, line = self.choices[0].kind, self.choices[0].line
            what = f"{kind} does nothing by itself: write `with {kind}(...):` and the tasks below it."
            raise UsageError(what).at(line, f"recording workload {self.name}")
        return nodes

    def is_open(self, var: LoopVar) -> bool:
        """Whether the loop of this variable is still being recorded, as far as that can be known."""
        if self.detached or any(v is var for frame in self.frames for v in frame.vars):
            return True
        return self.outer is not None and self.outer.is_open(var)

    def is_unconditional(self) -> bool:
        """Whether what is recorded now is sure to become a task: no choice around it, no loop that may be empty."""
        if self.detached or not all(f.kind == "workload" or f.vars and runs(f.vars) for f in self.frames):
            return False
        return self.outer is None or self.outer.is_unconditional()

    def _left_early(self, frame: Frame) -> UsageError:
        return UsageError(
            f"the loop {frame.kind} was left before its end (break, return, or an exception that was caught). Its"
            " body runs once, to record what every iteration does, so it cannot stop early. Choose iterations with"
            " `with P.when(...):`, or a smaller axis."
        ).at(frame.line, f"recording workload {self.name}")


def runs(vars: Iterable[LoopVar]) -> bool:
    """Whether loops of these variables have a fixed size of at least one."""
    sizes = [v.axis if isinstance(v.axis, int) else v.axis.size if isinstance(v.axis, Dense) else 0 for v in vars]
    return all(size > 0 for size in sizes)


_current: ContextVar[Recorder | None] = ContextVar("pto_wsp_recorder", default=None)


def current() -> Recorder | None:
    """The recorder of the @workload body that is running, or None."""
    return _current.get()


def require(what: str, line: SourceLine | None = None) -> Recorder:
    """The recorder of the running @workload body.

    raises UsageError when none is running
    """
    recorder = current()
    if recorder is None:
        raise UsageError(
            f"{what} belongs inside a @workload function: it records a loop or a choice there. For a plain "
            "Python loop use range(...)."
        ).at(line or where())
    return recorder


def suspend() -> Token[Recorder | None]:
    """Until `resume`, no @workload body is running: what a kernel body does is not part of a workload."""
    return _current.set(None)


def resume(token: Token[Recorder | None]) -> None:
    _current.reset(token)
