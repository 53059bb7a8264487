"""aicore/worker.asc: the program on the AI Cores, which runs the tasks that the task generator has put into the table.

A worker is one vector core, or, when some kernel uses the cube, a group of a cube core and its two vector cores. It has
a queue of rows, by level. Between levels all workers meet, so that a task finds what those before it have stored.
Start reading at `worker_asc`.
"""

from __future__ import annotations

from collections.abc import Sequence

from pto_wsp.ascend.emission import Emission, EmittedKernel
from pto_wsp.ascend.expander import broken
from pto_wsp.ascend.names import comment
from pto_wsp.ascend.source import SourceParam

__all__ = ["worker_asc"]

WIDTH = 80


def worker_asc(e: Emission) -> str:
    """The text of aicore/worker.asc."""
    return "\n".join([
        f"// The workers of {comment(e.title, 40)}: run the rows of the task table.",
        "// Written by pto_wsp.",
        '#include "kernel_operator.h"',
        "",
        '#include "include/plan.h"',
        *sorted(f'#include "{k.header}"' for k in e.kernels),
        "",
        "namespace {",
        "",
        *_helpers(e),
        *_run_task(e),
        *_REPORT,
        *(["", *_MAILBOX] if e.orders.mailboxes else []),
        "}  // namespace",
        "",
        *_entry(e),
        "",
    ])  # fmt: skip


def _helpers(e: Emission) -> list[str]:
    lines = list(_TILE) if any(k.graph.tile_params for k in e.kernels) else []
    if any(p.c_type == "float" for k in e.kernels for p in _scalars(k)):
        lines += _FLOAT
    return lines


def _run_task(e: Emission) -> list[str]:
    """The switch over kernels, per kind of core."""
    if not e.has_cube:
        return [
            *_signature(e),
            "  AscendC::TPipe pipe;",
            "  switch (task->kernel) {",
            *_cases(e.kernels, "    "),
            "  }",
            "}",
            "",
        ]
    cube = [k for k in e.kernels if k.core != "AIV"]
    vector = [k for k in e.kernels if k.core != "AIC"]
    lines = [*_signature(e), "  AscendC::TPipe pipe;"]
    for macro, kernels in (("ASCEND_IS_AIC", cube), ("ASCEND_IS_AIV", vector)):
        if kernels:
            lines += [f"  if {macro} {{", "    switch (task->kernel) {", *_cases(kernels, "      "), "    }", "  }"]
    return [*lines, "}", ""]


def _signature(e: Emission) -> list[str]:
    if e.workspace_bytes:
        return ["__aicore__ inline void RunTask(__gm__ const plan::Task *task,", " " * 31 + "GM_ADDR workspace) {"]
    return ["__aicore__ inline void RunTask(__gm__ const plan::Task *task) {"]


def _cases(kernels: Sequence[EmittedKernel], indent: str) -> list[str]:
    lines = []
    for kernel in kernels:
        lines += [f"{indent}case plan::{kernel.enum}:", *broken(f"{indent}  {_call(kernel)}")]
        lines.append(f"{indent}  break;")
    return [*lines, f"{indent}default:", f"{indent}  break;"]


def _call(kernel: EmittedKernel) -> str:
    """Run, as the docstring of aicore.py says."""
    tiles = [p for p in kernel.source.params if p.is_tile]
    given = ["&pipe", *(f"TileOf(task->tile[{k}])" for k in range(len(tiles)))]
    for k, param in enumerate(_scalars(kernel)):
        word = f"task->arg[{k}]"
        given.append(f"FloatOf({word})" if param.c_type == "float" else f"static_cast<{param.c_type}>({word})")
    if kernel.source.workspace_bytes:
        given.append("workspace")
    return f"pto_{kernel.source.name}::Run({', '.join(given)});"


def _scalars(kernel: EmittedKernel) -> list[SourceParam]:
    return [p for p in kernel.source.params if not p.is_tile]


_TILE = """\
__aicore__ inline GmTile TileOf(__gm__ const plan::Operand &tile) {
  return {(GM_ADDR)tile.addr, tile.rowStride, tile.colStride, tile.rows,
          tile.cols};
}
""".splitlines()

_FLOAT = """\
// A float from the low half of an argument word.
__aicore__ inline float FloatOf(int64_t word) {
  union {
    uint32_t bits;
    float value;
  } both = {static_cast<uint32_t>(word)};
  return both.value;
}
""".splitlines()

_REPORT = """\
// When a task ran, and where: a cache line that nobody else writes.
__aicore__ inline void Report(__gm__ plan::Record *record, int64_t begin,
                              uint32_t worker) {
  AscendC::GlobalTensor<uint64_t> line;
  line.SetGlobalBuffer((__gm__ uint64_t *)record, plan::kLine / 8);
  line.SetValue(0, static_cast<uint64_t>(begin));
  line.SetValue(1, static_cast<uint64_t>(AscendC::GetSystemCycle()));
  line.SetValue(2, static_cast<uint64_t>(worker));
  line.SetValue(3, static_cast<uint64_t>(1));
  AscendC::DataCacheCleanAndInvalid<uint64_t,
                                    AscendC::CacheLine::SINGLE_CACHE_LINE,
                                    AscendC::DcciDst::CACHELINE_OUT>(line);
}
""".splitlines()


