"""Program: a compiled workload. Compile, execute, look at the clock; try other schedules. The one file that knows
all rooms.

A run has two passes over the tasks, which stream through in chunks of a task table. The first expands the workload,
checks the region of every task and lets the clock tick; nothing is written yet, so a task outside its array stops the
run before it began. Where the clock cannot fail, it ticks when somebody asks for stats. The second pass hands the tasks
to machine code (or to the NumPy interpreter). When all tasks fit into one chunk, they are expanded once. What the first
pass has found is kept for the next run, which leaves it out if its arrays lie where they lay, and sizes, symbols and
axes are the same.

Where the next tasks depend on results of earlier ones (a slot is loaded from a tensor that tasks write), there is one
pass: tasks run while the others are being made, each still checked before it runs, and a task outside its array stops
the run in the middle. What was read is recorded, so that `simulate` can play it again (sim/decisions.py).
Start reading at `Program`, then `_Run`.
"""

from __future__ import annotations

import atexit
import copy
import math
import operator
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, SupportsFloat, TypeVar

import numpy as np
from numpy.typing import NDArray

from pto_wsp.arguments import instance, integer
from pto_wsp.errors import (
    AxisError,
    CompileError,
    ExecutionError,
    PtoError,
    ScheduleError,
    UsageError,
    show_user_frames,
)
from pto_wsp.lower import axes as axis_data
from pto_wsp.lower.expand import MOST_ROWS, Clock, Expansion, Host, Inputs, Stopped
from pto_wsp.lower.places import Place
from pto_wsp.lower.tasks import TaskTable
from pto_wsp.schedule import Schedule
from pto_wsp.sim import checks, regions
from pto_wsp.sim.channels import settled
from pto_wsp.sim.dataflow import DataflowEngine
from pto_wsp.sim.decisions import Log, Recording
from pto_wsp.sim.execute import Executor, Job, Latch
from pto_wsp.sim.hazards import TileUses
from pto_wsp.sim.inorder import Counters, work_of
from pto_wsp.sim.interpreted import Interpreter
from pto_wsp.sim.progress import Progress, someone_watches
from pto_wsp.sim.settings import Settings, check_explicit_edges
from pto_wsp.sim.simulation import (
    Engine,
    Expansions,
    Simulation,
    Snapshot,
    clock_of,
    engine_of,
    play,
    record_loads,
    tile_uses,
)
from pto_wsp.sim.stats import ExecutionTrace, ProgramStats, TraceEvent, TraceLevel
from pto_wsp.sim.timeline import Timeline
from pto_wsp.trace.channels import LATENCY
from pto_wsp.trace.tree import Loop, WorkloadTree, walk
from pto_wsp.trace.workload import Workload
from pto_wsp.types import DenseDyn, Ragged, RaggedRow, Sparse, SparseRow, Tensor

if TYPE_CHECKING:
    from pto_wsp.ascend.onhost import HostRun
    from pto_wsp.ascend.onhost import Inputs as DeviceInputs
    from pto_wsp.ascend.project import Project, Sources
    from pto_wsp.sim.why import TaskReport

__all__ = ["ExecutionTrace", "Program", "ProgramStats", "Simulation", "TraceEvent", "TraceLevel"]

TARGETS = {
    "cpu_sim": "cpu_sim", "cpu_sim_codegen": "cpu_sim", "numpy": "numpy", "ascend_npu": "ascend_npu",
    "ascend": "ascend_npu",
}  # fmt: skip
OPTIONS = {
    "axis_sizes": "a dict: loop name -> trip count of a DenseDyn loop",
    "check": "what each execute() looks for before anything is written: 'races', 'hazards' or both in a tuple",
    "threads": "number of host threads",
    "progress": "True or False: show a progress bar",
}
NPU_OPTIONS = {
    "axis_sizes": OPTIONS["axis_sizes"],
    "folder": "where the sources go; by default a folder named by their contents, in the cache",
    "mailboxes": "True or False: workers take tasks while others are made",
    "ptoisa": "how @ptoisa_kernel kernels are emitted: 'ascendc' or 'pto'",
}

_T = TypeVar("_T")

_BRIEF = 1e-3  # seconds that a run may keep the thread that starts it; another thread costs a tenth of that
_FEW = 20_000  # tasks that may be expanded meanwhile
_FEW_LOOKED_AT = 2000  # that the clock, a check or functions of the schedule may look at, too
_SURELY_COUNTED = 1 << 62  # cycles; every clock counts so far


