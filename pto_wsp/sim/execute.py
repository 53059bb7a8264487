"""Tasks on real arrays: all cores, same bits for any number of threads.

In: the chunks of a TaskTable, and the arrays of its tensors. Out: the arrays, changed as if the tasks had run one after
another in program order. Within a chunk, tasks that touch the same memory, one of them writing, keep their order; all
others run side by side, outside the GIL. Start reading at `Executor.run`.
"""

from __future__ import annotations

import ctypes
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import ExecutionError, UsageError
from pto_wsp.lower import custom, jit, pipeline
from pto_wsp.lower.around import params_around
from pto_wsp.lower.expand import Binding, Call, Expansion
from pto_wsp.lower.places import Place, address_of
from pto_wsp.lower.tasks import TaskTable
from pto_wsp.sim import bodies, native, regions, streams

__all__ = ["Executor", "Job", "Latch", "host_threads"]

_PROBE = 100e-6  # seconds of work that are run before deciding whether more threads would help
_WORTH = 300e-6  # seconds of work below which they would not
_PER_TASK = 0.15e-6  # seconds that handing one task to another thread costs
_PER_ORDERED_TASK = 0.4e-6  # the same with finding out which tasks it has to wait for
_BATCHES = 4  # a thread draws so many batches while all of the work that is left would do for one each
_REPORT = 0.05  # seconds between reports of progress
_LOOK = 0.1  # seconds between looks of a thread that waits
_MOST_PATIENCE = 64

_Rows = NDArray[np.int64]
_Tasks = NDArray[np.int32]