def _entry(e: Emission) -> list[str]:
    group = e.has_cube
    lines = [
        'extern "C" __global__ __aicore__ void worker(GM_ADDR planAddress) {',
        f"  KERNEL_TASK_TYPE_DEFAULT({'KERNEL_TYPE_MIX_AIC_1_2' if group else 'KERNEL_TYPE_MIX_AIV_1_0'});",
        "  __gm__ const plan::Plan *p = (__gm__ const plan::Plan *)planAddress;",
        "  if (p->magic != plan::kMagic || p->version != plan::kVersion ||",
        "      p->planBytes != sizeof(plan::Plan) ||",
        f"      p->taskBytes != sizeof(plan::Task){'' if e.orders.mailboxes else ' || p->error != plan::kOk'}) {{",
        "    return;",
        "  }",
        "  __gm__ const plan::Task *tasks = (__gm__ const plan::Task *)p->tasks;",
        "  __gm__ plan::Record *records = (__gm__ plan::Record *)p->records;",
    ]
    if group:
        number = e.orders.mailboxes
        text = _GROUP.replace("@CORE@", "  uint32_t core = 0;\n" if number else "")
        count = "    core = static_cast<uint32_t>(AscendC::GetSubBlockIdx()) + 1;\n"
        lines += text.replace("@SUB@", count if number else "").splitlines()
    else:
        lines.append("  const uint32_t me = static_cast<uint32_t>(AscendC::GetBlockIdx());")
    if e.workspace_bytes:
        lines.append("  const GM_ADDR workspace =")
        lines.append("      (GM_ADDR)p->workspace + me * plan::kWorkspaceBytes;")
    run = "RunTask(task, workspace)" if e.workspace_bytes else "RunTask(task)"
    steps = _RUN_IN_GROUP if group else _RUN_ALONE
    if e.orders.mailboxes:
        core = "core" if group else "0"
        body = [*_NEXT, *(line[2:] for line in steps), *(line.replace("@CORE@", core) for line in _TOLD)]
        return [line.replace("@RUN@", run) for line in [*lines, *body, "}"]]
    lines += [
        "  __gm__ const uint32_t *start = (__gm__ const uint32_t *)p->queue;",
        "  __gm__ const uint32_t *queue = start + p->workers + 1;",
        "  uint32_t next = start[me];",
        "  for (uint32_t level = 0; level < p->numLevels; ++level) {",
        "    for (; next < start[me + 1]; ++next) {",
        "      __gm__ const plan::Task *task = &tasks[queue[next]];",
        "      if (task->level != level) {",
        "        break;",
        "      }",
        *steps,
        "    }",
        "    // Every worker, every level: what this level has stored can be read.",
        f"    AscendC::SyncAll{'<false>' if group else ''}();",
        "  }",
        "}",
    ]
    return [line.replace("@RUN@", run) for line in lines]


_GROUP = """\
  // The cube core of group `me`, or one of its two vector cores. Vector tasks
  // run on the first of them, mixed ones on all three.
  uint32_t me = static_cast<uint32_t>(AscendC::GetBlockIdx());
  uint32_t alone = plan::kCube;
@CORE@  if ASCEND_IS_AIV {
    me /= 2;
    alone = AscendC::GetSubBlockIdx() == 0 ? plan::kVector : plan::kNoCore;
@SUB@  }"""

_RUN_ALONE = """\
      const int64_t begin = AscendC::GetSystemCycle();
      if (task->core != plan::kNoCore) {
        @RUN@;
        AscendC::PipeBarrier<PIPE_ALL>();
      }
      Report(&records[task->row], begin, me);""".splitlines()

_RUN_IN_GROUP = """\
      const int64_t begin = AscendC::GetSystemCycle();
      if (task->core != plan::kNoCore &&
          (task->core == alone || task->core == plan::kMix)) {
        @RUN@;
        AscendC::PipeBarrier<PIPE_ALL>();
      }
      // One core of the group reports.
      if (task->core == plan::kVector ? alone == plan::kVector
                                      : alone == plan::kCube) {
        Report(&records[task->row], begin, me);
      }""".splitlines()

_MAILBOX = """\
// A word of a cache line that others write: the line is read anew.
__aicore__ inline uint32_t Look(__gm__ plan::Word *word) {
  AscendC::GlobalTensor<uint32_t> line;
  line.SetGlobalBuffer((__gm__ uint32_t *)word, plan::kLine / 4);
  AscendC::DataCacheCleanAndInvalid<uint32_t,
                                    AscendC::CacheLine::SINGLE_CACHE_LINE,
                                    AscendC::DcciDst::CACHELINE_OUT>(line);
  return line.GetValue(0);
}
// A word of a cache line that nobody else writes.
__aicore__ inline void Tell(__gm__ plan::Word *word, uint32_t value) {
  AscendC::GlobalTensor<uint32_t> line;
  line.SetGlobalBuffer((__gm__ uint32_t *)word, plan::kLine / 4);
  line.SetValue(0, value);
  AscendC::DataCacheCleanAndInvalid<uint32_t,
                                    AscendC::CacheLine::SINGLE_CACHE_LINE,
                                    AscendC::DcciDst::CACHELINE_OUT>(line);
}
""".splitlines()

_NEXT = """\
  __gm__ plan::Mailbox *box = (__gm__ plan::Mailbox *)p->mailboxes + me;
  uint32_t last = 0;
  for (;;) {
    const uint32_t go = Look(&box->go);
    if (go == plan::kStop) {
      break;
    }
    if (go == last) {
      continue;
    }
    last = go;
    // The row was written before the word, and this core has never read it.
    __gm__ const plan::Task *task = &tasks[go - 1];""".splitlines()

_TOLD = """\
    Tell(&box->done[@CORE@], go);
  }""".splitlines()