class Program:
    """A workload compiled for a target; made by `workload.compile(target, **options)`.

    target    "cpu_sim" (alias "cpu_sim_codegen"): machine code for this CPU
              "numpy": the kernels run as plain Python on NumPy arrays; print and breakpoint work inside
              "ascend_npu" (alias "ascend"): an AscendC project in `codegen_artifact_dir`; `run_on_host()` runs it here
    options   axis_sizes={loop name: n}   as set_axis_sizes
              threads=n                   host threads; by default as many as there are cores
              check="races", "hazards"    or both in a tuple: what each execute() looks for before anything is written
                                          (after it, where the tasks depend on results), see sim/checks.py
              progress=True or False      a progress bar on long runs; by default in terminals and notebooks
              folder=path                 ascend_npu: where the project goes; it is empty, new, or one of ours
              mailboxes=True or False     ascend_npu: a generator that feeds the workers while they run
              ptoisa="ascendc" or "pto"   ascend_npu: @ptoisa_kernel kernels as AscendC, or as PTO-ISA tile code

    raises  CompileError, "Codegen compilation failed: ...", at the user's line. It is also what the original error
            was (TypeCheckError, ScheduleError, ...), and has that as its cause.
    """

    using_cpp_backend = True
    """Kept for programs that ask; there is no C++ here."""
    codegen_artifact_dir: str | None = None
    """The folder of the emitted sources; None on targets that emit none."""
    _project: Project | None = None
    _traced_ms = 0.0  # of compiling, what machine code did not take

    @show_user_frames()
    def __init__(self, workload: Workload, target: str = "cpu_sim", options: Mapping[str, Any] | None = None) -> None:
        _check_workload(workload)
        self.workload, self.target, self.options = workload, target, dict(options or {})
        self.name: str = workload.name or workload.title or "main"
        self.trace = ExecutionTrace()
        self._level = TraceLevel.NONE
        self._run: _Run | None = None
        self._starting = threading.Lock()
        self._sizes: dict[Loop, int] = {}
        self._symbols: dict[str, int] = {}
        self._axis_data: dict[Ragged | Sparse, dict[str, Any]] = {}  # what replaces the data an axis was made with
        self._last: tuple[Inputs, Log] | None = None  # what the last run was given, and read from its own results
        self._foreseen: _Foreseen | None = None
        self._bound: tuple[Any, Inputs] | None = None  # what the last inputs were made of
        self._spaces: tuple[list[Place], list[int]] = [], []  # places of the arrays of the last run, and their spaces
        self._uses: tuple[list[Place], TileUses | None] | None = None  # what tasks do with tiles of arrays there
        self._table: TaskTable | None = None  # memory for tasks
        self._lending = threading.RLock()  # for these two: another thread may ask for stats, a signal handler too
        begin = time.perf_counter_ns()
        with _compile_errors(self.name, target):
            self._compile()
        self._compiled = TraceEvent(f"compile {self.name}", "compile", begin, time.perf_counter_ns())
        self._traced_ms = self._compiled.duration_ms - sum(self.phases.values())
        none = ProgramStats(compile_time_ms=self._compiled.duration_ms)
        self._no_stats = lambda: none
        self._stats: Callable[[], ProgramStats] = self._no_stats  # worked out when somebody asks

    def _compile(self) -> None:
        if self.target not in TARGETS:
            raise CompileError(f"unsupported target {self.target!r}; there are {', '.join(map(repr, TARGETS))}")
        on_npu = TARGETS[self.target] == "ascend_npu"
        options = NPU_OPTIONS if on_npu else OPTIONS
        for name in self.options:
            if name not in options:
                known = "; ".join(f"{option} ({meaning})" for option, meaning in options.items())
                warnings.warn(f"compile() has no option {name!r}, it changes nothing. There are: {known}", stacklevel=5)
        if self.workload.spatial_grid is not None:
            raise ScheduleError("spatial_map is not supported yet: tasks have no place on a grid", "spatial_map")
        self._given = self.workload.schedule
        self._tree: WorkloadTree = self.workload.tree()
        self._checks = () if on_npu else checks.wanted(self.options.get("check"), self.schedule)
        if on_npu:
            self._emit()
        else:
            check_explicit_edges(self.schedule, self._expansion.calls)
            self._executor = _executor(TARGETS[self.target], self._expansion, self._threads())
        self.set_axis_sizes(self.options.get("axis_sizes") or {})

    @cached_property
    def schedule(self) -> Settings:
        """The schedule as the simulator runs it."""
        return settled(self._tree, self._given)

    @cached_property
    def _expansions(self) -> Expansions:
        return Expansions(self._tree)

    @cached_property
    def _expansion(self) -> Expansion:
        return self._expansions.of(self.schedule)

    # ---- run

    @show_user_frames()
    def execute(self) -> None:
        """Start a run in the background, on the arrays, sizes and symbols of this moment.

        A run that will take less than a millisecond, by the last one, is over when this returns. So it is
        with target="numpy": kernels run in the caller's thread, where a debugger can be talked to. What goes wrong in
        a run is raised by synchronize() all the same.

        raises  UsageError while another run is going on, and for sources that only an NPU can execute; ExecutionError
                when an array does not fit
        """
        if self._project is not None:
            raise UsageError(
                f"program {self.name} is a project for the NPU, in {self.codegen_artifact_dir}; its README.md says how "
                "to build it. run_on_host() runs it here, and target='cpu_sim' makes a program that executes"
            )
        if self._run is not None and not self._run.finished.is_set():
            raise UsageError(f"program {self.name} is still running; synchronize() waits for it")
        if not self._starting.acquire(blocking=False):
            raise UsageError(f"program {self.name} is being started by another thread, or below a signal handler")
        try:
            self._start()
        finally:
            self._starting.release()

    def _start(self) -> None:
        if self._run is not None and self._run.error is not None:
            self.synchronize()  # nobody has asked for it yet
        self._stats = self._no_stats
        arrays, inputs, places = self._bind(self._expansion)
        self._executor.bind(arrays, places)
        self._last = None
        self._run = run = _Run(self, arrays, inputs, places, self._to_check(arrays, inputs))
        if TARGETS[self.target] == "numpy":
            run.here(Progress(self.name) if self._watched() else None)
        elif run.most <= self._few(run) and self._seconds(run.most) <= _BRIEF:
            run.here(None)
        else:
            run.start()

    @show_user_frames()
    def synchronize(self, timeout: float | None = None) -> None:
        """Wait for the run; Ctrl-C stops it. Returns at once when there is none.

        timeout  seconds; the run goes on after that
        raises   what the run raised, an ExecutionError; TimeoutError; UsageError when the run itself has called, by a
                 signal handler or a function of the schedule, and in the child of a fork: the run is in the parent
        """
        run = self._run
        if run is None:
            return
        if run.thread == threading.get_ident() and not run.finished.is_set():
            raise UsageError(f"the run of {self.name} cannot go on while synchronize() waits for it, in its own thread")
        try:
            finished = self._wait(run, timeout)
        except BaseException:  # Ctrl-C
            run.stop()
            raise
        if not finished:
            raise TimeoutError(f"program {self.name} is still running after {timeout} s")
        error, run.error = run.error, None
        if error is not None:
            raise error

    def _wait(self, run: _Run, timeout: float | None) -> bool:
        """Has the run ended within `timeout` seconds? Draws the progress bar meanwhile."""
        if run.finished.is_set() or not self._watched():
            return run.finished.wait(timeout)
        end = math.inf if timeout is None else time.perf_counter() + timeout
        with Progress(self.name) as progress:
            while not run.finished.wait(min(0.1, max(0.0, end - time.perf_counter()))):
                if time.perf_counter() >= end:
                    return False
                progress.show(run.done, run.total)
        return True

    def _watched(self) -> bool:
        """Is a progress bar wanted?"""
        wanted = self.options.get("progress")
        return someone_watches() if wanted is None else bool(wanted)

    def is_complete(self) -> bool:
        """Has a run ended, and is none going on?"""
        return self._run is not None and self._run.finished.is_set()

    @property
    def stats(self) -> ProgramStats:
        """Of the last run that ended well; zeros from the start of a run to its end."""
        return self._stats()

    @property
    def phases(self) -> dict[str, float]:
        """Milliseconds that each step of compiling took, for the loops of the workload and its kernels: making machine
        code, and tracing, which is the rest. They add up to the time of `compile()`; code for partial tiles is made
        when there are some, and adds to them."""
        if self._project is not None:
            return {}
        spent = {"trace": self._traced_ms, **self._expansion.code.phases}
        for phase, ms in self._executor.phases.items():
            spent[phase] = spent.get(phase, 0.0) + ms
        return spent

    # ---- the clock

    @show_user_frames()
    def simulate(self, schedule: Schedule | None = None, *, cycles: Any = None) -> Simulation:
        """Run the clock without the kernels, under another schedule or the program's own.

        cycles  that tasks take: a number, an expression or function of the task, a dict of these by kernel (or its
                name), a model with a method cycles(graph), see sim/cycles.py; None: what their instructions add up to

        What the program has decided by its own results is played again from the last execute().

        raises  ScheduleError for what is not supported yet; RegionError for a task outside its array; UsageError when
                the tasks depend on results, and there was no run with these inputs
        """
        begin = time.perf_counter_ns()
        found = self.snapshot().simulate(schedule, cycles)
        self._note(
            TraceLevel.SUMMARY, TraceEvent(f"simulate {self.name}", "simulate", begin, time.perf_counter_ns())
        )
        return replace(found, compile_time_ms=self._compiled.duration_ms)

    @show_user_frames()
    def snapshot(self) -> Snapshot:
        """All that the clock needs to know of this moment: tasks, sizes, symbols, decisions, where arrays lie.

        raises  RegionError for a slot that would be loaded from outside its array; UsageError when the tasks depend on
                results, and there was no run with these inputs
        """
        arrays, inputs, _ = self._bind(self._expansion)
        return self._snapshot(arrays, inputs, self._recorded(inputs))

    def _snapshot(self, arrays: list[NDArray[Any]], inputs: Inputs, log: Log | None) -> Snapshot:
        if log is None and self._expansion.loads:
            log = record_loads(self._expansion, inputs)
        return Snapshot(
            name=self.name,
            expansions=self._expansions,
            hazards="hazards" in self._checks,
            schedule=self._given,
            places={t: Place.of(a) for t, a in zip(self._expansion.tensors, arrays, strict=True)},
            sizes={loop: self._size_of(loop) for loop in self._expansion.loops},
            symbols=dict(self._symbols),
            data={axis: axis_data.by_name(axis, found) for axis, found in inputs.axes.items()},
            volatile=inputs.volatile,
            log=log,
        )

    def _to_check(self, arrays: list[NDArray[Any]], inputs: Inputs) -> Callable[[Log | None], None]:
        """What a run is checked by: called with what it has read of its own results, if it does."""
        if not self._checks:
            return _nothing
        snapshot = self._snapshot(arrays, inputs, Log() if self._is_steered(inputs) else None)

        def look(log: Log | None) -> None:
            seen = snapshot if log is None else replace(snapshot, log=log)
            checks.look_for(self._checks, seen, self.schedule, have_run=log is not None)

        return look

    @show_user_frames()
    def check_races(self) -> None:
        """Are tasks independent that may run at the same time? `P(...)` promises that, and this verifies it, for the
        sizes, symbols and arrays of this moment: for all elements of all tasks, whatever the schedule.

        What the program has decided by its own results is played again from the last execute().

        raises  RaceError for two tasks with no path of structural or explicit edges between them that touch the same
                element, at least one of them writing; otherwise as simulate()
        """
        checks.look_for(("races",), self.snapshot(), self.schedule)

    def timeline(self) -> Timeline:
        """When each task ran, and where, under the program's schedule and its present sizes."""
        return self.simulate().timeline()

    @show_user_frames()
    def task(self, number: int) -> TaskReport:
        """One task by its number in program order, under the program's schedule: where and when it runs, why it starts
        then, what it waits for, what waits for it, what it touches. To ask for several, keep `program.simulate()`.

        raises  UsageError when there is no such task
        """
        return self.simulate().task(number)

    # ---- sources for the NPU

    def _emit(self) -> None:
        from pto_wsp.ascend import project

        mailboxes, ptoisa = self.options.get("mailboxes", False), self.options.get("ptoisa", "ascendc")
        if not isinstance(mailboxes, bool):
            raise CompileError(f"mailboxes is True or False; got {mailboxes!r}")
        place = self.options.get("folder")
        self._project = project.make(self._tree, self._given, self.name, place, mailboxes, ptoisa)
        self.codegen_artifact_dir = str(self._project.folder)

    def _emitted(self, what: str) -> Project:
        if self._project is None:
            raise UsageError(f"{what} belongs to the sources for the NPU; compile with target='ascend_npu'")
        return self._project

    @property
    def sources(self) -> Sources:
        """The emitted files: path -> text, for target="ascend_npu"."""
        return self._emitted("sources").sources

    @property
    def placement(self) -> str:
        """Where each tile of the emitted kernels lies: buffer, offset, bytes, steps during which it is needed."""
        return self._emitted("placement").placement

    @show_user_frames()
    def run_on_host(
        self,
        workers: int = 0,
        seed: int = 0xA7,
        timeout: float = 600.0,
        include: Sequence[str | os.PathLike[str]] = (),
    ) -> HostRun:
        """Build the emitted sources on this machine, unchanged, against a simulated AscendC, and run them.

        Host program, task generator and workers run in a process of their own, on the arrays, sizes and symbols of this
        moment; results are written into the arrays when it has ended well. Returns what ran where: see HostRun.

        workers  cores to use at most; 0: as many as the schedule has workers, or the device cores
        seed     byte that fills memory nobody wrote; results do not depend on it
        timeout  seconds
        include  further folders of C++ headers, for what custom and PTO-ISA kernels include
        raises   CompileError without a C++ compiler; ExecutionError when an array does not fit, a task leaves its
                 array, or a kernel breaks a rule of the device; then no array has changed
        """
        from pto_wsp.ascend import onhost

        project = self._emitted("run_on_host()")
        return onhost.run(
            project, self._npu_inputs(project), workers=workers, seed=seed, timeout=timeout, include=include
        )

    @show_user_frames()
    def save_inputs(self, folder: str | os.PathLike[str]) -> str:
        """Write the arrays of this moment as the emitted host program reads them; returns the options to start it with.

        folder  is made where it is missing; files in it are overwritten. After run_on_host() the same call saves the
                results to compare with: see scripts/compare.py of the project
        """
        from pto_wsp.ascend import onhost

        project = self._emitted("save_inputs()")
        return onhost.save_inputs(project.emission, self._npu_inputs(project), folder)

    def _npu_inputs(self, project: Project) -> DeviceInputs:
        """Arrays, symbols, sizes and data of axes of this moment, for a device that reads them once."""
        from pto_wsp.ascend import onhost

        e = project.emission
        arrays = [t.tensor.array() for t in e.tensors]
        written = [a for t, a in zip(e.tensors, arrays, strict=True) if t.direction != "in"]
        if any(regions.overlaps_itself(array) for array in written):
            raise ExecutionError("tasks write to an array whose elements share memory; give it one of its own")
        return onhost.Inputs(
            arrays,
            [self._symbols.get(s.name, 0) for s in e.symbols],
            [self._size_of(s.loop) for s in e.sizes],
            [self._data_of(a.axis, a.name, written) for a in e.axes],
        )

    def _data_of(self, axis: Ragged | Sparse, loop: str, written: list[NDArray[Any]]) -> tuple[NDArray[np.int64], ...]:
        """The data of an axis at this moment, for a device that reads it once."""
        given = self._axis_data.get(axis, {})
        for part in axis_data.PARTS[type(axis)]:
            buffer = given.get(part, getattr(axis, part))
            buffer = buffer.array() if isinstance(buffer, Tensor) else np.asarray(buffer)
            if any(np.may_share_memory(buffer, array) for array in written):
                raise ExecutionError(
                    f"tasks write to the {part} of the axis of loop {loop}, which the device reads at the beginning "
                    "only. Load what tasks write with slot_load_u64"
                )
        try:
            return axis_data.data_of(axis, given, loop)
        except AxisError as error:
            raise ExecutionError(f"{error.message}.") from None

    # ---- inputs that may change between runs

    @show_user_frames()
    def set_axis_sizes(self, sizes: Mapping[Any, int]) -> None:
        """Trip counts of DenseDyn loops, by loop name or by axis object; they stay until they are set again."""
        if not isinstance(sizes, Mapping):
            raise UsageError(f"the sizes of axes are a dict: loop name or axis -> trip count; got {sizes!r}")
        for axis, size in sizes.items():
            loops = [loop for loop in self._loops() if _names(axis, loop)]
            if not loops:
                names = sorted({loop.var.name for loop in self._loops()})
                raise UsageError(f"no loop of {self.name} is called {axis!r}; there are {', '.join(names) or 'none'}")
            for loop in loops:
                if not isinstance(loop.axis, DenseDyn):
                    kept = f"loop {loop.var.name} keeps its fixed size {loop.axis}"
                    dynamic = isinstance(loop.axis, (Ragged, RaggedRow, Sparse, SparseRow))
                    instead = "program.bind(axis, data) replaces it" if dynamic else "DenseDyn(n) can be resized"
                    warnings.warn(f"{kept}; {instead}", stacklevel=3)
                    continue
                self._sizes[loop] = _trip_count(loop, size)

    def set_symbol_u64(self, name: str, value: int) -> None:
        """The value of Symbol(name) and symbol_u64(name), modulo 2^64. Unset symbols are 0."""
        number = int(value) if isinstance(value, (bool, np.bool_)) else integer(value, f"the value of symbol {name}")
        self._set_symbol(name, number & (2**64 - 1))

    def set_symbol_f32(self, name: str, value: float) -> None:
        """The value of an F32 Symbol(name): its bits."""
        if instance(name, str, "the name of a symbol") == LATENCY:
            raise UsageError(f"{name} is a number of cycles: set_symbol_u64({name!r}, ...)")
        if not isinstance(value, (float, SupportsFloat)) or np.ndim(value):
            raise TypeError(f"the value of symbol {name} is a number; got {value!r}")
        with np.errstate(over="ignore"):  # beyond the largest f32 lies infinity
            self._set_symbol(name, int(np.float32(float(value)).view(np.uint32)))

    def set_symbol_ptr(self, name: str, array: Any) -> None:
        """Data of a ragged or sparse axis for the runs to come, by the name that old programs know it by:
        lengths_<id>, indptr_<id> or indices_<id>, <id> being id(axis). `bind` does the same by the axis itself.

        The array is read at the beginning of each run, what it holds is checked then.

        raises  AxisError (a TypeError) for what is not a list of integers; UsageError for a name that no axis has
        """
        found = self._axis_parts().get(name)
        if found is None or found[1] == "outer":
            known = ", ".join(n for n, (_, part) in self._axis_parts().items() if part != "outer") or "none"
            raise UsageError(f"no axis of {self.name} reads {name!r}; there are {known}")
        axis, part = found
        axis_data.as_indices(name, array)
        self._axis_data.setdefault(axis, {})[part] = array

    def bind(self, what: DenseDyn | Ragged | Sparse | Tensor, value: Any) -> None:
        """Replace the data of an axis or of a tensor for the runs to come.

        DenseDyn   its size
        Ragged     its lengths, or another Ragged
        Sparse     (indptr, indices), or another Sparse
        Tensor     its array

        The data of an axis is given as lists, arrays or tensors. Arrays are read at the beginning of each run. Where
        tasks of the program itself write to them, they are read at the beginning of each loop over the axis.
        """
        if isinstance(what, Tensor):
            what.data = value
        elif isinstance(what, DenseDyn):
            self.set_axis_sizes({what: value})
        elif isinstance(what, (Ragged, Sparse)):
            self._bind_axis(what, value)
        else:
            raise UsageError(f"bind() takes an axis (DenseDyn, Ragged, Sparse) or a Tensor; got {what!r}")

    def _bind_axis(self, axis: Ragged | Sparse, value: Any) -> None:
        if axis not in self._axis_names:
            raise UsageError(f"{self.name} has no loop over {axis!r}")
        names = axis_data.PARTS[type(axis)]
        if isinstance(value, type(axis)):
            value = [getattr(value, name) for name in names] if len(names) > 1 else getattr(value, names[0])
        if len(names) > 1 and not isinstance(value, (list, tuple)):
            raise UsageError(f"the data of a {type(axis).__name__} is ({', '.join(names)}); got {value!r}")
        values = (value,) if len(names) == 1 else tuple(value)
        if len(values) != len(names):
            raise UsageError(f"the data of a {type(axis).__name__} is ({', '.join(names)}); got {len(values)} of them")
        given: dict[str, Any] = dict(zip(names, values, strict=True))
        given["outer"] = len(axis_data.as_indices(names[0], values[0])) - isinstance(axis, Sparse)
        axis_data.data_of(axis, given, self._axis_names[axis])
        self._axis_data[axis] = given

    def _axis_parts(self) -> dict[str, tuple[Ragged | Sparse, str]]:
        """The symbols that hold the data of axes: name -> axis, part."""
        return {
            f"{part}_{id(axis)}": (axis, part)
            for axis in self._axis_names
            for part in ("outer", *axis_data.PARTS[type(axis)])
        }

    def _set_symbol(self, name: str, word: int) -> None:
        instance(name, str, "the name of a symbol")
        axis, part = self._axis_parts().get(name, (None, ""))
        if axis is not None and part == "outer":
            self._axis_data.setdefault(axis, {})["outer"] = word
            return
        on_host = any(key.function is not None for key in self.schedule.keys)  # who knows what a function reads
        if name not in self._symbol_names and not on_host:
            known = ", ".join(self._symbol_names) or "none"
            warnings.warn(f"{self.name} reads no symbol {name!r}; it reads {known}", stacklevel=3)
        self._symbols[name] = word

    @property
    def _axis_names(self) -> dict[Ragged | Sparse, str]:
        """Axes whose data can be replaced, and the name of a loop over each."""
        if self._project is not None:
            return {a.axis: a.name for a in self._project.emission.axes}
        return {axis: loop.var.name for axis, loop in self._expansion.axes.items()}

    @property
    def _symbol_names(self) -> tuple[str, ...]:
        if self._project is not None:
            return tuple(s.name for s in self._project.emission.symbols)
        return self._expansion.symbols

    def _loops(self) -> list[Loop]:
        return [node for node in walk(self._tree.root) if isinstance(node, Loop)]

    def _bind(self, expansion: Expansion) -> tuple[list[NDArray[Any]], Inputs, list[Place]]:
        """The arrays of this moment, the run-time inputs made of them, of sizes and of symbols, and where they lie.
        Equal places are one list."""
        arrays = [tensor.array() for tensor in expansion.tensors]
        known = self._spaces  # read once: another thread may simulate
        if len(known[0]) != len(arrays) or not all(map(Place.is_of, known[0], arrays)):
            places = [Place.of(array) for array in arrays]
            known = self._spaces = places, regions.spaces_of(places)[0].tolist()
        places, spaces = known
        sizes = {loop: self._size_of(loop) for loop in expansion.loops}
        made_of, bound = (places, sizes, dict(self._symbols)), self._bound
        if bound is None or expansion.axes or made_of != bound[0]:
            data = {axis: dict(given) for axis, given in self._axis_data.items()}
            volatile = _written_axes(expansion, arrays, data)
            bound = self._bound = made_of, expansion.inputs(places, sizes, self._symbols, data, spaces, volatile)
        return arrays, bound[1], places

    def _size_of(self, loop: Loop) -> int:
        return self._sizes.get(loop, getattr(loop.axis, "size", 0))

    def _is_steered(self, inputs: Inputs) -> bool:
        """Do the tasks depend on results of earlier ones?"""
        return bool(inputs.volatile) or self._expansion.reads_results(inputs)

    @cached_property
    def _is_repeatable(self) -> bool:
        """Do runs with the same inputs have the same tasks, at the same cycles? Slots that are loaded from tensors, and
        functions that are called on the host, may read something else."""
        return not self._expansion.loads and all(key.function is None for key in self.schedule.keys)

    @property
    def _ticks_later(self) -> bool:
        """Can the clock wait until somebody asks for stats? It finds the same tasks then, and does not fail."""
        ends = self.schedule.cannot_fail and self._expansion.pipeline is None
        return ends and self._is_repeatable and self._level < TraceLevel.SUMMARY

    def _recorded(self, inputs: Inputs) -> Log | None:
        """What the last run has read of its own results; None when tasks do not depend on results."""
        if not self._is_steered(inputs):
            return None
        if self._project is not None:
            raise UsageError(
                f"the tasks of {self.name} depend on results of earlier ones, which are not known for a project; "
                "execute and simulate a program with target='cpu_sim'"
            )
        if self._last is None or not self._last[0].same(inputs):
            missing = "there was none" if self._last is None else "sizes, symbols or arrays have changed since"
            raise UsageError(
                f"the tasks of {self.name} depend on results of earlier ones, so the clock can only play again what "
                f"the last execute() did; {missing}. Call execute() and synchronize() first"
            )
        return self._last[1]

    def _threads(self) -> int | None:
        threads = self.options.get("threads")
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise CompileError(f"threads is the number of host threads, 1 or more; got {threads!r}")
        return threads

    # ---- wall-clock trace

    def enable_tracing(self, level: TraceLevel = TraceLevel.TIMING) -> Program:
        """Record the runs to come in `program.trace`, in wall-clock time."""
        self._level = TraceLevel(level)
        self._note(TraceLevel.SUMMARY, self._compiled)
        return self

    def disable_tracing(self) -> Program:
        """Record no more."""
        self._level = TraceLevel.NONE
        return self

    def clear_trace(self) -> None:
        """Start an empty trace."""
        self.trace = ExecutionTrace()

    def _note(self, level: TraceLevel, event: TraceEvent) -> None:
        if self._level >= level and event not in self.trace.events:
            self.trace.add_event(event)

    def _few(self, run: _Run) -> int:
        """How many tasks take little time before they run?"""
        only_expanded = run.known is not None or (self._ticks_later and not self._checks)
        return _FEW if only_expanded else _FEW_LOOKED_AT

    def _seconds(self, tasks: float) -> float:
        """How long so many tasks may take, by those of the last run; math.inf where there is nothing to go by."""
        return self._executor.seconds(tasks) if isinstance(self._executor, Executor) else math.inf

    def _table_of(self, rows: float) -> TaskTable:
        """Memory for the tasks of a run, with room for so many if that can be: that of the last run, if it will do.
        The tasks that were found in it are forgotten, as it is about to be filled with others."""
        with self._lending:
            if self._foreseen is not None and self._foreseen.table is not None:
                self._foreseen = None
            if self._table is None or self._table.capacity < min(rows, MOST_ROWS):
                self._table = self._expansion.table(rows)
            return self._table

    @contextmanager
    def _lent_table(self) -> Iterator[_Foreseen | None]:
        """What the last first pass has found, and its table, for reading: a run that another thread begins meanwhile
        finds neither, and fills a table of its own."""
        with self._lending:
            table, self._table = self._table, None
            kept, self._foreseen = self._foreseen, None
        try:
            yield kept
        finally:
            with self._lending:
                if self._table is None:
                    self._table, self._foreseen = table, kept

    def register_kernel(self, name: str, impl: Any, *, pass_task: bool = False) -> None:
        """Not a way to give a kernel; write it with @kernel."""
        raise UsageError("register_kernel: a program runs the kernels it was compiled with; write them with @kernel")

    def __repr__(self) -> str:
        workers = self.schedule.workers if self._project is None else self._project.emission.orders.targets
        return f"Program({self.name}, target={self.target!r}, workers={workers})"