def host_threads(threads: int | None = None) -> int:
    """Threads to use: the argument, else PTO_WSP_THREADS, else one per core that this process may use.

    raises  UsageError for what is not a whole number of at least 1
    """
    given = os.environ.get("PTO_WSP_THREADS", "") if threads is None else str(threads)
    if given:
        if not given.isdecimal() or int(given) < 1:
            what = "PTO_WSP_THREADS" if threads is None else "threads"
            raise UsageError(f"{what} is a whole number, 1 or more; got {given!r}.")
        return int(given)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Executor:
    """The kernels of one workload as machine code, and the threads to run them on.

    threads      host threads that a run may use; results do not depend on it
    independent  no two tasks touch the same memory, as far as the arrays of the last bind() can be told apart
    phases       milliseconds that each step of making machine code took, of the kernels and what they call or runs them
    """

    def __init__(self, expansion: Expansion, threads: int | None = None) -> None:
        self.expansion = expansion
        self.threads = host_threads(threads)
        self.phases: dict[str, float] = {}
        self._codes: dict[int, jit.Code | custom.Body] = {}  # by place in _functions; keeps the machine code alive
        # two per kernel, for full and for partial tiles; the second row: with results that go around the cache
        self._functions = np.zeros((2, 2 * max(len(expansion.kernels), 1)), np.int64)
        self._around = False  # is the second row made?
        self._streams = streams.Streams(expansion)
        self._scratch_bytes = 64
        self._stop = 0  # address of the word that ends the run
        self._scratch: dict[int, _Scratch] = {}  # by number of the thread within a run
        self.functions = address_of(self._functions)
        self._where: Sequence[Place] | None = None  # see bind()
        self._pace = 0.0  # seconds per unit of weight, see _Plan, as far as it is known
        self._mean = 0.0  # weight of a task of the last table
        calls = expansion.calls
        shape = len(calls), max((len(c.tiles) for c in calls), default=0)
        self._tensor, self._writes = np.full(shape, -1), np.zeros(shape, bool)  # per call and tile parameter
        self._outputs: dict[int, tuple[Call, Binding]] = {}  # a use of each tensor that is written
        for i, call in enumerate(calls):
            for p, binding in enumerate(call.tiles):
                self._tensor[i, p], self._writes[i, p] = binding.tensor, call.writes(binding)
                if self._writes[i, p]:
                    self._outputs.setdefault(binding.tensor, (call, binding))
        self._uses: regions.Uses | None = None
        self.independent = False
        self._custom = any(kernel.graph.custom is not None for kernel in expansion.kernels)
        self._skip, self._patience = 0, 1  # chunks for which not to look for parallel work, after finding none
        self._spent(native.prepare())  # now, not while the first tasks are being timed
        for kernel in range(len(expansion.kernels)):
            self._compile(kernel, tail=False)

    def bind(self, arrays: Sequence[NDArray[Any]], where: Sequence[Place] | None = None) -> None:
        """The arrays that the next chunks work on, one per entry of expansion.tensors.

        where   each of them lies: what is known of their places is kept until they lie elsewhere
        raises  ExecutionError for an array that is written but read-only, or whose elements share memory
        """
        for scratch in self._scratch.values() if self._custom else ():
            scratch.record[:] = 0
        self._skip, self._patience = 0, 1
        self._streams.written = 0
        for call, binding in self._outputs.values():
            check_writeable(arrays[binding.tensor], call, binding)
        if where is not None and where == self._where:
            return
        for call, binding in self._outputs.values():
            check_output(arrays[binding.tensor], call, binding)
        self._where = None  # until all is known: Ctrl-C may come in between
        space_of, origin = regions.spaces_of(arrays if where is None else where)
        space = np.append(space_of, np.int32(-1))[self._tensor]
        itemsize = np.array([*(a.itemsize for a in arrays), 1], np.int32)[self._tensor]
        self._uses = regions.Uses(space, itemsize, self._writes, origin)
        alone = np.bincount(space[space >= 0])[space[self._writes]] == 1  # nothing else uses the space of that output
        alike = self.expansion.pipeline is not None  # a token may come twice, a body run in several processes
        self.independent = bool(alone.all()) and not alike and self._outputs_are_apart
        self._where = where

    @cached_property
    def _outputs_are_apart(self) -> bool:
        """Does every task of a call write tiles of its own?"""
        calls = self.expansion.calls
        return all(regions.are_apart(c, b) for c in calls for b in c.tiles if c.writes(b))

    def run(self, table: TaskTable, stop: NDArray[np.int64], done: Callable[[int], None]) -> None:
        """Run the tasks of one chunk; returns early, soon after stop[0] becomes non-zero.

        done    called now and then, in this thread, with the number of tasks finished since the last call
        raises  KernelError when the CPU body of a custom kernel raised something
        """
        if _Plan.of(table).partial:
            self._compile_tails(table)
        self._stop = address_of(stop)
        self._run(table, stop, done)
        self.raise_failure(table)

    def _run(self, table: TaskTable, stop: NDArray[np.int64], done: Callable[[int], None]) -> None:
        run = _Run(self, table, stop, done)
        if self.threads == 1 or self._skip > 0:
            self._skip -= 1
            run.serial(0, table.count)
            return
        row = 0 if self._pace else run.probe()
        seconds = self._pace * run.weight(row, table.count)
        saved = seconds * (1 - 1 / self.threads)
        price = 0.0 if run.plan.graph else (_PER_TASK if self.independent else _PER_ORDERED_TASK) * (table.count - row)
        if seconds < _WORTH or saved < price or not run.parallel(row, seconds):
            run.serial(row, table.count)

    def seconds(self, tasks: float) -> float:
        """How long so many tasks may take one thread, by the last ones; math.inf where there is nothing to go by."""
        return self._pace * self._mean * tasks if self._pace and not self._custom else math.inf

    def went(self, seconds: float, weight: float) -> None:
        """So long one thread took for tasks of that weight."""
        self._pace = seconds / weight

    def raise_failure(self, table: TaskTable) -> None:
        """Tell what the body of a custom kernel raised, if one did, in the last run of tasks of this table.

        raises  KernelError that names the task, its axis values and the user's line
        """
        if self._custom:
            bodies.raise_failure(self.expansion, table, [scratch.record for scratch in self._scratch.values()])

    def functions_for(self, table: TaskTable, plan: _Plan) -> int:
        """Address of the functions for these tasks."""
        if not self.independent or self._streams.little(table):
            return self.functions
        if plan.results is None:
            plan.results = self._streams.results(table)
        if not self._streams.pays(*plan.results):
            return self.functions
        if not self._around:
            for kernel in range(len(self.expansion.kernels)):
                if params_around(self.expansion.kernels[kernel].graph):
                    self._compile(kernel, tail=False, around=True)
            self._around = True
        return self.functions + self._functions.strides[0]

    def machine(self, progress: NDArray[np.int64], stop: NDArray[np.int64]) -> tuple[int, int, int, int]:
        """What native code needs to run tasks in order: see decisions.Recording. `progress`, `stop`: one word each."""
        self._stop = address_of(stop)
        return native.address_of_run_rows(), self.functions, self.scratch(0), address_of(progress)

    def found_parallel(self, found: bool) -> None:
        """Looking for tasks that can run side by side was worth it, or not: then look less often."""
        self._skip = 0 if found else self._patience
        self._patience = 1 if found else min(2 * self._patience, _MOST_PATIENCE)

    @property
    def uses(self) -> regions.Uses:
        assert self._uses is not None, "bind() comes before run()"
        return self._uses

    def scratch(self, thread: int) -> int:
        """Address of the scratch memory of a thread, aligned to 64 bytes; before it, the words of lower/custom.py."""
        found = self._scratch.get(thread)
        if found is None or found.room < self._scratch_bytes:
            found = self._scratch[thread] = _Scratch(self._scratch_bytes)
        found.record[custom.STOP] = self._stop
        return found.address

    def _compile(self, kernel: int, tail: bool, around: bool = False) -> None:
        graph = self.expansion.kernels[kernel].graph
        if graph.custom is not None:
            self._use_body(kernel, custom.load(graph))
            return
        compiled = pipeline.compile_kernel(graph, tail, around=around)
        code = jit.load(compiled.key, lambda: compiled.ir)
        self._spent(code.phases)
        needed = ctypes.CFUNCTYPE(ctypes.c_int64)(code.address(f"{compiled.symbol}.scratch"))()
        self._scratch_bytes = max(self._scratch_bytes, needed)
        self._codes[around * self._functions.shape[1] + 2 * kernel + tail] = code
        self._functions[int(around) :, 2 * kernel + tail] = code.address(compiled.symbol)

    def _spent(self, phases: dict[str, float]) -> None:
        for phase, spent in phases.items():
            self.phases[phase] = self.phases.get(phase, 0.0) + spent

    def _use_body(self, kernel: int, body: custom.Body) -> None:
        """One function for full and for partial tiles."""
        self._spent(body.phases)
        for position in (2 * kernel, 2 * kernel + 1):
            self._codes[position], self._functions[:, position] = body, body.address

    def _compile_tails(self, table: TaskTable) -> None:
        """Machine code for partial tiles."""
        tails = (table.tail[: table.count] != 0) & (table.kernel[: table.count] >= 0)
        for kernel in sorted(set(table.kernel[: table.count][tails].tolist())):
            if 2 * kernel + 1 not in self._codes:
                self._compile(kernel, tail=True)


