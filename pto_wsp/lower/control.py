"""What the native expander and its caller tell each other while a run goes on, and the native functions for it.

Control words, 64 bits each:

    0 .. 255   the slots
    EXECUTED   rows of the table whose tasks have been run already; the caller sets it back when it has taken a table
    MODE       what becomes of values that are loaded into slots: KEEP_NOTHING, RECORD them, or REPLAY recorded ones
    LOG        address of a page of such values;  CURSOR  the next one;  ROOM  how many the page holds
    RUN        address of native.run_rows, or 0: tasks are run by the caller only;  FUNCTIONS, SCRATCH, PROGRESS  for it
    PIPELINE   address of what processes and the clock share, see processes.py; 0 for a workload without processes
    SLOT_EDGES whether SLOT rows are wanted: some slot is loaded from memory that tasks write
    HEARD      the caller has done what it was told of last
    WRITTEN    and following, one per space of memory: the row after the last one that writes to it

The caller is told what has happened by `tell(what, rows)`, which returns 0 to go on: FLUSH, the table is full;
CATCH_UP, its tasks so far have to be run; TURN, the page of values is full, or read to its end; ATTEND, the clock of a
pipeline needs its caller (`rows` says what for); REFRESH + k, the same as CATCH_UP, and axis k has to be read again.
Ctrl-C may end a callback before its first line: ctypes prints the KeyboardInterrupt and returns what happens to lie on
the stack. So an answer counts only when the caller has set HEARD.
"""

from __future__ import annotations

from pto_wsp.scalar_expr import SLOTS

__all__ = [
    "ATTEND", "CATCH_UP", "CURSOR", "EXECUTED", "FLUSH", "FUNCTIONS", "HEARD", "KEEP_NOTHING", "LOG", "MODE",
    "PIPELINE", "PROGRESS", "RECORD", "REFRESH", "REPLAY", "ROOM", "RUN", "SCRATCH", "SLOTS", "SLOT_EDGES", "TELL",
    "TEXT", "TURN", "WRITTEN",
]  # fmt: skip

(EXECUTED, MODE, LOG, CURSOR, ROOM, RUN, FUNCTIONS, SCRATCH, PROGRESS, PIPELINE, SLOT_EDGES,
 HEARD, WRITTEN) = range(SLOTS, SLOTS + 13)  # fmt: skip
KEEP_NOTHING, RECORD, REPLAY = range(3)
FLUSH, CATCH_UP, TURN, ATTEND, REFRESH = range(5)

_FEW, _SHORT = 64, 1_000_000
"""Tasks, and cycles of theirs, that are run here one after the other; more of them may be worth several threads."""

TELL = f"""
; Tell the caller what has happened. 0 to go on.
define private i64 @tell(ptr %control, ptr %tell, i64 %what, i64 %rows) {{
  %heard.at = getelementptr i64, ptr %control, i64 {HEARD}
  store i64 0, ptr %heard.at
  %answer = call i64 %tell(i64 %what, i64 %rows)
  %heard = load i64, ptr %heard.at
  %lost = icmp eq i64 %heard, 0
  %refused = select i1 %lost, i64 1, i64 %answer
  ret i64 %refused
}}
"""

TEXT = f"""
; Run the tasks of all rows so far. 0, or what the caller has returned.
define private i64 @catch_up(ptr %control, ptr %tell, ptr %kernel, ptr %tail, ptr %args, i64 %width, ptr %stop,
                             ptr %cycles, i64 %rows) {{
entry:
  %executed.at = getelementptr i64, ptr %control, i64 {EXECUTED}
  %executed = load i64, ptr %executed.at
  %waiting = sub i64 %rows, %executed
  %few = icmp ult i64 %waiting, {_FEW}
  %run.at = getelementptr i64, ptr %control, i64 {RUN}
  %run = load ptr, ptr %run.at
  %can = icmp ne ptr %run, null
  %here = and i1 %few, %can
  br i1 %here, label %add, label %ask
add:
  %row = phi i64 [%executed, %entry], [%next, %one]
  %sum = phi i64 [0, %entry], [%more, %one]
  %left = icmp ult i64 %row, %rows
  br i1 %left, label %one, label %added
one:
  %cycles.at = getelementptr i64, ptr %cycles, i64 %row
  %its = load i64, ptr %cycles.at
  %more = add i64 %sum, %its
  %next = add i64 %row, 1
  br label %add
added:
  %short = icmp ult i64 %sum, {_SHORT}
  br i1 %short, label %fast, label %ask
fast:
  %functions.at = getelementptr i64, ptr %control, i64 {FUNCTIONS}
  %functions = load ptr, ptr %functions.at
  %scratch.at = getelementptr i64, ptr %control, i64 {SCRATCH}
  %scratch = load ptr, ptr %scratch.at
  %progress.at = getelementptr i64, ptr %control, i64 {PROGRESS}
  %progress = load ptr, ptr %progress.at
  %after = call i64 %run(ptr %functions, ptr %kernel, ptr %tail, ptr %args, i64 %width, i64 %executed, i64 %rows,
                         ptr %scratch, ptr %stop, ptr %progress)
  store i64 %after, ptr %executed.at
  %all = icmp eq i64 %after, %rows
  br i1 %all, label %done, label %ask
ask:
  %refused = call i64 @tell(ptr %control, ptr %tell, i64 {CATCH_UP}, i64 %rows)
  ret i64 %refused
done:
  ret i64 0
}}

; The place of the next value in the log; null when the caller has refused to turn the page.
define private ptr @place(ptr %control, ptr %tell, i64 %rows) {{
entry:
  %cursor.at = getelementptr i64, ptr %control, i64 {CURSOR}
  %room.at = getelementptr i64, ptr %control, i64 {ROOM}
  %cursor = load i64, ptr %cursor.at
  %room = load i64, ptr %room.at
  %full = icmp sge i64 %cursor, %room
  br i1 %full, label %turn, label %found
turn:
  %refused = call i64 @tell(ptr %control, ptr %tell, i64 {TURN}, i64 %rows)
  %turned = load i64, ptr %cursor.at
  %good = icmp eq i64 %refused, 0
  br i1 %good, label %found, label %none
found:
  %at = phi i64 [%cursor, %entry], [%turned, %turn]
  %following = add i64 %at, 1
  store i64 %following, ptr %cursor.at
  %log.at = getelementptr i64, ptr %control, i64 {LOG}
  %log = load ptr, ptr %log.at
  %place = getelementptr i64, ptr %log, i64 %at
  ret ptr %place
none:
  ret ptr null
}}
"""