@dataclass(frozen=True, eq=False)
class _Foreseen:
    """What the first pass of a run has found, and what it was given."""

    inputs: Inputs
    tasks: int
    counters: _Later[Counters]
    table: TaskTable | None  # all tasks, where they fit into one chunk


class _Later(Generic[_T]):
    """Something of a run that is worked out when it is first asked for, and then kept."""

    def __init__(self, work_out: Callable[[], _T]) -> None:
        self._work_out: Callable[[], _T] | None = work_out
        self._found: _T | None = None

    def __call__(self) -> _T:
        work_out = self._work_out
        if work_out is not None:
            self._found = work_out()
            self._work_out = None  # and all that it holds
        assert self._found is not None
        return self._found


class _Run:
    """One run in a thread of its own.

    done, total   tasks that have been executed, and all of them; total is 0 until they have been counted
    """

    def __init__(
        self,
        program: Program,
        arrays: list[NDArray[Any]],
        inputs: Inputs,
        places: list[Place],
        check: Callable[[Log | None], None],
    ) -> None:
        self.program, self.inputs, self.places, self.check = program, inputs, places, check
        self.arrays = arrays  # alive until the run is over, whatever their tensors are bound to meanwhile
        known = program._foreseen  # read once: another thread may ask for stats
        self.known = known if known is not None and known.inputs.same(inputs) else None
        self.most: float = self.known.tasks if self.known else program._expansion.most_rows(inputs)  # tasks
        self.finished = _OVER  # until it begins
        self.thread = 0  # that it is in
        self.process = os.getpid()
        self.error: BaseException | None = None
        self.done = self.total = 0
        self.progress: Progress | None = None
        self._stop = np.zeros(1, np.int64)

    def start(self) -> None:
        """Run in the background; here when the system has no thread for that."""
        _RUNNING.add(self)
        job = Job(self._main)
        self.finished = job.done
        try:
            begun = job.start()
        except BaseException:  # Ctrl-C
            self._stop[0] = 1
            job.settle()
            raise
        if not begun:
            self.here(None)

    def here(self, progress: Progress | None) -> None:
        """Run in this thread."""
        _RUNNING.add(self)
        self.progress, waited_for = progress, Latch()
        try:
            self.finished = waited_for
            with progress or nullcontext():
                self._main()
        finally:
            self.finished = _OVER  # first, since Ctrl-C may end the next line, a call
            waited_for.set()

    def forked(self) -> None:
        """This is the child of a fork, and its only thread is not the one that the run is in."""
        self.error = UsageError(
            f"the run of {self.program.name} belongs to process {self.process}, which has been forked meanwhile; "
            "this process has none"
        )
        self.finished = _OVER

    def stop(self) -> None:
        """End the run soon, and wait for that: nothing touches the arrays afterwards."""
        self._stop[0] = 1
        self.finished.wait()
        self.error = None

    def _main(self) -> None:
        self.thread = threading.get_ident()
        try:
            self._work()
        except PtoError as error:
            self.error = error
        except Stopped:  # by stop(), whoever called it
            pass
        except KeyboardInterrupt:  # only where the run has the user's thread
            raise
        except BaseException as error:
            self.error = ExecutionError(f"the run failed: {type(error).__name__}: {error}")
            self.error.__cause__ = error
        finally:
            self.arrays.clear()

    def _work(self) -> None:
        program, begin = self.program, time.perf_counter_ns()
        middle = begin
        if program._is_steered(self.inputs):
            counters = _Later(self._unfold)
            counters()
        else:
            first = self._foresee()
            self.total, counters, middle = first.tasks, first.counters, time.perf_counter_ns()
            if first.table is not None:
                self._execute(first.table)
            elif first.tasks:
                self._expand(program._table_of(self.most), self._execute)
        end = time.perf_counter_ns()
        if program._level >= TraceLevel.SUMMARY:
            program._note(TraceLevel.SUMMARY, TraceEvent(f"simulate {program.name}", "simulate", begin, middle))
            program._note(TraceLevel.SUMMARY, TraceEvent(f"execute {program.name}", "execute", middle, end))
        compiled, spent = program._compiled.duration_ms, (end - begin) / 1e6
        program._stats = _Later(lambda: ProgramStats.of(counters(), compiled, spent))

    def _foresee(self) -> _Foreseen:
        """The first pass, or what it has found in the last run; nothing is written when it fails."""
        program = self.program
        if self.known is not None:
            return self.known
        self.check(None)
        table, chunks, cycles = program._table_of(self.most), 0, 0
        engine = None if program._ticks_later else self._engine()

        def look(table: TaskTable) -> None:
            nonlocal chunks, cycles
            chunks += 1
            if engine is None:
                cycles += work_of(table.kernel[: table.count], table.cycles[: table.count])
            else:
                play(engine, table)

        tasks = self._expand(table, look, clock=None if engine is None else clock_of(engine))
        counters = _Later(self._tick if engine is None else lambda: _counters(engine))
        if engine is not None or cycles + tasks * program.schedule.cycles_between >= _SURELY_COUNTED:
            counters()
        found = _Foreseen(self.inputs, tasks, counters, table if chunks == 1 else None)
        if program._is_repeatable:
            program._foreseen = found
        return found

    def _tick(self) -> Counters:
        """What the clock finds. Tasks are expanded once more for it, where their table has been filled with others."""
        engine, expansion = self._engine(), self.program._expansion

        def tick(table: TaskTable) -> None:
            play(engine, table)

        with self.program._lent_table() as kept:
            if kept is not None and kept.inputs is self.inputs and kept.table is not None:
                tick(kept.table)
            else:
                expansion.run(self.inputs, expansion.table(self.most), tick)
        return _counters(engine)

    def _engine(self) -> Engine:
        program, known = self.program, self.program._uses  # read once: another thread may ask for stats
        if known is None or known[0] is not self.places:
            known = program._uses = self.places, tile_uses(program.schedule, program._expansion, self.places)
        return engine_of(program.schedule, program._expansion, known[1], self.inputs)

    def _expand(
        self,
        table: TaskTable,
        consume: Callable[[TaskTable], None],
        host: Host | None = None,
        clock: Clock | None = None,
    ) -> int:
        return self.program._expansion.run(self.inputs, table, consume, self._stop, host, clock)

    def _unfold(self) -> Counters:
        """One pass: the tasks run while the next ones are made."""
        executor, table, engine = self.program._executor, self.program._table_of(self.most), self._engine()
        native = isinstance(executor, Executor) and self.program._level < TraceLevel.TIMING
        natively = np.zeros(1, np.int64)  # tasks that native code has run while it made others

        def tick(table: TaskTable) -> None:
            play(engine, table)

        def machine() -> tuple[int, int, int, int]:
            self._count(int(natively[0]))
            natively[0] = 0
            return executor.machine(natively, self._stop) if native else (0, 0, 0, 0)  # type: ignore[union-attr]

        recording = Recording(self._execute, machine)
        try:
            self.total = self._expand(table, tick, recording, clock_of(engine))
        except Stopped:
            if isinstance(executor, Executor):
                executor.raise_failure(table)  # a kernel stopped the run
            raise
        self.program._last = self.inputs, recording.log
        self.check(recording.log)
        return engine.counters()

    def _execute(self, table: TaskTable) -> None:
        run, rows = self.program._executor.run, np.zeros(0, np.int64)
        if self.program._level >= TraceLevel.TIMING:
            rows = np.flatnonzero(table.kernel[: table.count] >= 0)
        else:
            run(table, self._stop, self._count)
        for row in rows.tolist():
            one, begin = table.row(row), time.perf_counter_ns()
            run(one, self._stop, self._count)
            self._trace(one, begin, time.perf_counter_ns())
        if self._stop[0]:
            raise Stopped

    def _count(self, tasks: int) -> None:
        self.done += tasks
        if self.progress is not None:
            self.progress.show(self.done, self.total)

    def _trace(self, task: TaskTable, begin: int, end: int) -> None:
        """Note one task, which ran alone."""
        program = self.program
        call = program._expansion.calls[task.leaf[0]]
        more: dict[str, Any] = {}
        if program._level >= TraceLevel.FULL:
            more = {"axes": task.axes[0, : len(call.task.axes)].tolist(), "cycles": int(task.cycles[0])}
        event = TraceEvent(call.name, "kernel", begin, end, task.first_task, threading.get_ident(), more)
        program.trace.add_event(event)