def check_writeable(array: NDArray[Any], call: Call, binding: Binding) -> None:
    """Refuse an array that tasks may not write to."""
    if not array.flags.writeable:
        what = f"{call.name} writes to {binding.param.name}, whose array is read-only."
        raise ExecutionError(what, kernel_name=call.name).at(call.task.line)


def check_output(array: NDArray[Any], call: Call, binding: Binding) -> None:
    """Refuse an array that tasks cannot write to without writing elsewhere in it."""
    check_writeable(array, call, binding)
    if regions.overlaps_itself(array):
        raise ExecutionError(
            f"{call.name} writes to {binding.param.name}, but elements of its array share memory: shape {array.shape}, "
            f"strides {array.strides}. Give it an array of its own: np.array(...).", kernel_name=call.name
        ).at(call.task.line)  # fmt: skip


class _Scratch:
    """Scratch memory of one thread.

    room     bytes from `address` on, which is aligned to 64
    record   the words before it
    """

    def __init__(self, room: int) -> None:
        memory = np.zeros(room + 128, np.uint8)
        begin = -address_of(memory) % 64
        self.room, self.record = room, memory[begin : begin + 8 * custom.RECORD].view(np.int64)
        self.address = address_of(self.record) + 64


class _Plan:
    """What is known about the tasks of a table, kept with it while it stays as it is.

    weight   1 for each row, and its cycles: what times of runs are proportional to
    partial  there are partial tiles
    words    of the table, that native code is given
    graph    of all of its tasks, once it was made
    results  what Streams.results says, once it was asked
    """

    results: tuple[int, bool] | None = None

    def __init__(self, table: TaskTable) -> None:
        self.weight = table.count + float(table.cycles[: table.count].sum(dtype=np.float64))
        self.partial = bool(table.tail[: table.count].any())
        kernel, _, tail, _, _, _, args, _, _, width = table.words.tolist()
        self.words = kernel, tail, args, width
        self.graph: _Graph | None = None

    @staticmethod
    def of(table: TaskTable) -> _Plan:
        if not isinstance(table.notes, _Plan):
            table.notes = _Plan(table)
        return table.notes


