"""The loops that run tasks, in LLVM text: no Python per task, no lock.

    run_rows     tasks in program order, one thread
    find_edges   which task has to wait for which, from the order in which they touch the same memory
    work         what every thread does with a graph of tasks: take one whose predecessors are done, run it, release
                 its successors and go on with the first of them, whose data is still in this core's cache
"""

from __future__ import annotations

import ctypes
import platform
import threading
from functools import cache
from typing import Any

from pto_wsp.lower import jit

__all__ = ["address_of_run_rows", "find_edges", "run_rows", "work"]

_Word, _Pointer = ctypes.c_int64, ctypes.c_void_p

ON_A_PAGE = """
  %mark = alloca i64
  %mark.at = ptrtoint ptr %mark to i64
  %above = and i64 %mark.at, 4080
  %left.out = alloca i8, i64 %above, align 16
  store volatile i8 0, ptr %left.out
"""
"""At the beginning of a function that calls kernels: their stack ends where a page does, see image.py."""

_RUN_ROWS = """
define i64 @run_rows(ptr %functions, ptr %kernel, ptr %tail, ptr %args, i64 %width, i64 %begin, i64 %end,
                     ptr %scratch, ptr %stop, ptr %progress) {
entry:ON_A_PAGE
  %finished = load i64, ptr %progress
  %mode = call i32 @enter()
  br label %check
check:
  %row = phi i64 [%begin, %entry], [%next, %step]
  %count = phi i64 [%finished, %entry], [%counted, %step]
  %more = icmp slt i64 %row, %end
  br i1 %more, label %look, label %done
look:
  %stopped = load atomic i64, ptr %stop monotonic, align 8
  %go = icmp eq i64 %stopped, 0
  br i1 %go, label %kind, label %done
kind:
  %kernel.at = getelementptr i32, ptr %kernel, i64 %row
  %which = load i32, ptr %kernel.at
  %task = icmp sge i32 %which, 0
  br i1 %task, label %call, label %step
call:
  %tail.at = getelementptr i8, ptr %tail, i64 %row
  %partial = load i8, ptr %tail.at
  %double = shl i32 %which, 1
  %variant = zext i8 %partial to i32
  %index = or i32 %double, %variant
  %function.at = getelementptr ptr, ptr %functions, i32 %index
  %function = load ptr, ptr %function.at
  %compiled = icmp ne ptr %function, null
  br i1 %compiled, label %run, label %done
run:
  %offset = mul i64 %row, %width
  %args.at = getelementptr i64, ptr %args, i64 %offset
  call void %function(ptr %args.at, ptr %scratch)
  %one.more = add i64 %count, 1
  store atomic i64 %one.more, ptr %progress monotonic, align 8
  br label %step
step:
  %counted = phi i64 [%count, %kind], [%one.more, %run]
  %next = add i64 %row, 1
  br label %check
done:
  call void @leave(i32 %mode)
  ret i64 %row
}
"""

