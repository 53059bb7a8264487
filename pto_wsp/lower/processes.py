"""Pipelines: each process of a Connect node becomes native code that can stop in the middle and go on.

A process runs up to its next action - a task, a send, a receive, or a look at what other processes may change - notes
which one it is, and returns. A clock (sim/channels.py) says whose action comes next; that process then makes its
task's row, or has its token, and runs up to the action after it. So the rows of the task table come in the order in
which the tasks take effect, and the clock needs no list of all actions.

What one process remembers is its frame, 64-bit words: where to go on, and its loop variables. What it shares with the
clock is its record:

    ACTION    what it does next: a port (0 or more), TASK, LOOK or END
    TOKEN     what it sends; what it has received
    OPEN      1 if there was a token, 0 if the channel is closed and empty
    DURATION  cycles of the task that it has just made
    FRAME     address of its frame;  BODY  number of its native function;  PORT  its first port
    OWN       and what follows belongs to the clock

The word PIPELINE of the control words (control.py) is the address of: the clock's function, what that is called with,
the records, and the number of rows in the table. The function takes one pointer and returns which process goes on, as
the position of its record; FINISHED when all have ended; or a number below that, which the caller is told with ATTEND.
Start reading at `Emitter.send`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pto_wsp.errors import CompileError
from pto_wsp.lower import axes, control, rows, slots
from pto_wsp.lower.expressions import Scope, Variable
from pto_wsp.lower.lines import Lines, Piece, finish
from pto_wsp.scalar_expr import Expr
from pto_wsp.trace import tree
from pto_wsp.trace.channels import Port, ports_of
from pto_wsp.types import Ragged, RaggedRow, Sparse, SparseRow

__all__ = [
    "ACTION", "BODY", "DURATION", "END", "FINISHED", "FRAME", "LOOK", "OPEN", "OWN", "PORT", "RECORD", "TASK", "TOKEN",
    "Emitter", "Pipeline", "Process",
]  # fmt: skip

ACTION, TOKEN, OPEN, DURATION, FRAME, BODY, PORT, OWN = range(8)
RECORD = 32
"""Words of a record."""
TASK, LOOK, END = -1, -2, -3
FINISHED = -1

_LEAST, _MOST = -(1 << 63), (1 << 63) - 1  # what a token may be


@dataclass(frozen=True, eq=False)
class Process:
    """One process of a pipeline. Its ports are numbered from `first_port` on, over all processes."""

    name: str
    body: int
    first_port: int
    ports: tuple[Port, ...]


@dataclass(frozen=True, eq=False)
class Pipeline:
    """The processes of a workload, in the order that decides between equal times."""

    processes: tuple[Process, ...]
    node: tree.Connect
    frame_words: int


class Emitter(rows.Emitter):
    """Makes the text of a pipeline: one function per body, and `expand`, which lets them run in turns."""

    def __init__(self, keys: Sequence[Expr], loads: bool) -> None:
        super().__init__(keys, loads)
        self.receives: list[tree.Receive] = []  # those that need a token
        self._ports: tuple[Port, ...] = ()  # of the process that is being emitted
        self._bodies: dict[int, tuple[tree.TreeNode, Piece]] = {}

    def pipeline(self, node: tree.Connect) -> Pipeline:
        """Emit all processes."""
        processes: list[Process] = []
        port = 0
        for process in node.processes:
            self._ports = ports_of(process.body)
            if id(process.body) not in self._bodies:
                self._bodies[id(process.body)] = process.body, self.root(process.body)
            processes.append(Process(process.name, list(self._bodies).index(id(process.body)), port, self._ports))
            port += len(self._ports)
        return Pipeline(tuple(processes), node, 1 + len(self.variables()))

    # -- nodes

    def node(self, node: tree.TreeNode, scope: Scope, sequential: bool) -> Piece:
        if isinstance(node, tree.Send):
            return self.send(node, replace(scope, line=node.line))
        if isinstance(node, tree.Consume):
            return self.consume(node, scope)
        if isinstance(node, tree.Receive):
            return self.receive(node, scope)
        if isinstance(node, tree.SlotSet):
            return _after_look(slots.emit_set(node))
        return super().node(node, scope, sequential)

    def send(self, node: tree.Send, scope: Scope) -> Piece:
        """Its task, then the token: the first axis value."""
        assert isinstance(node.task, tree.TaskCall)
        out = Lines()
        out.add(self.task(node.task, scope))
        token = rows.axis_word(out, node.task.axes[0], scope) if node.task.axes else "0"
        out.put(f"store i64 {token}, ptr %token")
        self._use(out, node, sends=True)
        return out.piece()

    def consume(self, node: tree.Consume, scope: Scope) -> Piece:
        out = Lines()
        again, inside, done = out.label(), out.label(), out.label()
        out.jump(again)
        out.start(again)
        out.branch(self._use(out, node, sends=False), inside, done)
        out.start(inside)
        out.add(self._with_token(node, scope))
        out.jump(again)
        out.start(done)
        return out.piece()

    def receive(self, node: tree.Receive, scope: Scope) -> Piece:
        out = Lines()
        inside, without, done = out.label(), out.label(), out.label()
        out.branch(self._use(out, node, sends=False), inside, without)
        out.start(inside)
        out.add(self._with_token(node, scope))
        out.jump(done)
        if node.orelse is None:
            self.refuse(out, without, rows.NO_TOKEN, len(self.receives))
            self.receives.append(node)
        else:
            out.start(without)
            out.add(self.node(node.orelse, scope, sequential=True))
            out.jump(done)
        out.start(done)
        return out.piece()

    def _use(self, out: Lines, node: tree.Send | tree.Consume | tree.Receive, sends: bool) -> str:
        """Stop for a send or a receive; an i1: there was a token."""
        number = next(k for k, p in enumerate(self._ports) if p.channel is node.channel and p.sends is sends)
        first = out.value("load i64, ptr %port")
        _pause(out, out.value(f"add i64 {first}, {out.datum(number)}"))
        return "true" if sends else out.value(f"icmp ne i64 {out.value('load i64, ptr %open')}, 0")

    def _with_token(self, node: tree.Consume | tree.Receive, scope: Scope) -> Piece:
        """The body, with the token that has just been received."""
        depth = len(scope.loops)
        self.depth = max(self.depth, depth + 1)
        out = Lines()
        out.put(f"store i64 {out.value('load i64, ptr %token')}, ptr %var{depth}")
        inside = scope.inside(Variable(node.var, f"%var{depth}", _LEAST, _MOST))
        out.add(self.node(node.body, inside, sequential=True))
        return out.piece()

    def task(self, node: tree.TaskCall, scope: Scope) -> Piece:
        if node.after:
            raise CompileError(
                "after=[...] has no meaning in a pipeline: a process does one thing after the other, and between "
                "processes a channel says what waits for what."
            ).at(node.line)
        out = Lines()
        _pause(out, str(TASK))
        out.add(super().task(node, scope))
        return out.piece()

    def made(self, out: Lines, cycles: str) -> None:
        out.put(f"store i64 {cycles}, ptr %duration")

    def nested(self, body: Piece, parallel: bool, sequential: bool) -> Piece:
        return body  # inside a process everything is in order

    # -- what other processes may change is looked at when it is this process's turn

    def cond(self, node: tree.Cond, scope: Scope, sequential: bool) -> Piece:
        piece = super().cond(node, scope, sequential)
        return _after_look(piece) if piece.text and slots.slots_of(node.pred) else piece

    def slot_load(self, node: tree.SlotLoad, scope: Scope) -> Piece:
        return _after_look(super().slot_load(node, scope))

    def dynamic(self, out: Lines, node: tree.Loop, scope: Scope) -> tuple[str, axes.Values]:
        axis = node.axis
        whole = axis.ragged if isinstance(axis, RaggedRow) else axis.sparse if isinstance(axis, SparseRow) else axis
        assert isinstance(whole, (Ragged, Sparse))
        self.axes.setdefault(whole, node)
        if isinstance(axis, (RaggedRow, SparseRow)) and slots.slots_of(axis):
            _pause(out, str(LOOK))
        else:
            look, fresh = out.label(), out.label()
            out.branch(axes.emit_flag(out, list(self.axes).index(whole)), look, fresh)
            out.start(look)
            _pause(out, str(LOOK))
            out.jump(fresh)
            out.start(fresh)
        return super().dynamic(out, node, scope)

    # -- the whole

    def text(self) -> str:
        """The module's text."""
        bodies = [self._body(k, piece) for k, (_, piece) in enumerate(self._bodies.values())]
        return "\n".join([self.globals(), *bodies, _driver(len(bodies)), ""])

    def _body(self, number: int, piece: Piece) -> str:
        """The function of one body."""
        head = f"define private i64 @process{number}({rows.POINTERS}, ptr %self, ptr %frame, ptr %row) {{"
        lines = [head, *self.opening()]
        words = {"action": ACTION, "token": TOKEN, "open": OPEN, "duration": DURATION, "port": PORT}
        lines += [f"  %{name} = getelementptr i64, ptr %self, i64 {word}" for name, word in words.items()]
        for k, (_, name) in enumerate(self.variables()):
            lines.append(f"  {name} = getelementptr i64, ptr %frame, i64 {1 + k}")
        text, places = _numbered(finish(piece))
        text = f"  %at = load i64, ptr %frame\n  switch i64 %at, label %begin [{places}]\nbegin:\n{text}"
        end = f"  store i64 {END}, ptr %action\n  br label %paused\npaused:\n  ret i64 0"
        return "\n".join([*lines, *self.closing(text, end)])


