"""The dataflow engine's rules, played slowly: sets and sorted lists, one cycle that matters after the other.

Written from the rules alone; it knows nothing of nodes, gates, heaps and columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pto_wsp.schedule import WindowMode
from pto_wsp.sim.inorder import Wait
from pto_wsp.sim.settings import Settings


class Stuck(Exception):
    """No task can ever start, or one does not fit."""


@dataclass
class Job:
    """One task. before: those whose end it waits for, but for the one before it in its stream."""

    cycles: int
    before: set[int]
    key: int | None = None  # of the dispatch policy
    stream: int | None = None
    rank: int = 0
    pool: int = 0
    weight: int = 1


@dataclass
class Play:
    """What happened."""

    start: list[int]
    worker: list[int]
    wait: list[Wait]
    cause: list[int]
    stalls: dict[str, tuple[int, int]]  # reason -> how many, cycles
    most_in_window: int
    most_ready: int
    steals: int


@dataclass
class Oracle:
    settings: Settings
    jobs: list[Job]
    widths: list[int]  # workers of each pool
    now: int = 0
    started: int = -1
    next_start: int = 0
    done: list[int] = field(default_factory=list)  # in the order of completion
    stalls: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, s = len(self.jobs), self.settings
        self.generated, self.ready, self.eligible, self.start, self.worker = ([-1] * n for _ in range(5))
        self.last_lane, self.last_task, self.held_by, self.wait = [-1] * n, [-1] * n, [-1] * n, [Wait.NOTHING] * n
        self.cause = [-1] * n
        self.first = [sum(self.widths[:p]) for p in range(len(self.widths))]
        self.lanes = sum(self.widths)
        self.free_at, self.last_on = [-1] * self.lanes, [-1] * self.lanes
        self.deque: list[list[int]] = [[] for _ in range(self.lanes)]
        self.turn, self.last_stream = [0] * len(self.widths), dict[int, int]()
        latest: dict[int, int] = {}
        for k, job in enumerate(self.jobs):
            if s.streams:
                job.stream = (k if job.stream is None else job.stream) % s.streams
                if job.stream in latest:
                    job.before = job.before | {latest[job.stream]}
                latest[job.stream] = k
        self.lane = [self._bound_to(job) if s.bound else -1 for job in self.jobs]
        self.turn = [0] * len(self.widths)
        self.most_in_window = self.most_ready = self.steals = 0

    def _bound_to(self, job: Job) -> int:
        first, width = self.first[job.pool], self.widths[job.pool]
        if job.key is not None:
            return first + job.key % 2**64 % width
        if self.settings.by_stream:
            assert job.stream is not None
            return first + job.stream % width
        self.turn[job.pool] += 1
        return first + (self.turn[job.pool] - 1) % width

    # -- one cycle after the other

    def run(self) -> Play:
        n = len(self.jobs)
        full_since, generating = -1, -1
        while True:
            running = [k for k in range(n) if self.start[k] >= 0 and k not in self.done]
            for k in running:
                if self.end(k) == self.now:
                    self.complete(k)
            while -1 in self.generated:
                k = self.generated.index(-1)
                if generating < 0:
                    if not self.room(k):
                        full_since = self.now if full_since < 0 else full_since
                        break
                    if 0 <= full_since < self.now:
                        self.stall("window", self.now - full_since)
                    full_since = -1
                    generating = self.now + self.settings.gen_cycles
                if self.now < generating:
                    break
                generating = -1
                self.generate(k)
            self.release()
            self.begin_all()
            running = [k for k in range(n) if self.start[k] >= 0 and k not in self.done]
            then = [self.end(k) for k in running] + [generating] * (generating >= 0)
            if self.started >= 0 and self.candidates():
                then.append(self.next_start)
            if not then:
                if len(self.done) < n:
                    raise Stuck
                return Play(self.start, self.worker, self.wait, self.cause, self.stalls, self.most_in_window,
                            self.most_ready, self.steals)  # fmt: skip
            self.now = min(then)

    def end(self, k: int) -> int:
        return self.start[k] + self.jobs[k].cycles

    def stall(self, reason: str, cycles: int) -> None:
        count, total = self.stalls.get(reason, (0, 0))
        self.stalls[reason] = count + 1, total + cycles

    def complete(self, k: int) -> None:
        self.done.append(k)
        self.free_at[self.worker[k]], self.last_on[self.worker[k]] = self.now, k
        for later, job in enumerate(self.jobs):
            if self.generated[later] >= 0 and k in job.before:
                self.last_lane[later], self.last_task[later] = self.worker[k], k
                self.look(later)

    def in_window(self) -> int:
        return sum(job.weight for k, job in enumerate(self.jobs) if self.generated[k] >= 0 and k not in self.done)

    def room(self, k: int) -> bool:
        settings, weight = self.settings, self.jobs[k].weight
        if not settings.window or self.in_window() + weight <= settings.window:
            return True
        if settings.mode is WindowMode.BENCHMARK:
            self.stall("overflow", 0)
            return True
        if settings.mode is WindowMode.ABORT or weight > settings.window:
            raise Stuck
        return False

    def generate(self, k: int) -> None:
        self.generated[k] = self.now
        self.held_by[k] = self.done[-1] if self.done else -1
        self.most_in_window = max(self.most_in_window, self.in_window())
        self.look(k)

    def look(self, k: int) -> None:
        """Are all edges of a task met?"""
        if self.ready[k] < 0 and self.jobs[k].before <= set(self.done):
            self.ready[k] = self.now
            if self.generated[k] < self.now:
                self.stall("dependency", self.now - self.generated[k])
            self.most_ready = max(self.most_ready, len(self.waiting()))

    def waiting(self) -> list[int]:
        """Ready tasks that have not started, in order."""
        ready = [k for k in range(len(self.jobs)) if self.ready[k] >= 0 and self.start[k] < 0]
        return sorted(ready, key=lambda k: (self.ready[k], k))

    def release(self) -> None:
        """Tasks become eligible, in batches."""
        group = self.settings.batch or 1
        held = [k for k in self.waiting() if self.eligible[k] < 0]
        over = -1 not in self.generated
        while held and (len(held) >= group or over):
            for k in held[:group]:
                self.eligible[k] = self.now
                if self.settings.ready == "work_steal":
                    self.deque[self.own_lane(k)].append(k)
            held = held[group:]
        for deque in self.deque:
            deque.sort(key=lambda k: (self.ready[k], k))
        at = self.settings.start_at
        if self.started < 0 and (over or (at >= 0 and len(self.waiting()) >= at)):
            self.started = self.now

    def own_lane(self, k: int) -> int:
        pool = self.jobs[k].pool
        if self.first[pool] <= self.last_lane[k] < self.first[pool] + self.widths[pool]:
            return self.last_lane[k]
        self.turn[pool] += 1
        return self.first[pool] + (self.turn[pool] - 1) % self.widths[pool]

    # -- which task starts next, and where

    def idle(self, pool: int) -> list[int]:
        busy = {self.worker[k] for k in range(len(self.jobs)) if self.start[k] >= 0 and k not in self.done}
        return [w for w in range(self.first[pool], self.first[pool] + self.widths[pool]) if w not in busy]

    def candidates(self) -> list[tuple[int, int]]:
        """(task, worker): of each queue the first that could start now."""
        found = []
        eligible = [k for k in self.waiting() if self.eligible[k] >= 0]
        for pool in range(len(self.widths)):
            idle = self.idle(pool)
            if not idle:
                continue
            if self.settings.ready == "work_steal":
                found += self.from_deques(pool, idle)
                continue
            for queue in idle if self.settings.bound else [-1]:
                mine = [k for k in eligible if self.jobs[k].pool == pool and self.lane[k] == queue]
                if mine:
                    at = queue if self.settings.bound else pool
                    found.append((self.first_of(mine, at), queue if queue >= 0 else idle[0]))
        return found

    def from_deques(self, pool: int, idle: list[int]) -> list[tuple[int, int]]:
        owners = [w for w in idle if self.deque[w]]
        if owners:
            return [(self.deque[owners[0]][-1], owners[0])]
        lanes = range(self.first[pool], self.first[pool] + self.widths[pool])
        longest = max(lanes, key=lambda w: (len(self.deque[w]), -w))
        return [(self.deque[longest][0], idle[0])] if self.deque[longest] else []

    def first_of(self, tasks: list[int], queue: int) -> int:
        lowest = min(self.jobs[k].rank for k in tasks)
        tasks = [k for k in tasks if self.jobs[k].rank == lowest]
        together = self.settings.together
        if not together:
            return min(tasks, key=lambda k: (self.ready[k], k))
        by_stream = {self.jobs[k].stream: k for k in tasks}
        last, groups = self.last_stream.get(queue, -1), -(-self.settings.streams // together)
        group, place = (last // together, last % together) if last >= 0 else (0, together - 1)
        order = [group * together + (place + 1 + i) % together for i in range(together)]
        for g in range(1, groups):
            order += [(group + g) % groups * together + i for i in range(together)]
        return next(by_stream[s] for s in order if s in by_stream)

    def begin_all(self) -> None:
        while self.started >= 0:
            found = self.candidates()
            if not found or (self.settings.gap and self.now < self.next_start):
                return
            if self.settings.ready == "work_steal":
                task, worker = found[0]
            else:
                task, worker = min(found, key=lambda c: (self.jobs[c[0]].rank, self.ready[c[0]], c[0]))
            self.begin(task, worker)

    def begin(self, k: int, worker: int) -> None:
        now, gap = self.now, self.settings.gap
        eligible = max(self.eligible[k], self.started)
        self.start[k], self.worker[k] = now, worker
        for lane, deque in enumerate(self.deque):
            if k in deque:
                deque.remove(k)
                self.steals += lane != worker
        queue = worker if self.settings.bound else self.jobs[k].pool
        if self.jobs[k].stream is not None:
            self.last_stream[queue] = self.jobs[k].stream
        if self.ready[k] < eligible:
            self.stall("start", eligible - self.ready[k])
        limited = bool(gap) and self.next_start == now
        if eligible < now:
            self.stall("rate" if limited else "busy", now - eligible)
        self.wait[k], self.cause[k] = (
            (Wait.RATE_LIMIT, -1) if eligible < now and limited else
            (Wait.WORKER_BUSY, self.last_on[worker]) if eligible < now else
            (Wait.START, -1) if self.ready[k] < now else
            (Wait.DEPENDENCY, self.last_task[k]) if self.generated[k] < now else
            (Wait.ORCHESTRATOR, -1) if now and self.settings.gen_cycles else
            (Wait.WINDOW_FULL, self.held_by[k]) if now else
            (Wait.NOTHING, -1)
        )  # fmt: skip
        if gap:
            self.next_start = now + gap