_FIND_EDGES = """
; Accesses are in program order; cell is the piece of memory, task the one that touches it.
; writer[cell]: last task that wrote it; reader[cell]: its last read since then, older ones through before[access].
; Returns the number of edges; longest[task] becomes the cycles of the longest path that ends with it.
define i64 @find_edges(i64 %accesses, ptr %task, ptr %cell, ptr %writes, ptr %writer, ptr %reader, ptr %before,
                       ptr %source, ptr %target, ptr %cycles, ptr %longest) {
entry:
  br label %check
check:
  %a = phi i64 [0, %entry], [%a.next, %step]
  %edges = phi i64 [0, %entry], [%edges.next, %step]
  %more = icmp slt i64 %a, %accesses
  br i1 %more, label %look, label %done
look:
  %task.at = getelementptr i32, ptr %task, i64 %a
  %t = load i32, ptr %task.at
  %cell.at = getelementptr i32, ptr %cell, i64 %a
  %c = load i32, ptr %cell.at
  %writes.at = getelementptr i8, ptr %writes, i64 %a
  %w = load i8, ptr %writes.at
  %writer.at = getelementptr i32, ptr %writer, i32 %c
  %last = load i32, ptr %writer.at
  %reader.at = getelementptr i32, ptr %reader, i32 %c
  %newest = load i32, ptr %reader.at
  %is.write = icmp ne i8 %w, 0
  br i1 %is.write, label %write, label %read
read:
  %before.at = getelementptr i32, ptr %before, i64 %a
  store i32 %newest, ptr %before.at
  %a.short = trunc i64 %a to i32
  store i32 %a.short, ptr %reader.at
  br label %after.writer
write:
  store i32 %t, ptr %writer.at
  store i32 -1, ptr %reader.at
  %unread = icmp slt i32 %newest, 0
  br i1 %unread, label %after.writer, label %reads
after.writer:
  %written = icmp sge i32 %last, 0
  %other = icmp ne i32 %last, %t
  %depends = and i1 %written, %other
  br i1 %depends, label %edge, label %step
edge:
  %edges.1 = call i64 @edge(i64 %edges, i32 %last, i32 %t, ptr %source, ptr %target, ptr %cycles, ptr %longest)
  br label %step
reads:
  %r = phi i32 [%newest, %write], [%older, %reads.next]
  %edges.r = phi i64 [%edges, %write], [%edges.s, %reads.next]
  %rtask.at = getelementptr i32, ptr %task, i32 %r
  %rt = load i32, ptr %rtask.at
  %itself = icmp eq i32 %rt, %t
  br i1 %itself, label %reads.next, label %reads.edge
reads.edge:
  %edges.2 = call i64 @edge(i64 %edges.r, i32 %rt, i32 %t, ptr %source, ptr %target, ptr %cycles, ptr %longest)
  br label %reads.next
reads.next:
  %edges.s = phi i64 [%edges.r, %reads], [%edges.2, %reads.edge]
  %older.at = getelementptr i32, ptr %before, i32 %r
  %older = load i32, ptr %older.at
  %end = icmp slt i32 %older, 0
  br i1 %end, label %step, label %reads
step:
  %edges.next = phi i64 [%edges, %after.writer], [%edges.1, %edge], [%edges.s, %reads.next]
  %a.next = add i64 %a, 1
  br label %check
done:
  ret i64 %edges
}

define private i64 @edge(i64 %edges, i32 %from, i32 %to, ptr %source, ptr %target, ptr %cycles,
                         ptr %longest) alwaysinline {
  %source.at = getelementptr i32, ptr %source, i64 %edges
  store i32 %from, ptr %source.at
  %target.at = getelementptr i32, ptr %target, i64 %edges
  store i32 %to, ptr %target.at
  %from.at = getelementptr i64, ptr %longest, i32 %from
  %ends = load i64, ptr %from.at
  %own.at = getelementptr i64, ptr %cycles, i32 %to
  %own = load i64, ptr %own.at
  %through = add i64 %ends, %own
  %to.at = getelementptr i64, ptr %longest, i32 %to
  %found = load i64, ptr %to.at
  %most = call i64 @llvm.smax.i64(i64 %found, i64 %through)
  store i64 %most, ptr %to.at
  %count = add i64 %edges, 1
  ret i64 %count
}
declare i64 @llvm.smax.i64(i64, i64)
"""