def _pause(out: Lines, action: str) -> None:
    """Note the next action and return; the function goes on here when it is called again."""
    after = out.label()
    out.put(f"store i64 {action}, ptr %action")
    out.put(f"store i64 {_GO_ON}{after}, ptr %frame")
    out.jump("paused")
    out.start(after)


def _after_look(piece: Piece) -> Piece:
    out = Lines()
    _pause(out, str(LOOK))
    out.add(piece)
    return out.piece()


_GO_ON = "¤"  # before a label: the number by which the function finds it again


def _numbered(text: str) -> tuple[str, str]:
    """The text with numbers for the places where it goes on, and the cases of a switch over them."""
    numbers: dict[str, int] = {}
    for label in re.findall(rf"{_GO_ON}([\w.]+)", text):
        numbers.setdefault(label, len(numbers) + 1)
    numbered = re.sub(rf"{_GO_ON}([\w.]+)", lambda found: str(numbers[found.group(1)]), text)
    return numbered, " ".join(f"i64 {n}, label %{label}" for label, n in numbers.items())


def _driver(bodies: int) -> str:
    """`expand`: ask the clock whose turn it is, let that process go on, again and again."""
    passed = re.sub(r"noalias ", "", rows.POINTERS)
    calls = [
        f"body{k}:\n  %code{k} = call i64 @process{k}({passed}, ptr %self, ptr %frame, ptr %row)\n  br label %returned"
        for k in range(bodies)
    ]
    cases = " ".join(f"i64 {k}, label %body{k}" for k in range(bodies))
    codes = ", ".join(f"[%code{k}, %body{k}]" for k in range(bodies))
    code = f"phi i64 {codes}" if bodies else "add i64 0, 0"
    return f"""
define i64 @expand({rows.POINTERS}) {{
entry:
  %pipeline.at = getelementptr i64, ptr %control, i64 {control.PIPELINE}
  %pipeline = load ptr, ptr %pipeline.at
  %given.at = getelementptr i64, ptr %pipeline, i64 1
  %given = load ptr, ptr %given.at
  %records.at = getelementptr i64, ptr %pipeline, i64 2
  %records = load ptr, ptr %records.at
  %row.at = getelementptr i64, ptr %pipeline, i64 3
  %row = load ptr, ptr %row.at
  br label %turn
turn:
  %told = load atomic i64, ptr %stop monotonic, align 8
  %go = icmp eq i64 %told, 0
  br i1 %go, label %ask, label %stopped
ask:
  %clock = load ptr, ptr %pipeline
  %who = call i64 %clock(ptr %given)
  %process = icmp sge i64 %who, 0
  br i1 %process, label %resume, label %other
resume:
  %self = getelementptr i64, ptr %records, i64 %who
  %frame.at = getelementptr i64, ptr %self, i64 {FRAME}
  %frame = load ptr, ptr %frame.at
  %body.at = getelementptr i64, ptr %self, i64 {BODY}
  %body = load i64, ptr %body.at
  switch i64 %body, label %returned.none [{cases}]
{chr(10).join(calls)}
returned.none:
  br label %turn
returned:
  %code = {code}
  %fine = icmp eq i64 %code, 0
  br i1 %fine, label %turn, label %left
left:
  ret i64 %code
other:
  %finished = icmp eq i64 %who, {FINISHED}
  br i1 %finished, label %done, label %attend
attend:
  %refused = call i64 @tell(ptr %control, ptr %tell, i64 {control.ATTEND}, i64 %who)
  %attended = icmp eq i64 %refused, 0
  br i1 %attended, label %turn, label %stopped
done:
  %rows.at = getelementptr i64, ptr %where, i64 1
  %rows = load i64, ptr %row
  store i64 %rows, ptr %rows.at
  ret i64 0
stopped:
  ret i64 {rows.STOPPED}
}}"""
