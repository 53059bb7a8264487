"""Which barriers and events an order of steps needs: as few as keep every hazard apart.

Tiles that cross GM are ordered by their queues. What is left on a vector core: vector instructions that depend on each
other (PipeBarrier<PIPE_V>), and the scalar unit reading or writing tiles (events). A barrier covers everything before
it, so going through the steps once and ordering only when a conflict is met gives the fewest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pto_wsp.ascend.body import Buffer, Step
from pto_wsp.ascend.placement import overlap


@dataclass
class Pending:
    """Accesses that the given order of pipes does not cover yet."""

    reads: list[Buffer] = field(default_factory=list)
    writes: list[Buffer] = field(default_factory=list)

    def conflicts(self, step: Step) -> bool:
        """Would `step` read what was written here, or write what was read or written?"""
        return any(overlap(a, b) for a in step.reads for b in self.writes) or any(
            overlap(a, b) for a in step.writes for b in (*self.writes, *self.reads)
        )

    def add(self, step: Step) -> None:
        self.reads.extend(b for b in step.reads if b not in self.reads)
        self.writes.extend(b for b in step.writes if b not in self.writes)

    def copy(self) -> Pending:
        return Pending(list(self.reads), list(self.writes))


@dataclass
class State:
    """What has not been ordered: vector against vector, and across to and from the scalar unit."""

    v_v: Pending = field(default_factory=Pending)
    v_s: Pending = field(default_factory=Pending)  # vector work that the scalar unit has not waited for
    s_v: Pending = field(default_factory=Pending)
    loaded: Pending = field(default_factory=Pending)  # arrived by MTE2, not yet awaited by the scalar unit

    def copy(self) -> State:
        return State(self.v_v.copy(), self.v_s.copy(), self.s_v.copy(), self.loaded.copy())

    def join(self, other: State) -> State:
        joined = self.copy()
        for mine, theirs in (
            (joined.v_v, other.v_v),
            (joined.v_s, other.v_s),
            (joined.s_v, other.s_v),
            (joined.loaded, other.loaded),
        ):
            mine.reads.extend(b for b in theirs.reads if b not in mine.reads)
            mine.writes.extend(b for b in theirs.writes if b not in mine.writes)
        return joined

    def without_queues(self) -> State:
        """The end of one round as the next one meets it: AllocTensor waits for the tiles of queues."""
        kept = self.copy()
        for pending in (kept.v_v, kept.v_s, kept.s_v, kept.loaded):
            pending.reads = [b for b in pending.reads if b.kind in ("temp", "once")]
            pending.writes = [b for b in pending.writes if b.kind in ("temp", "once")]
        return kept

    def through(self, step: Step) -> list[str]:
        """What has to stand before `step`; the state after it."""
        needed: list[str] = []
        if step.pipe == "V":
            if self.s_v.conflicts(step):
                needed.append("S_V")
                self.s_v = Pending()
            if self.v_v.conflicts(step):
                needed.append("V")
                self.v_v = Pending()
            self.v_v.add(step)
            self.v_s.add(step)
        else:
            if self.v_s.conflicts(step):
                needed.append("V_S")
                self.v_s = Pending()
            if self.loaded.conflicts(step):
                needed.append("MTE2_S")
                self.loaded = Pending()
            self.s_v.add(step)
        return needed


def orders(
    before: Sequence[Step],
    body: Sequence[Step],
    once: Sequence[Buffer],
    arriving: Sequence[Buffer],
    looped: bool,
) -> list[list[str]]:
    """For each step, what has to stand in front of it: "V" (a barrier), "V_S", "S_V" or "MTE2_S" (events).

    once, arriving    buffers that MTE2 fills before the first step, and at the head of every round of the loop
    """
    state = State()
    state.loaded.writes.extend(once)
    needed = [state.through(step) for step in before]
    state.loaded.writes.extend(arriving)
    entry = state.copy()
    rounds = [state.through(step) for step in body]
    if looped:  # the head of the loop also follows its end
        state = state.without_queues()
        state.loaded.writes.extend(arriving)
        state = entry.join(state)
        rounds = [state.through(step) for step in body]
    return needed + rounds


TEXT = {
    "V": "PipeBarrier<PIPE_V>();",
    "V_S": "Order<HardEvent::V_S>(pipe);",
    "S_V": "Order<HardEvent::S_V>(pipe);",
    "MTE2_S": "Order<HardEvent::MTE2_S>(pipe);",
    "S_MTE2": "Order<HardEvent::S_MTE2>(pipe);",
}