_WORK = """
; state: [next ticket, next free place of the queue, finished tasks], each on its own cache line.
; queue[place] is a ready task + 1, or 0 while there is none; every task that is queued is queued once.
; Ticket t stands for the places from batch[t] to batch[t + 1], and behind the last batch for one place.
; progress belongs to this thread.
define void @work(ptr %functions, ptr %kernel, ptr %tail, ptr %args, i64 %width, ptr %rows, i64 %tasks,
                  ptr %first, ptr %next, ptr %batch, i64 %batches, ptr %waits, ptr %queue, ptr %state, ptr %scratch,
                  ptr %stop, ptr %progress, ptr %pause) {
entry:ON_A_PAGE
  %tickets = getelementptr i64, ptr %state, i64 0
  %places = getelementptr i64, ptr %state, i64 8
  %finished = getelementptr i64, ptr %state, i64 16
  %ran = alloca i64
  store i64 0, ptr %ran
  %end.of.batches = getelementptr i32, ptr %batch, i64 %batches
  %batched = load i32, ptr %end.of.batches
  %mode = call i32 @enter()
  br label %draw
draw:
  %count = load i64, ptr %ran
  call void @settle()
  %counted = atomicrmw add ptr %finished, i64 %count acq_rel
  store i64 0, ptr %ran
  %ticket = atomicrmw add ptr %tickets, i64 1 monotonic
  %in.batch = icmp slt i64 %ticket, %batches
  br i1 %in.batch, label %several, label %single
several:
  %batch.at = getelementptr i32, ptr %batch, i64 %ticket
  %batch.begin = load i32, ptr %batch.at
  %batch.next = getelementptr i32, ptr %batch.at, i64 1
  %batch.end = load i32, ptr %batch.next
  br label %places.drawn
single:
  %behind = sub i64 %ticket, %batches
  %behind.short = trunc i64 %behind to i32
  %single.begin = add i32 %batched, %behind.short
  %single.end = add i32 %single.begin, 1
  br label %places.drawn
places.drawn:
  %begin.short = phi i32 [%batch.begin, %several], [%single.begin, %single]
  %end.short = phi i32 [%batch.end, %several], [%single.end, %single]
  %begin = zext i32 %begin.short to i64
  %end = zext i32 %end.short to i64
  br label %turn
turn:
  %at = phi i64 [%begin, %places.drawn], [%at.next, %over.next]
  %exists = icmp slt i64 %at, %tasks
  br i1 %exists, label %wait, label %gather
over.next:
  %at.next = add i64 %at, 1
  %another = icmp slt i64 %at.next, %end
  br i1 %another, label %turn, label %draw
wait:
  %spins = phi i64 [0, %turn], [%spins.next, %rest]
  %queue.at = getelementptr i32, ptr %queue, i64 %at
  %found = load atomic i32, ptr %queue.at acquire, align 4
  %ready = icmp ne i32 %found, 0
  br i1 %ready, label %got, label %idle
idle:
  %over = load atomic i64, ptr %finished acquire, align 8
  %all = icmp sge i64 %over, %tasks
  %stopped.1 = load atomic i64, ptr %stop monotonic, align 8
  %told = icmp ne i64 %stopped.1, 0
  %quit = or i1 %all, %told
  br i1 %quit, label %done, label %patience
patience:
  %spins.next = add i64 %spins, 1
  %impatient = icmp ult i64 %spins.next, 256
  br i1 %impatient, label %rest, label %sleep
sleep:
  call i32 %pause(i32 20)
  br label %rest
rest:
  call void @relax()
  br label %wait
got:
  %initial = sub i32 %found, 1
  br label %run
run:
  %t = phi i32 [%initial, %got], [%mine, %finish]
  %row.at = getelementptr i32, ptr %rows, i32 %t
  %row = load i32, ptr %row.at
  %kernel.at = getelementptr i32, ptr %kernel, i32 %row
  %which = load i32, ptr %kernel.at
  %tail.at = getelementptr i8, ptr %tail, i32 %row
  %partial = load i8, ptr %tail.at
  %double = shl i32 %which, 1
  %variant = zext i8 %partial to i32
  %index = or i32 %double, %variant
  %function.at = getelementptr ptr, ptr %functions, i32 %index
  %function = load ptr, ptr %function.at
  %wide = zext i32 %row to i64
  %offset = mul i64 %wide, %width
  %args.at = getelementptr i64, ptr %args, i64 %offset
  call void %function(ptr %args.at, ptr %scratch)
  %before = load i64, ptr %progress
  %after = add i64 %before, 1
  store atomic i64 %after, ptr %progress monotonic, align 8
  %ran.before = load i64, ptr %ran
  %ran.after = add i64 %ran.before, 1
  store i64 %ran.after, ptr %ran
  %first.at = getelementptr i32, ptr %first, i32 %t
  %from = load i32, ptr %first.at
  %last.at = getelementptr i32, ptr %first.at, i32 1
  %to = load i32, ptr %last.at
  br label %release
release:
  %e = phi i32 [%from, %run], [%e.next, %released]
  %mine = phi i32 [-1, %run], [%mine.next, %released]
  %more = icmp slt i32 %e, %to
  br i1 %more, label %one, label %finish
one:
  %next.at = getelementptr i32, ptr %next, i32 %e
  %s = load i32, ptr %next.at
  %waits.at = getelementptr i32, ptr %waits, i32 %s
  %left = atomicrmw sub ptr %waits.at, i32 1 acq_rel
  %free = icmp eq i32 %left, 1
  br i1 %free, label %freed, label %released
freed:
  %none = icmp slt i32 %mine, 0
  br i1 %none, label %released, label %push
push:
  %place = atomicrmw add ptr %places, i64 1 monotonic
  %place.at = getelementptr i32, ptr %queue, i64 %place
  %filled = add i32 %s, 1
  store atomic i32 %filled, ptr %place.at release, align 4
  br label %released
released:
  %mine.next = phi i32 [%mine, %one], [%s, %freed], [%mine, %push]
  %e.next = add i32 %e, 1
  br label %release
finish:
  %stopped.2 = load atomic i64, ptr %stop monotonic, align 8
  %go = icmp eq i64 %stopped.2, 0
  %has = icmp sge i32 %mine, 0
  br i1 %go, label %onward, label %done
onward:
  br i1 %has, label %again, label %over.next
again:
  br label %run
gather:
  %waited = phi i64 [0, %turn], [%waited.next, %gather.rest]
  %together = load atomic i64, ptr %finished acquire, align 8
  %complete = icmp sge i64 %together, %tasks
  %stopped.3 = load atomic i64, ptr %stop monotonic, align 8
  %told.3 = icmp ne i64 %stopped.3, 0
  %leave = or i1 %complete, %told.3
  br i1 %leave, label %done, label %gather.patience
gather.patience:
  %waited.next = add i64 %waited, 1
  %gather.impatient = icmp ult i64 %waited.next, 4096
  br i1 %gather.impatient, label %gather.rest, label %gather.sleep
gather.sleep:
  call i32 %pause(i32 20)
  br label %gather.rest
gather.rest:
  call void @relax()
  br label %gather
done:
  call void @leave(i32 %mode)
  ret void
}
""".replace("[%mine, %finish]", "[%mine, %again]")