class _Run:
    """One chunk on its way through the machine."""

    def __init__(
        self, executor: Executor, table: TaskTable, stop: NDArray[np.int64], done: Callable[[int], None]
    ) -> None:
        self.executor, self.table, self.stop, self.done = executor, table, stop, done
        self.progress = np.zeros((executor.threads, 8), np.int64)  # tasks finished by each thread, a cache line apart
        self.reported = 0
        self.plan = _Plan.of(table)
        executor._mean = self.plan.weight / max(table.count, 1)
        self.given = executor.functions_for(table, self.plan), *self.plan.words
        self.ends = address_of(stop), address_of(self.progress)

    def weight(self, begin: int, end: int) -> float:
        """Of these rows."""
        if (begin, end) == (0, self.table.count):
            return self.plan.weight
        return end - begin + float(self.table.cycles[begin:end].sum(dtype=np.float64))

    def report(self) -> None:
        finished = sum(self.progress[:, 0].tolist())
        if finished > self.reported:
            self.done(finished - self.reported)
            self.reported = finished

    def rows(self, begin: int, end: int) -> int:
        """Run rows in order in this thread; the row after the last one."""
        return int(native.run_rows()(*self.given, begin, end, self.executor.scratch(0), *self.ends))

    def serial(self, begin: int, end: int) -> None:
        """Run rows in order, in batches of about _REPORT seconds."""
        brief = self.executor.seconds(end - begin) <= _REPORT
        first, batch, begun = begin, end - begin if brief else 256, time.perf_counter()
        while begin < end:
            started = time.perf_counter()
            after = self.rows(begin, min(begin + batch, end))
            self.report()
            if after < min(begin + batch, end):
                return
            begin = after
            spent = time.perf_counter() - started
            batch = min(8 * batch, max(1, int(batch * _REPORT / max(spent, 1e-9))))
        if first < end:
            self.executor.went(time.perf_counter() - begun, self.weight(first, end))

    def probe(self) -> int:
        """Run the first rows, to learn how long the others may take; the next row.

        The fastest batch is the measure: first tasks are slow, and the system may have run something else meanwhile.
        """
        row, batch, begun, table, pace = 0, 1, time.perf_counter(), self.table, math.inf
        while True:
            end, started = min(row + batch, table.count), time.perf_counter()
            after = self.rows(row, end)
            now = time.perf_counter()
            if after < end:  # stopped
                return table.count
            weight = self.weight(row, end)
            pace = min(pace, (now - started) / weight)
            if end == table.count or now - begun >= _PROBE:
                self.report()
                self.executor.went(pace, 1)
                return end
            row, batch = end, 2 * batch

    def parallel(self, begin: int, seconds: float) -> bool:
        """Run the rows from `begin` on all threads; False, and nothing done, when they are one long chain.

        seconds  how long one thread would take
        """
        executor = self.executor
        graph = self._graph(begin)
        if not len(graph.rows):
            return True
        executor.found_parallel(graph.parallelism >= 1.2)
        if graph.parallelism < 1.2:
            return False
        threads = min(executor.threads, len(graph.rows), math.ceil(graph.parallelism))
        state = graph.begin()
        works = [self._work(graph, state, thread) for thread in range(threads)]
        watch = seconds / threads > 2 * _REPORT
        _side_by_side(works, self.report, watch, lambda: state.finished == len(graph.rows), self.stop)
        self.report()
        return True

    def _graph(self, begin: int) -> _Graph:
        """The tasks from row `begin` on. That of all of them is kept."""
        executor, table = self.executor, self.table
        if begin == 0 and self.plan.graph is not None:
            return self.plan.graph
        rows = np.flatnonzero(table.kernel[begin : table.count] >= 0) + begin
        accesses = None if executor.independent else regions.accesses_of(table, rows, executor.uses)
        graph = _Graph.of(table, rows, accesses, executor.threads)
        if begin == 0:
            self.plan.graph = graph
        return graph

    def _work(self, graph: _Graph, state: _State, thread: int) -> Callable[[], None]:
        scratch, (stop, progress), run, pause = self.executor.scratch(thread), self.ends, native.work(), native.pause()
        given = *self.given, *graph.words, *state.addresses, scratch, stop, progress + 64 * thread, pause

        def work(kept: object = (self, graph, state)) -> None:  # what addresses point to
            begun = time.perf_counter()
            run(*given)
            share = float(self.progress[thread, 0]) / len(graph.rows)
            if thread == 0 and share:
                self.executor.went(time.perf_counter() - begun, share * self.plan.weight)

        return work


