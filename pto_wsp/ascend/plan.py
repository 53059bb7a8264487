"""include/plan.h: what the host, the task generator and the workers share, and the only file that all three include.

Constants and array lengths are those of one program. Start reading at `plan_h`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pto_wsp.ascend.emission import Emission
from pto_wsp.ascend.names import comment, place_of
from pto_wsp.schedule import WindowMode
from pto_wsp.types import DType

__all__ = ["ERRORS", "VERSION", "constant_array", "plan_h"]

VERSION = 1
ERRORS = (
    ("kOk", ""),
    ("kBadHeader", "the plan is not one of this program's"),
    ("kTooManyTasks", "the table has room for no task"),
    ("kOutOfTensor", "position errorFound; the end is errorBound"),
    ("kBadStride", "a tile's elements lie errorFound apart, not 1"),
    ("kOverflow", "an index has left the 64 bits"),
    ("kDisagree", "partial tiles of errorFound and errorBound"),
    ("kEmptyTile", "a tile without elements beside others"),
    ("kOverlap", "tiles errorOperand, errorFound of a task"),
    ("kNoRow", "row errorFound of an axis of errorBound rows"),
    ("kTooManyLoads", "the log of loaded slots is full"),
    ("kWindowTooSmall", "a task needs errorFound of errorBound"),
    ("kWindowFull", "and the schedule says WindowMode.ABORT"),
    ("kNoAnswer", "a worker does not answer"),
    ("kTooFarApart", "a tile's elements lie errorFound bytes apart"),
)
"""What the task generator reports in Plan.error, by number."""

_POLICIES = {"one worker": 0, "round_robin": 0, "affinity": 1, "hash": 2, "work_steal": 3, "dispatch_by": 4}


def plan_h(e: Emission) -> str:
    """The text of include/plan.h."""
    guard = "PTO_WSP_PLAN_H_"
    parts = [
        _head(e, guard),
        _sizes(e),
        _names(e),
        _tables(e),
        _errors(),
        _STRUCTS,
        _PLAN,
        f"}}  // namespace plan\n\n#endif  // {guard}\n",
    ]
    return "\n".join(part for part in parts if part)


def _head(e: Emission, guard: str) -> str:
    return f"""\
// What the host, the task generator and the workers of {comment(e.title, 40)} share.
// Written by pto_wsp.
#ifndef {guard}
#define {guard}

#include <cstdint>