# Results that went around the cache are seen by other cores once they are settled, which is before a batch is said to
# be done. Another library may have switched denormals off in this thread: kernels run with IEEE's defaults, on x86 too.
_X86_MODE = """
declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.sfence()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define private i32 @enter() {
  %old = alloca i32
  %new = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %old)
  store i32 8064, ptr %new
  call void @llvm.x86.sse.ldmxcsr(ptr %new)
  %mode = load i32, ptr %old
  ret i32 %mode
}
define private void @relax() {
  call void @llvm.x86.sse2.pause()
  ret void
}
define private void @settle() {
  call void @llvm.x86.sse.sfence()
  ret void
}
define private void @leave(i32 %mode) {
  call void @settle()
  %old = alloca i32
  store i32 %mode, ptr %old
  call void @llvm.x86.sse.ldmxcsr(ptr %old)
  ret void
}
"""
_OTHER_MODE = """
define private i32 @enter() alwaysinline {
  ret i32 0
}
define private void @relax() alwaysinline {
  ret void
}
define private void @settle() alwaysinline {
  ret void
}
define private void @leave(i32 %mode) alwaysinline {
  ret void
}
"""


def _text(*parts: str) -> str:
    mode = _X86_MODE if platform.machine().lower() in ("x86_64", "amd64") else _OTHER_MODE
    return ("".join(parts) + mode).replace("ON_A_PAGE", ON_A_PAGE)


_LOADED: dict[str, tuple[Any, jit.Code]] = {}  # function, and the code that has to stay while the function is used
_LOADING = threading.Lock()


def _function(name: str, parts: tuple[str, ...], result: Any, *arguments: Any) -> Any:
    known = _LOADED.get(name)  # most often, and without the lock: a fork would keep it
    if known is not None:
        return known[0]
    with _LOADING:
        if name not in _LOADED:
            code = jit.load(_text(*parts), kind="expander")
            _LOADED[name] = ctypes.CFUNCTYPE(result, *arguments)(code.address(name)), code
        return _LOADED[name][0]


def run_rows() -> Any:
    """(functions, kernel, tail, args, width, begin, end, scratch, stop, progress) -> the row after the last one run.

    It ends early when it is told to stop, and before a task whose kernel is not compiled yet.
    """
    words, pointers = (_Word,) * 3, (_Pointer,) * 3
    return _function("run_rows", (_RUN_ROWS,), _Word, *[_Pointer] * 4, *words, *pointers)


def prepare() -> dict[str, float]:
    """Load run_rows(); the milliseconds that each step took, none if it was there."""
    there = "run_rows" in _LOADED
    run_rows()
    return {} if there else dict(_LOADED["run_rows"][1].phases)


def address_of_run_rows() -> int:
    """For native code that calls it."""
    return ctypes.cast(run_rows(), _Pointer).value or 0


def find_edges() -> Any:
    """(accesses, task, cell, writes, writer, reader, before, source, target, cycles, longest) -> number of edges."""
    return _function("find_edges", (_FIND_EDGES, _WORK), _Word, _Word, *[_Pointer] * 10)


def work() -> Any:
    """(functions, kernel, tail, args, width, rows, tasks, first, next, batch, batches, waits, queue, state, scratch,
    stop, progress, pause); nothing comes back. When it returns, all tasks are done, or it was told to stop."""
    kinds = *[_Pointer] * 4, _Word, _Pointer, _Word, *[_Pointer] * 3, _Word, *[_Pointer] * 7
    return _function("work", (_FIND_EDGES, _WORK), None, *kinds)


@cache
def pause() -> int:
    """Address of usleep(microseconds)."""
    return ctypes.cast(ctypes.CDLL(None).usleep, _Pointer).value or 0