_RUNNING: weakref.WeakSet[_Run] = weakref.WeakSet()
_OVER = Latch()
_OVER.set()


@atexit.register
def _stop_all() -> None:
    """Python is about to exit: nothing may write to arrays that it is about to free."""
    for run in list(_RUNNING):
        if not run.finished.is_set():
            warnings.warn(f"{run.program.name} was still running at exit and has been stopped", stacklevel=1)
            run.stop()


def _after_fork() -> None:
    for run in list(_RUNNING):
        if not run.finished.is_set() and run.thread != threading.get_ident():
            run.forked()
    _RUNNING.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# ---- the pieces of a run


def _nothing(log: Log | None) -> None:
    pass


def _counters(engine: Engine) -> Counters:
    """Of a clock that has seen all tasks."""
    if isinstance(engine, DataflowEngine):
        engine.finish()
    return engine.counters()


def _written_axes(
    expansion: Expansion, arrays: list[NDArray[Any]], data: Mapping[Ragged | Sparse, Mapping[str, Any]]
) -> set[Ragged | Sparse]:
    """Axes whose data shares memory with an array that tasks write to."""
    written = [arrays[k] for k in sorted(expansion.written)] if data else []
    buffers = {
        axis: [b.array() if isinstance(b, Tensor) else b for b in given.values() if isinstance(b, (np.ndarray, Tensor))]
        for axis, given in data.items()
    }
    return {axis for axis, given in buffers.items() if any(np.may_share_memory(a, b) for a in written for b in given)}