namespace plan {{
"""


def _sizes(e: Emission) -> str:
    o, window = e.orders, e.orders.window
    unit = {"tasks": "kTasks", "bytes": "kBytes", "entries": "kEntries"}[window.unit if window else "tasks"]
    aborts = window is not None and window.mode is WindowMode.ABORT
    lines = [
        "constexpr uint32_t kMagic = 0x4E414C50;  // \"PLAN\"",
        f"constexpr uint32_t kVersion = {VERSION};",
        "constexpr uint32_t kLine = 64;  // bytes of a data cache line of the AI Core",
        "",
        "// Numbers of this program; at least 1, since they are lengths of arrays.",
        *(
            f"constexpr uint32_t {name} = {max(1, n)};"
            for name, n in (
                ("kMaxRank", e.rank), ("kTensors", len(e.tensors)), ("kOperands", e.operands), ("kArgs", e.args),
                ("kSymbols", len(e.symbols)), ("kSizes", len(e.sizes)), ("kAxes", len(e.axes)),
                ("kSlots", len(e.slots)),
            )
        ),
        f"constexpr uint32_t kCores = {3 if e.has_cube else 1};  // of a worker",
        f"constexpr uint64_t kWorkspaceBytes = {e.workspace_bytes};  // GM scratch of a worker",
        "",
        "// The schedule.",
        "enum Policy : uint32_t {",
        "  kRoundRobin = 0,",
        "  kAffinity = 1,",
        "  kHash = 2,",
        "  kWorkSteal = 3,",
        "  kDispatchBy = 4,",
        "};",
        "enum Unit : uint32_t { kTasks, kBytes, kEntries };",
        f"constexpr Policy kPolicy = {_policy(e)};",
        f"constexpr uint32_t kTargets = {o.targets};  // workers that tasks are dispatched to",
        f"constexpr uint64_t kWindow = {window.size if window else 0};  // 0: as long as the table",
        f"constexpr Unit kWindowUnit = {unit};",
        f"constexpr bool kWindowAborts = {str(aborts).lower()};",
        "// Tasks are run while others are made, each handed to a worker through its",
        "// mailbox; else the table is filled first.",
        f"constexpr bool kMailboxes = {str(o.mailboxes).lower()};",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _policy(e: Emission) -> str:
    return ("kRoundRobin", "kAffinity", "kHash", "kWorkSteal", "kDispatchBy")[_POLICIES[e.orders.dispatch]]


def _names(e: Emission) -> str:
    """Enums for what has a name."""
    kernels = [f"  {k.enum} = {k.number},  // {k.core}{_place(k.line)}" for k in e.kernels]
    out = ["enum Kernel : uint32_t {", *(kernels or ["  kNoKernel = 0,"]), "};"]
    out.append("enum Core : uint32_t { kVector = 0, kCube = 1, kMix = 2, kNoCore = 3 };")
    groups = (
        ("Tensors", [(t.enum, f"{t.direction} {t.dtype} {list(t.shape)}") for t in e.tensors]),
        ("Symbols, set by the host", [(s.enum, f"{s.name!r}") for s in e.symbols]),
        ("Trip counts, set by the host", [(s.enum, f"loop {s.name}{_place(s.loop.line)}") for s in e.sizes]),
        ("Axes, whose data the host sets", [(a.enum, f"{', '.join(a.parts)}{_place(a.line)}") for a in e.axes]),
        ("Slots", [(f"kSlot{slot}", "") for slot in e.slots]),
    )
    for title, names in groups:
        if names:
            out += ["", f"// {title}."]
            out += [_constant(name, number, note) for number, (name, note) in enumerate(names)]
    return "\n".join(out) + "\n"


def _constant(name: str, number: int, note: str) -> str:
    line = f"constexpr uint32_t {name} = {number};"
    return f"{line}  // {comment(note, 76 - len(line))}" if note else line


def _place(line: object) -> str:
    place = place_of(line)  # type: ignore[arg-type]
    return f", {place}" if place else ""


def _tables(e: Emission) -> str:
    """What is known of each tensor beforehand."""
    rank = max(1, e.rank)
    types = [f"k{t.dtype.value.capitalize()}" for t in e.tensors] or ["kF32"]
    written = [str(t.direction != "in").lower() for t in e.tensors] or ["false"]
    cells = ["{" + ", ".join(map(str, cell)) + "}" for cell in cells_of(e)] or ["{" + ", ".join("1" * rank) + "}"]
    return "\n".join([
        "enum Type : uint32_t {",
        *(f"  k{d.value.capitalize()}," for d in DType),
        "};",
        "",
        "// Per tensor: its elements; whether tasks write to it; the size of its",
        "// largest tile in each dimension.",
        *constant_array("constexpr Type kType[kTensors]", types),
        *constant_array("constexpr bool kWritten[kTensors]", written),
        *constant_array("constexpr int64_t kCell[kTensors][kMaxRank]", cells),
        "",
    ])  # fmt: skip


def constant_array(start: str, values: Sequence[str]) -> Iterable[str]:
    """A constant array, on as many lines as it needs."""
    whole = f"{start} = {{{', '.join(values)}}};"
    if len(whole) <= 80:
        return [whole]
    lines, line = [f"{start} = {{"], "   "
    for value in values:
        if len(line) + len(value) + 2 > 80:
            lines.append(line)
            line = "   "
        line += f" {value},"
    return [*lines, line[:-1] + "};"]


def cells_of(e: Emission) -> list[list[int]]:
    """Per tensor and dimension the size of the largest tile, 1 for dimensions that tiles do not run along."""
    cells = [[1] * max(1, e.rank) for _ in e.tensors]
    for call in e.calls:
        for binding in call.tiles:
            tile, cell = binding.param.node.tile, cells[binding.tensor]
            for axis, dim in enumerate(binding.dims):
                size = {"rows": tile.rows, "cols": tile.cols}.get(dim.role, 1)
                cell[axis] = max(cell[axis], size)
    return cells


def _errors() -> str:
    lines = [f"  {name} = {number}," + (f"  // {text}" if text else "") for number, (name, text) in enumerate(ERRORS)]
    return "\n".join(["enum Error : uint32_t {", *lines, "};\n"])


_STRUCTS = """\
struct alignas(kLine) Tensor {  // host writes; contiguous, row by row
  uint64_t addr, bytes;
  uint32_t elemBytes, rank;
  int64_t shape[kMaxRank], stride[kMaxRank];  // stride: in elements
};
// Ragged: `entries` are the lengths of the rows, `indices` is 0. Sparse:
// `entries` are rows + 1 positions in `indices`. Both are int32_t in GM.
struct Axis {  // host writes
  uint64_t entries, indices;
  int64_t rows;
};
struct Operand {  // a tile in GM; element (r, c) is r rowStride + c colStride on
  uint64_t addr;
  int64_t rowStride, colStride;
  uint32_t rows, cols;  // that are there
};
struct alignas(kLine) Task {  // task generator writes, workers read
  uint64_t id;                // number in program order, from 0
  uint32_t row;               // place in the table
  uint32_t kernel, core;
  uint32_t call;    // which kernel call of the workload
  uint32_t target;  // chosen by the dispatch policy
  uint32_t level;   // tasks of one level may run at the same time
  uint32_t round;   // what the window holds at a time: rounds do not overlap
  Operand tile[kOperands];
  int64_t arg[kArgs];  // scalars (a float: its bits), then axis values
};
struct alignas(kLine) Record {  // a worker writes
  uint64_t begin, end;          // GetSystemCycle
  uint64_t worker, runs;        // runs: 1 when the task has run
};
struct alignas(kLine) Word {
  uint32_t word;
};
struct Mailbox {     // 0 in the beginning
  Word go;           // task generator writes: row + 1 of a task, or kStop
  Word done[kCores];  // each core of the worker: the same when it has run
};
constexpr uint32_t kStop = 0xFFFFFFFFu;
static_assert(sizeof(Tensor) % kLine == 0 && sizeof(Task) % kLine == 0 &&
                  sizeof(Record) == kLine,
              "one writer for each line");

// Flags in errorCall: the number is not that of a kernel call.
constexpr uint32_t kIsLoad = 1u << 31, kIsAxis = 1u << 30;
"""


_PLAN = """\
struct alignas(kLine) Plan {
  // The host writes; both programs on the device check the first line.
  uint32_t magic, version, planBytes, taskBytes;
  uint64_t tasks;      // Task[maxTasks]
  uint64_t records;    // Record[maxTasks]
  uint64_t queue;      // uint32_t[workers + 1 + maxTasks]: where the rows of
                       // each worker begin, and the rows
  uint64_t loads;      // uint64_t[maxLoads]: slots loaded from results
  uint64_t workspace;  // kWorkspaceBytes for each worker
  uint64_t mailboxes;  // Mailbox[workers]
  uint32_t maxTasks, maxLoads, workers;
  uint64_t symbol[kSymbols];
  int64_t size[kSizes];
  Axis axis[kAxes];
  Tensor tensor[kTensors];

  // The task generator writes; 0 in the beginning.
  alignas(kLine) uint64_t firstTask;  // tasks of earlier passes
  uint32_t firstRound;
  uint32_t numTasks, numLevels, numRounds;  // of this pass
  uint32_t more;                      // 1: another pass is needed
  uint32_t numLoads;
  uint32_t error;  // an Error; the rest says where
  uint32_t errorCall, errorOperand, errorDimension;
  uint64_t errorTask;
  int64_t errorFound, errorBound;
};
"""