class _Graph:
    """The tasks of a chunk and the order they have to keep, as `native.work` wants them.

    parallelism  all work divided by the longest path, in cycles
    """

    def __init__(
        self, rows: _Rows, source: _Tasks, target: _Tasks, parallelism: float, cycles: _Rows, threads: int
    ) -> None:
        n = len(rows)
        self.rows, self.parallelism = rows.astype(np.int32), parallelism
        self._waits = np.bincount(target, minlength=n).astype(np.int32)
        self._first = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=n))]).astype(np.int32)
        self._next = target[np.argsort(source, kind="stable")]
        ready = np.flatnonzero(self._waits == 0)
        self._ready, self._queue = len(ready), np.zeros(n, np.int32)
        self._queue[: len(ready)] = ready + 1
        self._batches = np.zeros(1, np.int32) if len(target) else _batches(cycles, threads)
        rows_at, first, following, batches = (
            address_of(a) for a in (self.rows, self._first, self._next, self._batches)
        )
        self.words = rows_at, n, first, following, batches, len(self._batches) - 1

    def begin(self) -> _State:
        """The state of a run that begins."""
        unordered = not len(self._next)
        waits, queue = (self._waits, self._queue) if unordered else (self._waits.copy(), self._queue.copy())
        return _State(waits, queue, self._ready)

    @classmethod
    def of(cls, table: TaskTable, rows: _Rows, accesses: regions.Accesses | None, threads: int) -> _Graph:
        none = np.zeros(0, np.int32)
        cycles = np.maximum(table.cycles[rows], 1)
        many = 0 if accesses is None else len(accesses.task)
        if accesses is None or not many:
            return cls(rows, none, none, float(len(rows)), cycles, threads)
        longest = cycles.copy()
        writer, reader = np.full(accesses.cells, -1, np.int32), np.full(accesses.cells, -1, np.int32)
        before, source, target = (np.empty(2 * many, np.int32) for _ in range(3))
        edges = native.find_edges()(
            many, address_of(accesses.task), address_of(accesses.cell), address_of(accesses.writes), address_of(writer),
            address_of(reader), address_of(before), address_of(source), address_of(target), address_of(cycles),
            address_of(longest),
        )  # fmt: skip
        parallelism = float(cycles.sum()) / float(longest.max())
        return cls(rows, source[:edges], target[:edges], parallelism, cycles, threads)


def _batches(cycles: _Rows, threads: int) -> _Tasks:
    """Where batches of tasks without any order begin, and where the last one ends: see native.work.

    They become smaller as the work comes to its end. Neighbours in program order mostly lie side by side in memory.
    Given to two cores by turns, each core would fetch ahead what the other one is about to write.
    """
    if not len(cycles):
        return np.zeros(1, np.int32)
    done = np.cumsum(cycles, dtype=np.float64)
    left = (1 - 1 / (_BATCHES * threads)) ** np.arange(_BATCHES * threads * math.log(len(cycles)) + 1)
    ends = np.unique(np.searchsorted(done, done[-1] * (1 - left), side="right"))
    return np.unique(np.concatenate([[0], ends, [len(cycles)]])).astype(np.int32)


class _State:
    """What changes in a graph while its tasks run."""

    def __init__(self, waits: _Tasks, queue: _Tasks, ready: int) -> None:
        self._waits, self._queue, self._words = waits, queue, np.zeros(24, np.int64)
        self._words[8] = ready
        self.addresses = tuple(address_of(a) for a in (waits, queue, self._words))

    @property
    def finished(self) -> int:
        """Tasks."""
        return int(self._words[16])


