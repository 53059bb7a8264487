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
from pto_wsp.lower.expand import Binding, Call, Expansion
from pto_wsp.lower.tasks import TaskTable
from pto_wsp.sim import bodies, native, regions

__all__ = ["Executor", "host_threads"]

_PROBE = 100e-6  # seconds of work that are run before deciding whether more threads would help
_WORTH = 300e-6  # seconds of work below which they would not
_PER_TASK = 0.15e-6  # seconds that handing one task to another thread costs
_PER_ORDERED_TASK = 0.4e-6  # the same with finding out which tasks it has to wait for
_BATCHES = 4  # a thread draws so many batches while all of the work that is left would do for one each
_REPORT = 0.05  # seconds between reports of progress
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
    phases       milliseconds that each step of making the kernels' machine code took
    """

    def __init__(self, expansion: Expansion, threads: int | None = None) -> None:
        self.expansion = expansion
        self.threads = host_threads(threads)
        self.phases: dict[str, float] = {}
        self._codes: dict[int, jit.Code | custom.Body] = {}  # by position in _functions; keeps the machine code alive
        self._functions = np.zeros(2 * max(len(expansion.kernels), 1), np.int64)
        self._scratch_bytes = 64
        self._stop = 0  # address of the word that ends the run
        self._scratch: dict[int, NDArray[np.uint8]] = {}  # by number of the thread within a run
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
        native.run_rows()  # loaded now, not while the first tasks are being timed
        for kernel in range(len(expansion.kernels)):
            self._compile(kernel, tail=False)

    def bind(self, arrays: Sequence[NDArray[Any]]) -> None:
        """The arrays that the next chunks work on, one per entry of expansion.tensors.

        raises  ExecutionError for an array that is written but read-only, or whose elements share memory
        """
        for thread in self._scratch:
            self._record(thread)[:] = 0
        for call, binding in self._outputs.values():
            check_output(arrays[binding.tensor], call, binding)
        space_of, origin = regions.spaces_of(arrays)
        space = np.append(space_of, np.int32(-1))[self._tensor]
        itemsize = np.array([*(a.itemsize for a in arrays), 1], np.int32)[self._tensor]
        self._uses = regions.Uses(space, itemsize, self._writes, origin)
        alone = np.bincount(space[space >= 0])[space[self._writes]] == 1  # nothing else uses the space of that output
        alike = self.expansion.pipeline is not None  # a token may come twice, a body run in several processes
        self.independent = bool(alone.all()) and not alike and self._outputs_are_apart
        self._skip, self._patience = 0, 1

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
        self._compile_tails(table)
        self._stop = int(stop.ctypes.data)
        self._run(table, stop, done)
        self.raise_failure(table)

    def _run(self, table: TaskTable, stop: NDArray[np.int64], done: Callable[[int], None]) -> None:
        run = _Run(self, table, stop, done)
        if self.threads == 1 or self._skip > 0:
            self._skip -= 1
            run.serial(0, table.count)
            return
        row, seconds = run.probe()
        run.report()
        saved = seconds * (1 - 1 / self.threads)
        price = (_PER_TASK if self.independent else _PER_ORDERED_TASK) * (table.count - row)
        if seconds < _WORTH or saved < price or not run.parallel(row, seconds):
            run.serial(row, table.count)

    def raise_failure(self, table: TaskTable) -> None:
        """Tell what the body of a custom kernel raised, if one did, in the last run of tasks of this table.

        raises  KernelError that names the task, its axis values and the user's line
        """
        if self._custom:
            bodies.raise_failure(self.expansion, table, [self._record(thread) for thread in self._scratch])

    def machine(self, progress: NDArray[np.int64], stop: NDArray[np.int64]) -> tuple[int, int, int, int]:
        """What native code needs to run tasks in order: see decisions.Recording. `progress`, `stop`: one word each."""
        self._stop = int(stop.ctypes.data)
        return native.address_of_run_rows(), self.functions, self.scratch(0), int(progress.ctypes.data)

    def found_parallel(self, found: bool) -> None:
        """Looking for tasks that can run side by side was worth it, or not: then look less often."""
        self._skip = 0 if found else self._patience
        self._patience = 1 if found else min(2 * self._patience, _MOST_PATIENCE)

    @property
    def uses(self) -> regions.Uses:
        assert self._uses is not None, "bind() comes before run()"
        return self._uses

    @property
    def functions(self) -> int:
        """Address of the table of kernels: two per kernel, for full and for partial tiles."""
        return int(self._functions.ctypes.data)

    def scratch(self, thread: int) -> int:
        """Address of the scratch memory of a thread, aligned to 64 bytes; before it, the words of lower/custom.py."""
        if thread not in self._scratch or len(self._scratch[thread]) < self._scratch_bytes + 128:
            self._scratch[thread] = np.zeros(self._scratch_bytes + 128, np.uint8)
        self._record(thread)[custom.STOP] = self._stop
        return int(self._record(thread).ctypes.data) + 64

    def _record(self, thread: int) -> NDArray[np.int64]:
        """The words before the scratch memory of a thread."""
        memory = self._scratch[thread]
        begin = -int(memory.ctypes.data) % 64
        return memory[begin : begin + 8 * custom.RECORD].view(np.int64)

    def _compile(self, kernel: int, tail: bool) -> None:
        graph = self.expansion.kernels[kernel].graph
        if graph.custom is not None:
            self._use_body(kernel, custom.load(graph))
            return
        compiled = pipeline.compile_kernel(graph, tail)
        code = jit.load(compiled.key, lambda: compiled.ir)
        for phase, spent in code.phases.items():
            self.phases[phase] = self.phases.get(phase, 0.0) + spent
        needed = ctypes.CFUNCTYPE(ctypes.c_int64)(code.address(f"{compiled.symbol}.scratch"))()
        self._scratch_bytes = max(self._scratch_bytes, needed)
        self._codes[2 * kernel + tail] = code
        self._functions[2 * kernel + tail] = code.address(compiled.symbol)

    def _use_body(self, kernel: int, body: custom.Body) -> None:
        """One function for full and for partial tiles."""
        for phase, spent in body.phases.items():
            self.phases[phase] = self.phases.get(phase, 0.0) + spent
        for position in (2 * kernel, 2 * kernel + 1):
            self._codes[position], self._functions[position] = body, body.address

    def _compile_tails(self, table: TaskTable) -> None:
        """Machine code for partial tiles, once there are some."""
        tails = (table.tail[: table.count] != 0) & (table.kernel[: table.count] >= 0)
        if tails.any():
            for kernel in sorted(set(table.kernel[: table.count][tails].tolist())):
                if 2 * kernel + 1 not in self._codes:
                    self._compile(kernel, tail=True)


def check_output(array: NDArray[Any], call: Call, binding: Binding) -> None:
    what = f"{call.name} writes to {binding.param.name}"
    if not array.flags.writeable:
        raise ExecutionError(f"{what}, whose array is read-only.", kernel_name=call.name).at(call.task.line)
    if regions.overlaps_itself(array):
        raise ExecutionError(
            f"{what}, but elements of its array share memory: shape {array.shape}, strides {array.strides}. "
            "Give it an array of its own: np.array(...).", kernel_name=call.name
        ).at(call.task.line)  # fmt: skip


class _Run:
    """One chunk on its way through the machine."""

    def __init__(
        self, executor: Executor, table: TaskTable, stop: NDArray[np.int64], done: Callable[[int], None]
    ) -> None:
        self.executor, self.table, self.stop, self.done = executor, table, stop, done
        self.progress = np.zeros((executor.threads, 8), np.int64)  # tasks finished by each thread, a cache line apart
        self.reported = 0

    def report(self) -> None:
        finished = int(self.progress[:, 0].sum())
        if finished > self.reported:
            self.done(finished - self.reported)
            self.reported = finished

    def rows(self, begin: int, end: int) -> int:
        """Run rows in order in this thread; the row after the last one."""
        table = self.table
        row = native.run_rows()(
            self.executor.functions, table.kernel.ctypes.data, table.tail.ctypes.data, table.args.ctypes.data,
            table.args.shape[1], begin, end, self.executor.scratch(0), self.stop.ctypes.data, self.progress.ctypes.data,
        )  # fmt: skip
        return int(row)

    def serial(self, begin: int, end: int) -> None:
        """Run rows in order, in batches of about _REPORT seconds."""
        batch = 256
        while begin < end:
            started = time.perf_counter()
            after = self.rows(begin, min(begin + batch, end))
            self.report()
            if after < min(begin + batch, end):
                return
            begin = after
            spent = time.perf_counter() - started
            batch = min(8 * batch, max(1, int(batch * _REPORT / max(spent, 1e-9))))

    def probe(self) -> tuple[int, float]:
        """Run the first rows; the next row, and the seconds that the others may take, by their cycles.

        The fastest batch is the measure: first tasks are slow, and the system may have run something else meanwhile.
        """
        row, batch, begun, table, each = 0, 1, time.perf_counter(), self.table, math.inf
        while True:
            end, started = min(row + batch, table.count), time.perf_counter()
            after = self.rows(row, end)
            now = time.perf_counter()
            if after < end:  # stopped
                return table.count, 0.0
            each = min(each, (now - started) / (end - row + int(table.cycles[row:end].sum())))
            if end == table.count or now - begun >= _PROBE:
                return end, each * (table.count - end + int(table.cycles[end : table.count].sum()))
            row, batch = end, 2 * batch

    def parallel(self, begin: int, seconds: float) -> bool:
        """Run the rows from `begin` on all threads; False, and nothing done, when they are one long chain.

        seconds  how long one thread would take
        """
        executor, table = self.executor, self.table
        rows = np.flatnonzero(table.kernel[begin : table.count] >= 0) + begin
        if not len(rows):
            return True
        accesses = None if executor.independent else regions.accesses_of(table, rows, executor.uses)
        graph = _Graph.of(table, rows, accesses)
        executor.found_parallel(graph.parallelism >= 1.2)
        if graph.parallelism < 1.2:
            return False
        threads = min(executor.threads, len(rows), math.ceil(graph.parallelism))
        graph.draw_in_batches(table.cycles[rows], threads)
        _POOL.run([self._job(graph, thread) for thread in range(threads)], self.report, seconds / threads)
        self.report()
        return True

    def _job(self, graph: _Graph, thread: int) -> Callable[[], None]:
        table, scratch, batches = self.table, self.executor.scratch(thread), graph.batches

        def job() -> None:
            native.work()(
                self.executor.functions, table.kernel.ctypes.data, table.tail.ctypes.data, table.args.ctypes.data,
                table.args.shape[1], graph.rows.ctypes.data, len(graph.rows), graph.waits.ctypes.data,
                graph.first.ctypes.data, graph.next.ctypes.data, graph.queue.ctypes.data, batches.ctypes.data,
                len(batches) - 1, graph.state.ctypes.data, scratch, self.stop.ctypes.data,
                self.progress[thread].ctypes.data, native.pause(),
            )  # fmt: skip

        return job


class _Graph:
    """The tasks of a chunk and the order they have to keep, as `native.work` wants them."""

    def __init__(self, rows: _Rows, source: _Tasks, target: _Tasks, parallelism: float) -> None:
        n = len(rows)
        self.rows = rows.astype(np.int32)
        self.parallelism = parallelism  # all work divided by the longest path, in cycles
        self.waits = np.bincount(target, minlength=n).astype(np.int32)
        self.first = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=n))]).astype(np.int32)
        self.next = target[np.argsort(source, kind="stable")]
        self.queue = np.zeros(n, np.int32)
        ready = np.flatnonzero(self.waits == 0)
        self.queue[: len(ready)] = ready + 1
        self.state = np.zeros(24, np.int64)
        self.state[8] = len(ready)
        self.batches = np.zeros(1, np.int32)  # of the queue; see native.work

    def draw_in_batches(self, cycles: _Rows, threads: int) -> None:
        """Tasks without any order are drawn in batches, which become smaller as the work comes to its end.

        Neighbours in program order mostly lie side by side in memory. Given to two cores by turns, each core would
        fetch ahead what the other one is about to write.
        """
        if len(self.next) or len(self.rows) < 2:
            return
        done = np.cumsum(np.maximum(cycles, 1), dtype=np.float64)
        left = (1 - 1 / (_BATCHES * threads)) ** np.arange(_BATCHES * threads * math.log(len(self.rows)) + 1)
        ends = np.unique(np.searchsorted(done, done[-1] * (1 - left), side="right"))
        self.batches = np.unique(np.concatenate([[0], ends, [len(self.rows)]])).astype(np.int32)

    @classmethod
    def of(cls, table: TaskTable, rows: _Rows, accesses: regions.Accesses | None) -> _Graph:
        none = np.zeros(0, np.int32)
        cycles = np.maximum(table.cycles[rows], 1)
        many = 0 if accesses is None else len(accesses.task)
        if accesses is None or not many:
            return cls(rows, none, none, float(len(rows)))
        longest = cycles.copy()
        writer, reader = np.full(accesses.cells, -1, np.int32), np.full(accesses.cells, -1, np.int32)
        before, source, target = (np.empty(2 * many, np.int32) for _ in range(3))
        edges = native.find_edges()(
            many, accesses.task.ctypes.data, accesses.cell.ctypes.data, accesses.writes.ctypes.data, writer.ctypes.data,
            reader.ctypes.data, before.ctypes.data, source.ctypes.data, target.ctypes.data, cycles.ctypes.data,
            longest.ctypes.data,
        )  # fmt: skip
        return cls(rows, source[:edges], target[:edges], float(cycles.sum()) / float(longest.max()))


class _Pool:
    """Threads that stay, shared by all programs of the process."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._threads = 0
        self._lock = threading.Lock()

    def run(self, jobs: list[Callable[[], None]], report: Callable[[], None], seconds: float) -> None:
        """Run the jobs side by side; those that no thread has begun when another one has ended are dropped.

        seconds  how long that may take. If it is short, this thread does the first job; else it watches, and calls
                 report() now and then
        """
        watch = seconds > 2 * _REPORT
        waiting = [_Job(job) for job in (jobs if watch else jobs[1:])]
        with self._lock:
            while self._threads < len(waiting):
                self._threads += 1
                threading.Thread(target=self._serve, name=f"pto_wsp-{self._threads}", daemon=True).start()
        for job in waiting:
            self._jobs.put(job)
        if not watch:
            jobs[0]()
        elif waiting:
            while not any(job.done.wait(_REPORT / len(waiting)) for job in waiting):
                report()
        for job in waiting:
            job.finish()

    def _serve(self) -> None:
        while True:
            self._jobs.get().begin()


class _Job:
    """A job that is begun by one thread, and given up or waited for by another."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._taken = threading.Lock()  # whoever gets it decides
        self.done = threading.Event()

    def begin(self) -> None:
        if self._taken.acquire(blocking=False):
            try:
                self._work()
            finally:
                self.done.set()

    def finish(self) -> None:
        if not self._taken.acquire(blocking=False):
            self.done.wait()


_POOL = _Pool()


def _forget_threads() -> None:
    """In the child of a fork the threads are gone."""
    global _POOL
    _POOL = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