def _check_workload(workload: Any) -> None:
    if not isinstance(workload, Workload):
        hint = "; call the @workload function first: f().compile()" if callable(workload) else ""
        raise UsageError(f"a program is made from a workload; got {workload!r}{hint}")


def _names(axis: Any, loop: Loop) -> bool:
    """Does `axis`, a loop name or an axis object, mean this loop?"""
    return axis == loop.var.name if isinstance(axis, str) else axis is loop.axis


def _trip_count(loop: Loop, size: Any) -> int:
    try:
        count = operator.index(size)
    except TypeError:
        raise UsageError(f"the size of loop {loop.var.name} is a whole number; got {size!r}") from None
    if count < 0:
        raise UsageError(f"the size of loop {loop.var.name} is 0 or more; got {count}")
    return count


def _executor(target: str, expansion: Expansion, threads: int | None) -> Executor | Interpreter:
    return Interpreter(expansion) if target == "numpy" else Executor(expansion, threads)


# ---- errors


class RefusedScheduleError(CompileError, ScheduleError):
    """A schedule that the target cannot run."""


@contextmanager
def _compile_errors(name: str, target: str) -> Iterator[None]:
    """What goes wrong while a program is built is a CompileError that names the workload and the target."""
    try:
        with show_user_frames():  # of the cause, too
            yield
    except Exception as error:
        raise _as_compile_error(error, name, target) from error


def _as_compile_error(error: Exception, name: str, target: str) -> CompileError:
    text = error.message if isinstance(error, PtoError) else str(error) or type(error).__name__
    message = f"Codegen compilation failed: {text}"
    if isinstance(error, CompileError):
        wrapped = copy.copy(error)
        wrapped.args = (message,)
    elif isinstance(error, ScheduleError):
        wrapped = RefusedScheduleError(message)
        wrapped.primitive = error.primitive
    else:
        wrapped = CompileError(message)
    if isinstance(error, PtoError):
        wrapped.at(error.line, error.doing)
    wrapped.workload_name, wrapped.target = name, target
    return wrapped