class _Pool:
    """Threads that stay, shared by all programs of the process."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._threads = self._busy = 0
        self._lock = threading.RLock()  # a signal handler may come in between and start a run of its own

    def start(self, job: Job) -> bool:
        """Have a job done in the background; False when the system has no thread for it."""
        with self._lock:
            if self._threads <= self._busy:
                try:
                    threading.Thread(target=self._serve, name=f"pto_wsp-{self._threads}", daemon=True).start()
                except RuntimeError:
                    return False
                self._threads += 1
            self._busy += 1
            job.counted = True
        self._jobs.put(job)
        return True

    def ended(self) -> None:
        """A job is over, or will not be begun: its thread is free for the next one."""
        with self._lock:
            self._busy -= 1

    def _serve(self) -> None:
        while True:
            self._jobs.get().begin()


class Latch:
    """A threading.Event that is set once, and that Ctrl-C cannot break.

    An interrupt at the wrong line of Event.wait() releases the lock of a thread that is setting it, which then raises.
    """

    def __init__(self) -> None:
        self._over, self._lock = False, threading.Lock()
        self._lock.acquire()

    def is_set(self) -> bool:
        """Has set() been called?"""
        return self._over

    def set(self) -> None:
        """Let all go on who wait, and who will. To be called once."""
        self._over = True
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, or for so many seconds; is it set?"""
        end = math.inf if timeout is None else time.monotonic() + timeout
        while not self._over:
            left = end - time.monotonic()
            if left <= 0:
                return False
            # who is interrupted while it has the lock keeps it; then the others look for themselves
            if self._lock.acquire(timeout=min(left, _LOOK)):
                self._lock.release()
        return True


class Job:
    """Work that is begun by one thread, and given up or waited for by another. It raises nothing.

    done     it is over, or was given up
    counted  a thread of the pool is kept for it
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work, self._pool, self.counted = work, _POOL, False
        self._taken = threading.Lock()  # whoever gets it decides
        self.done = Latch()

    def start(self) -> bool:
        """Have it done in the background; False when the system has no thread for it."""
        return self._pool.start(self)

    def begin(self) -> None:
        if self._taken.acquire(blocking=False):
            try:
                self._work()
            finally:
                self._end()

    def give_up(self) -> bool:
        """Drop it if nobody has begun it; can that be said?"""
        if not self._taken.acquire(blocking=False):
            return False
        self._end()
        return True

    def settle(self) -> None:
        """Until it is over or given up, Ctrl-C or not."""
        try:
            if not self.give_up():
                self.done.wait()
        except BaseException:
            self.settle()
            raise

    def _end(self) -> None:
        try:
            del self._work  # and all that it holds
            if self.counted:
                self._pool.ended()
        finally:
            self.done.set()


def _side_by_side(
    works: list[Callable[[], None]],
    report: Callable[[], None],
    watch: bool,
    over: Callable[[], bool],
    stop: NDArray[np.int64],
) -> None:
    """Do all of that on the threads of the pool; what no thread has begun when another one has ended is dropped.

    watch  this thread does none of it, and calls report() now and then; else it does the first
    over   everything has been done that is to be done, whether or not all the threads have said so
    stop   its word ends the work of all: it is set when something is raised here, Ctrl-C or by report()
    """
    jobs = [Job(work) for work in (works if watch else works[1:])]
    try:
        begun = [job for job in jobs if job.start()]
        if watch and begun:
            while not any(job.done.wait(_REPORT / len(begun)) for job in begun):
                report()
        else:
            works[0]()
    except BaseException:
        stop[0] = 1
        raise
    finally:
        _wait_for(jobs, over, stop)


def _wait_for(jobs: list[Job], over: Callable[[], bool], stop: NDArray[np.int64]) -> None:
    """Until all are over or given up, Ctrl-C or not: they write to arrays that may be gone afterwards."""
    try:
        for job in jobs:
            if not job.give_up() and not over():
                job.done.wait()
    except BaseException:
        stop[0] = 1
        _wait_for(jobs, over, stop)
        raise


_POOL = _Pool()


def _forget_threads() -> None:
    """In the child of a fork the threads are gone."""
    global _POOL
    _POOL = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
