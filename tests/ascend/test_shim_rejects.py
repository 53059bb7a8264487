# ruff: noqa: E501  (one wrong kernel a line)
"""The host shim rejects wrong kernels: one per check, each with a message that names the call and what is wrong.

All wrong kernels are compiled as one source; every test runs one of them in its own process.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from pto_wsp.ascend.build import HostProgram, Out, ShimError, Workspace, build, compiler
from pto_wsp.errors import CompileError

HEAD = """#include "kernel_operator.h"
using namespace AscendC;
"""
# x and y: 1024 floats each in UB and GM; `t` is scratch of 8 KiB.
SETUP = """
  TPipe pipe;
  TQue<TPosition::VECIN, 1> in;
  TQue<TPosition::VECOUT, 1> out;
  TBuf<TPosition::VECCALC> scratch;
  pipe.InitBuffer(in, 2, 4096);
  pipe.InitBuffer(out, 2, 4096);
  pipe.InitBuffer(scratch, 8192);
  GlobalTensor<float> xGm, yGm;
  xGm.SetGlobalBuffer((__gm__ float *)x, 1024);
  yGm.SetGlobalBuffer((__gm__ float *)y, 1024);
"""
LOAD = """
  LocalTensor<float> a = in.AllocTensor<float>();
  DataCopy(a, xGm, 1024);
  in.EnQue(a);
  a = in.DeQue<float>();
"""
OPEN = SETUP + LOAD + "  LocalTensor<float> b = out.AllocTensor<float>(), t = scratch.Get<float>();\n"
STORE = """
  out.EnQue(b);
  in.FreeTensor(a);
  b = out.DeQue<float>();
  DataCopy(yGm, b, 1024);
  out.FreeTensor(b);
"""
HALVES = "  LocalTensor<half> h = t.ReinterpretCast<half>();\n"
CUBE = """
  TPipe pipe;
  TQue<TPosition::A1, 1> l1;
  TQue<TPosition::A2, 1> l0a;
  TQue<TPosition::B2, 1> l0b;
  TQue<TPosition::CO1, 1> l0c;
  pipe.InitBuffer(l1, 1, 4096);
  pipe.InitBuffer(l0a, 1, 2048);
  pipe.InitBuffer(l0b, 1, 2048);
  pipe.InitBuffer(l0c, 1, 4096);
  GlobalTensor<half> xGm;
  GlobalTensor<float> yGm;
  xGm.SetGlobalBuffer((__gm__ half *)x, 2048);
  yGm.SetGlobalBuffer((__gm__ float *)y, 1024);
  LocalTensor<half> a1 = l1.AllocTensor<half>();
"""
CUBE_LOAD = """
  DataCopy(a1, xGm, Nd2NzParams{1, 16, 32, 0, 32, 16, 1, 0});
  l1.EnQue(a1);
  a1 = l1.DeQue<half>();
  LocalTensor<half> a2 = l0a.AllocTensor<half>(), b2 = l0b.AllocTensor<half>();
  LoadData(a2, a1, LoadData2DParams(0, 2, 1, 0, 0, false, 0));
  LoadData(b2, a1, LoadData2DParams(0, 2, 1, 0, 0, false, 0));
  l0a.EnQue(a2);
  l0b.EnQue(b2);
  l1.FreeTensor(a1);
  a2 = l0a.DeQue<half>();
  b2 = l0b.DeQue<half>();
  LocalTensor<float> c = l0c.AllocTensor<float>();
"""
CUBE_END = """
  l0c.EnQue(c);
  l0a.FreeTensor(a2);
  l0b.FreeTensor(b2);
  c = l0c.DeQue<float>();
"""
FIX = "  Fixpipe(yGm, c, FixpipeParamsV220(16, 16, 16, 16, false, QuantMode_t::NoQuant, 0, 1, 0, 0, 0));\n"
CUBE_STORE = CUBE_END + FIX + "  l0c.FreeTensor(c);\n"
MMAD = "  Mmad(c, a2, b2, MmadParams(16, 16, 32, 0, false, true));\n"

QUIET = ["-Wno-unused-variable", "-Wno-unused-but-set-variable"]
AIV, AIC, MIX, MIXV, NO_TYPE = "AIV_ONLY", "AIC_ONLY", "MIX_AIC_1_2", "MIX_AIV_1_0", ""
B = "BinaryRepeatParams"
# name: (body, message, kernel type, blocks)
WRONG: dict[str, tuple[str, ...]] = {
    # -- entry and cores
    "two_pipes": (SETUP + "TPipe other;", r"TPipe: another TPipe is alive \(made at"),
    "no_type": ("TPipe pipe;", r"TPipe: KERNEL_TASK_TYPE_DEFAULT must be the first statement", NO_TYPE),
    "type_late": ("TPipe pipe; KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);", r"TPipe: .* must be the first statement", NO_TYPE),
    "type_twice": ("KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);", r"KERNEL_TASK_TYPE_DEFAULT: .*second time"),
    "vector_on_cube": (
        "TPipe pipe; TBuf<TPosition::A1> b; pipe.InitBuffer(b, 512); LocalTensor<float> f = b.Get<float>(); Add(f, f, f, 8);",
        r"Add: a vector-core call on a cube core", AIC),
    "cube_on_vector": (OPEN + "Mmad(t, h, h, MmadParams(16, 16, 16, 0, false, true));".replace("h,", "t.ReinterpretCast<half>(),"),
                       r"Mmad: a cube-core call on a vector core"),
    "l1_on_vector": ("TPipe pipe; TQue<TPosition::A1, 1> q; pipe.InitBuffer(q, 1, 512);", r"InitBuffer: position A1 .L1. does not exist"),
    "sync_all_needs_mix": ("SyncAll();", r"SyncAll: KERNEL_TYPE_AIV_ONLY does not start the cross-core scheduler"),
    "cross_flag_needs_mix": ("CrossCoreSetFlag<0x0, PIPE_MTE3>(1);", r"CrossCoreSetFlag: KERNEL_TYPE_AIV_ONLY"),
    # -- buffers
    "ub_overflow": ("TPipe pipe; TBuf<> b, c; pipe.InitBuffer(b, 188000); pipe.InitBuffer(c, 192);",
                    r"InitBuffer: length = 192 bytes on top of 188000 in use: UB has 188160 usable"),
    "l1_overflow": ("TPipe pipe; TBuf<TPosition::A1> b; pipe.InitBuffer(b, 512 * 1024);", r"L1 has 524032 usable", AIC),
    "l0c_overflow": ("TPipe pipe; TQue<TPosition::CO1, 1> q; pipe.InitBuffer(q, 1, 131136);", r"L0C has 131072 usable", AIC),
    "bias_overflow": ("TPipe pipe; TBuf<TPosition::C2> b; pipe.InitBuffer(b, 1056);", r"bias table has 1024 usable", AIC),
    "l0_overflow": ("TPipe pipe; TQue<TPosition::A2, 1> q; pipe.InitBuffer(q, 2, 40000);", r"L0A has 65536 usable", AIC),
    "empty_buffer": ("TPipe pipe; TBuf<> b; pipe.InitBuffer(b, 0);", r"length = 0 bytes"),
    "too_many_buffers": ("TPipe pipe; TBuf<> b[65]; for (int i = 0; i < 65; ++i) pipe.InitBuffer(b[i], 32);", r"65th buffer"),
    "nine_queue_buffers": ("TPipe pipe; TQue<TPosition::VECIN, 1> a, b; pipe.InitBuffer(a, 4, 32); pipe.InitBuffer(b, 5, 32);",
                           r"num = 5 makes 9 queue buffers between MTE2 and V"),
    "zero_queue_buffers": ("TPipe pipe; TQue<TPosition::VECIN, 1> a; pipe.InitBuffer(a, 0, 32);", r"num = 0, allowed are 1\.\.255"),
    "buffers_that_wrap": ("TPipe pipe; TQue<TPosition::VECIN, 1> a; pipe.InitBuffer(a, 258, 32);", r"num = 258"),
    "queue_without_buffer": ("TPipe pipe; TQue<TPosition::VECIN, 1> a; LocalTensor<float> f = a.AllocTensor<float>();",
                             r"AllocTensor: the queue has no buffers"),
    "event_id_range": (SETUP + "SetFlag<HardEvent::V_S>(8);", r"SetFlag: eventID = 8, allowed are 0\.\.7"),
    "event_not_allocated": (SETUP + "SetFlag<HardEvent::V_S>(EVENT_ID0);", r"event id 0 of V_S was not taken from the TPipe"),
    "event_pipe_of_cube": (SETUP + "SetFlag<HardEvent::M_FIX>(EVENT_ID0);", r"M_FIX names a pipe that a vector core does not have"),
    "event_leak": (SETUP + "pipe.AllocEventID<HardEvent::V_S>();", r"AllocEventID: event id 0 of V_S was not released"),
    "event_ids_exhausted": (SETUP + "for (int i = 0; i < 9; ++i) pipe.AllocEventID<HardEvent::V_S>();", r"all 8 event ids of V_S"),
    "event_ids_of_queues": ("TPipe pipe; TQue<TPosition::VECIN, 1> q; pipe.InitBuffer(q, 7, 32); pipe.AllocEventID<HardEvent::MTE2_V>(); pipe.FetchEventID(HardEvent::MTE2_V);",
                            r"FetchEventID: all 8 event ids of MTE2_V are taken, 7 of them by the buffers of queues"),
    # -- queue discipline
    "deque_empty": (SETUP + "LocalTensor<float> a = in.DeQue<float>();", r"DeQue: the queue is empty"),
    "use_before_deque": (
        SETUP + "LocalTensor<float> a = in.AllocTensor<float>(); DataCopy(a, xGm, 1024); in.EnQue(a); Adds(a, a, 1.0f, 8);",
        r"Adds: dst is used before DeQue \(put into its queue at"),
    "use_after_free": (OPEN + "in.FreeTensor(a); Adds(b, a, 1.0f, 8);", r"Adds: src is used after FreeTensor"),
    "free_twice": (OPEN + "in.FreeTensor(a); in.FreeTensor(a);", r"FreeTensor: the tensor was freed already"),
    "free_in_other_queue": (OPEN + "out.FreeTensor(a);", r"FreeTensor: the tensor does not belong to this queue"),
    "free_without_queue": (OPEN + "out.FreeTensor(b);", r"FreeTensor: .* never went through its queue"),
    "enque_twice": (OPEN + "out.EnQue(b); out.EnQue(b);", r"EnQue: the tensor is in its queue since"),
    "alloc_all_used": (OPEN + "LocalTensor<float> c = out.AllocTensor<float>(), d = out.AllocTensor<float>();",
                       r"AllocTensor: all 2 buffers of the queue are in use"),
    "queue_full": (SETUP + """LocalTensor<float> a = in.AllocTensor<float>(), c = in.AllocTensor<float>();
       in.EnQue(a); in.EnQue(c);""", r"EnQue: the queue is full: depth = 1"),
    "left_in_queue": (SETUP + "LocalTensor<float> a = in.AllocTensor<float>(); in.EnQue(a);", r"EnQue: .* still in its queue"),
    "not_freed": (SETUP + LOAD, r"DeQue: the tensor was not freed"),
    "not_enqueued": (SETUP + "LocalTensor<float> a = in.AllocTensor<float>();", r"AllocTensor: the tensor was not freed"),
    "stale_tensor": (OPEN + """LocalTensor<float> old = a; in.FreeTensor(a);
       for (int i = 0; i < 2; ++i) a = in.AllocTensor<float>();
       Adds(b, old, 1.0f, 8);""", r"Adds: src is used after FreeTensor"),
    "no_buffer": (SETUP + "LocalTensor<float> a; Adds(a, a, 1.0f, 8);", r"Adds: dst is a LocalTensor that was never given a buffer"),
    "buf_get_too_long": (SETUP + "scratch.Get<float>(2049);", r"TBuf::Get: bytes 0\.\.8196, the buffer has 8192"),
    "buf_offset": (SETUP + "scratch.GetWithOffset<float>(8, 16);", r"GetWithOffset: bufOffset = 16 is not a multiple of 32"),
    # -- local access
    "misaligned": (OPEN + "Adds(b[3], a, 1.0f, 8);", r"Adds: dst: address \d+ in UB is not a multiple of 32"),
    "count_too_long": (OPEN + "Adds(b, a, 1.0f, 1025);", r"Adds: dst: bytes 0\.\.4100 are reached, the tensor has 4096"),
    "offset_outside": (OPEN + "Adds(b[1025], a, 1.0f, 1);", r"LocalTensor\[\]: offset = 1025, the tensor has 1024"),
    "repeat_reach": (OPEN + f"Add(b, a, a, 64, 17, {B}(1, 1, 1, 8, 8, 8));", r"Add: dst: bytes 0\.\.4352 are reached"),
    "get_value_outside": (OPEN + "Adds(b, a, 1.0f, 1024); PipeBarrier<PIPE_ALL>(); b.GetValue(1024);",
                          r"GetValue: index: bytes 4096\.\.4100 are reached"),
    "partial_overlap": (OPEN + "Adds(t, a, 1.0f, 1024); PipeBarrier<PIPE_V>(); Adds(t[8], t, 1.0f, 512);",
                        r"Adds: dst \(address \d+\) and src \(address \d+\) overlap partly"),
    "cross_repeat": (OPEN + f"Adds(t, a, 1.0f, 64); PipeBarrier<PIPE_V>(); Div(t, a, t, 64, 3, {B}(1, 1, 1, 0, 8, 0));",
                     r"Div: dst of one repeat is src1 of another"),
    "cross_repeat_src0": (OPEN + f"Adds(t, a, 1.0f, 64); PipeBarrier<PIPE_V>(); Add(t, t, a, 64, 3, {B}(1, 1, 1, 0, 0, 8));",
                          r"Add: dst of one repeat is src0 of another"),
    # -- repeat and mask
    "repeat_256": (OPEN + f"Add(b, a, a, 64, 256, {B}(1, 1, 1, 0, 0, 0));", r"Add: repeatTime = 256, allowed are 0\.\.255"),
    "stride_256": (OPEN + f"Add(b, a, a, 64, 1, {B}(1, 1, 1, 256, 8, 8));", r"Add: dstRepStride = 256, allowed are 0\.\.255"),
    "mask_65": (OPEN + f"Add(b, a, a, 65, 1, {B}(1, 1, 1, 8, 8, 8));", r"Add: mask = 65, allowed are 1\.\.64"),
    "mask_0": (OPEN + f"Add(b, a, a, uint64_t{{0}}, 1, {B}(1, 1, 1, 8, 8, 8));", r"Add: mask = 0, allowed are 1\.\.64"),
    "mask_word": (OPEN + f"uint64_t m[2] = {{1, 1}}; Add(b, a, a, m, 1, {B}(1, 1, 1, 8, 8, 8));", r"Add: mask\[1\] = 0x1 must be 0 for float"),
    "dst_block_0": (OPEN + f"Add(b, a, a, 64, 1, {B}(0, 1, 1, 8, 8, 8));", r"Add: dstBlkStride = 0"),
    "mask_left": (OPEN + "SetMaskCount(); SetVectorMask<float, MaskMode::COUNTER>(0, 8);" + "Adds(b, a, 1.0f, 1024);" + STORE,
                  r"SetVectorMask: the vector mask is not back to normal"),
    "counter_left": (OPEN + f"SetMaskCount(); Add(b, a, a, 8, 1, {B}(1, 1, 1, 8, 8, 8));", r"Add: the mask mode was left in counter mode"),
    # -- copies
    "copy_32": (OPEN + "DataCopy(t, xGm, 9);", r"DataCopy: count = 9 elements of 4 bytes is no multiple of 32 bytes"),
    "gm_to_l0": ("TPipe pipe; TBuf<TPosition::A2> u; pipe.InitBuffer(u, 512); GlobalTensor<float> g; g.SetGlobalBuffer((__gm__ float *)x, 8);"
                 "DataCopy(u.Get<float>(), g, 8);", r"DataCopy: no path from GM to L0A", AIC),
    "l0c_to_l1": ("TPipe pipe; TBuf<TPosition::CO1> c; TBuf<TPosition::A1> l; pipe.InitBuffer(c, 1024); pipe.InitBuffer(l, 1024);"
                  "LocalTensor<float> p = c.Get<float>(), q = l.Get<float>(); DataCopy(q, p, 16);", r"no path from L0C to L1 on 2201", AIC),
    "pad_length": (OPEN + "DataCopyPad(t, xGm, DataCopyExtParams{1, 7, 0, 0, 0}, DataCopyPadExtParams<float>{false, 0, 0, 0});",
                   r"DataCopyPad: blockLen = 7 bytes is no multiple of the element, 4"),
    "pad_rows": (OPEN + "DataCopyPad(t, xGm, DataCopyExtParams{4096, 4, 0, 0, 0}, DataCopyPadExtParams<float>{false, 0, 0, 0});",
                 r"DataCopyPad: blockCount = 4096, allowed are 1\.\.4095"),
    "pad_too_long": (OPEN + "DataCopyPad(t, xGm, DataCopyExtParams{1, 4, 0, 0, 0}, DataCopyPadExtParams<float>{true, 0, 9, 0});",
                     r"DataCopyPad: padding = 0 and 9 elements; each side at most 32"),
    "pad_next_block": (OPEN + "DataCopyPad(t, xGm, DataCopyExtParams{1, 28, 0, 0, 0}, DataCopyPadExtParams<float>{true, 0, 2, 0});",
                       r"DataCopyPad: rightPadding = 2 elements goes beyond the 32-byte block"),
    "pad_8_bytes": (OPEN + """GlobalTensor<int64_t> g; g.SetGlobalBuffer((__gm__ int64_t *)x, 8); LocalTensor<int64_t> w = t.ReinterpretCast<int64_t>();
       DataCopyPad(w, g, DataCopyExtParams{1, 8, 0, 0, 0}, DataCopyPadExtParams<int64_t>{true, 0, 1, 5});""",
                    r"DataCopyPad: paddingValue must be 0 for 8-byte"),
    "gm_beyond_buffer": (OPEN + "DataCopy(t, xGm[1017], 8);", r"DataCopy: src: bytes 4068\.\.4100 .* SetGlobalBuffer allows 4096"),
    "gm_beyond_allocation": (SETUP + "GlobalTensor<float> g; g.SetGlobalBuffer((__gm__ float *)x, 4096); LocalTensor<float> t = scratch.Get<float>();"
                             "DataCopy(t, g[1020], 8);", r"DataCopy: src: bytes 4080\.\.4112 of GM allocation gm_beyond_allocation\.0 are reached, which has 4096"),
    "gm_no_buffer": (SETUP + "GlobalTensor<float> g; DataCopy(scratch.Get<float>(), g, 8);", r"DataCopy: src: SetGlobalBuffer was not called"),
    "gm_store_beyond": (OPEN + "Adds(b, a, 1.0f, 1024);" + STORE.replace("DataCopy(yGm", "DataCopy(yGm[8]"),
                        r"DataCopy: dst: bytes 32\.\.4128 .* SetGlobalBuffer allows 4096"),
    "atomic_left": (SETUP + "SetAtomicAdd<float>();", r"SetAtomic: atomic mode is still on"),
    "atomic_type": (OPEN + "Adds(b, a, 1.0f, 1024); SetAtomicAdd<half>();" + STORE, r"DataCopy: elements are float, the atomic mode .* is for half"),
    # -- values that are not there
    "store_unwritten": (OPEN + "Adds(b, a, 1.0f, 1023);" + STORE, r"DataCopy: src: byte 4092 of a row \(element 1023\) was never written"),
    "reduce_unwritten": (OPEN + "LocalTensor<float> u = scratch.Get<float>(); ReduceSum(b, t, u[1024], 64);", r"ReduceSum: src: element 0 was never written"),
    "reduce_fill": (OPEN + """DataCopyPad(t, xGm, DataCopyExtParams{1, 20, 0, 0, 0}, DataCopyPadExtParams<float>{false, 0, 0, 0});
       PipeBarrier<PIPE_ALL>(); WholeReduceSum(b, t, 8, 1, 1, 1, 8);""", r"WholeReduceSum: src: element 5 was never written"),
    "scalar_unwritten": (OPEN + "t.GetValue(0);", r"GetValue: element 0 was never written"),
    "out_read_first": (OPEN + "DataCopy(t, yGm, 8); PipeBarrier<PIPE_ALL>(); ReduceSum(b, t, t[64], 8);", r"ReduceSum: src: element 0 was never written"),
    # -- ops
    "compare_256": (OPEN + "Compare(t.ReinterpretCast<uint8_t>(), a, a, CMPMODE::LT, 65);", r"Compare: count = 65 elements of float is 260 bytes"),
    "compare_int": (OPEN + "LocalTensor<int32_t> i = a.ReinterpretCast<int32_t>(); Compare(t.ReinterpretCast<uint8_t>(), i, i, CMPMODE::LT, 64);",
                    r"Compare: int32_t can only be compared for CMPMODE::EQ"),
    "select_mode": (OPEN + "Duplicate(t, 1.0f, 64); PipeBarrier<PIPE_V>();"
                    "Select(b, t.ReinterpretCast<uint8_t>(), a, 0.0f, SELMODE::VSEL_TENSOR_TENSOR_MODE, 64);", r"Select: selMode does not fit src1"),
    "cast_pair": (OPEN + "Cast(t.ReinterpretCast<int8_t>(), a, RoundMode::CAST_RINT, 8);", r"Cast: no instruction casts float to int8_t on 2201"),
    "cast_mode": (OPEN + "Cast(t.ReinterpretCast<int32_t>(), a, RoundMode::CAST_NONE, 8);",
                  r"Cast: mode = CAST_NONE for float to int32_t; allowed are CAST_RINT"),
    "cast_scale": (OPEN + "Cast(t.ReinterpretCast<half>(), a.ReinterpretCast<int32_t>(), RoundMode::CAST_NONE, 8);",
                   r"Cast: int32_t to half needs SetDeqScale"),
    "gather_offset": (OPEN + "Duplicate(t, FLOATS, 8);".replace("FLOATS", "0.0f") + """
       LocalTensor<int32_t> o = t.ReinterpretCast<int32_t>(); PipeBarrier<PIPE_V>(); Duplicate(o, 2, 8); PipeBarrier<PIPE_V>();
       Gather(b, a, t.ReinterpretCast<uint32_t>(), 0, 8);""", r"Gather: srcOffset\[0\] = 2 bytes is no multiple of the element"),
    "gather_range": (OPEN + """LocalTensor<int32_t> o = t.ReinterpretCast<int32_t>(); Duplicate(o, 4096, 8); PipeBarrier<PIPE_V>();
       Gather(b, a, t.ReinterpretCast<uint32_t>(), 0, 8);""", r"Gather: srcOffset\[0\] = 4096 bytes .* beyond src, which has 4096"),
    "gather_in_place": (OPEN + """LocalTensor<int32_t> o = t.ReinterpretCast<int32_t>(); Duplicate(o, 0, 8); PipeBarrier<PIPE_V>();
       Gather(a, a, t.ReinterpretCast<uint32_t>(), 0, 8);""", r"Gather: dst .* and src .* overlap"),
    "brcb_groups": (OPEN + "Brcb(b, t[2044], 1, {1, 8});".replace("2044", "2040") + "Brcb(b, t[2040], 2, {1, 8});", r"Brcb: src0 \(read in groups of 8\): bytes"),
    "tanh_tmp": (OPEN + "Tanh(b, a, scratch.GetWithOffset<uint8_t>(128, 0), 64);", r"Tanh: tmp has 128 bytes, at least 256 are needed"),
    "sigmoid_in_place": (OPEN + "Sigmoid(a, a, scratch.Get<uint8_t>(), 64);", r"Sigmoid: dst .* and src .* overlap"),
    "erf_tmp_overlap": (OPEN + "Duplicate(t, 0.0f, 64); PipeBarrier<PIPE_V>(); Erf(b, t, scratch.Get<uint8_t>(), 64);", r"Erf: tmp .* and src .* overlap"),
    "reduce_max_tmp": (OPEN + "ReduceMax(b, a, scratch.GetWithOffset<float>(8, 0), 1024);", r"ReduceMax: tmp has 8 elements, 32 are needed"),
    "axis_inner_pad": (OPEN + "uint32_t s[2] = {2, 8}; ReduceMax<float, Pattern::Reduce::AR>(b, a, scratch.Get<uint8_t>(), s, false);",
                       r"ReduceMax: srcInnerPad = false"),
    "axis_tmp": (OPEN + "uint32_t s[2] = {8, 128}; ReduceSum<float, Pattern::Reduce::AR>(b, a, scratch.GetWithOffset<uint8_t>(32, 0), s, true);",
                 r"ReduceSum: tmp .*2048"),
    "transpose_room": (OPEN + HALVES + "Transpose(h[3968], h);", r"Transpose: dst \(one block of 16 x 16\)"),
    "hd_strides": (OPEN + """uint64_t p[16]; for (int i = 0; i < 16; ++i) p[i] = (uint64_t)a[i * 8].GetPhyAddr();
       TransDataTo5HD<float>(p, p, TransDataTo5HDParams(false, false, 1, 8, 8));""", r"TransDataTo5HD: repeatTimes = 1 needs"),
    "arange_down": (OPEN + "ArithProgression(t, 0.0f, -1.0f, 8);", r"ArithProgression: diffValue is negative"),
    "merge_valid": (OPEN + """uint16_t n[4] = {32, 32, 0, 0}; MrgSort(b, MrgSortSrcList<float>(a, a, a, a), MrgSort4Info(n, false, 5, 1));""",
                    r"MrgSort: validBit = 5"),
    "merge_unsorted": (OPEN + """uint16_t n[4] = {32, 32, 0, 0}; MrgSort(b, MrgSortSrcList<float>(a, a[64], a, a), MrgSort4Info(n, false, 3, 1));""",
                       r"MrgSort: run 1 is not sorted"),
    "power_tmp": (OPEN + "Power(b, a, 2.0f, scratch.GetWithOffset<uint8_t>(1024, 0), 64);", r"Power: tmp has 1024 bytes, at least 1536"),
    # -- order between pipes
    "no_barrier": (OPEN + "Adds(t, a, 1.0f, 64); Adds(b, t, 1.0f, 64);", r"Adds: src reads UB byte \d+ which Adds wrote at .* missing PipeBarrier<PIPE_V>"),
    "no_barrier_war": (OPEN + "Adds(b, a, 1.0f, 64); Duplicate(a, 0.0f, 64);", r"Duplicate: dst overwrites UB byte \d+ which Adds reads at .*PIPE_V"),
    "no_v_s": (OPEN + "Adds(b, a, 1.0f, 64); b.GetValue(0);", r"GetValue: .* missing SetFlag/WaitFlag<HardEvent::V_S>"),
    "no_s_v": (OPEN + "t.SetValue(0, 1.0f); Adds(b, t, 1.0f, 1);", r"Adds: .* SetValue wrote .*HardEvent::S_V"),
    "load_not_arrived": (SETUP + "LocalTensor<float> t = scratch.Get<float>(); DataCopy(t, xGm, 64); Adds(t[64], t, 1.0f, 64);",
                         r"Adds: src reads UB byte \d+ which DataCopy wrote at .* \(pipe MTE2\).*HardEvent::MTE2_V"),
    "use_before_arrival": (SETUP + "LocalTensor<float> a = in.AllocTensor<float>(), t = scratch.Get<float>(); DataCopy(a, xGm, 64); Adds(t, a, 1.0f, 64);",
                           r"Adds: .*MTE2_V"),
    "store_not_computed": (OPEN + "Adds(t, a, 1.0f, 1024); DataCopy(yGm, t, 1024);", r"DataCopy: src reads .* which Adds wrote .*HardEvent::V_MTE3"),
    "reuse_too_early": (OPEN + """Adds(t, a, 1.0f, 1024); PipeBarrier<PIPE_ALL>(); DataCopy(yGm, t, 1024); Duplicate(t, 0.0f, 64);""",
                        r"Duplicate: dst overwrites .* DataCopy reads .*HardEvent::MTE3_V"),
    "two_loads": (SETUP + "LocalTensor<float> t = scratch.Get<float>(); DataCopy(t, xGm, 64); DataCopy(t[32], xGm, 64);",
                  r"DataCopy: dst overwrites .* missing PipeBarrier<PIPE_MTE2>"),
    "two_stores": (OPEN + "Adds(b, a, 1.0f, 1024); Adds(t, a, 1.0f, 1024); PipeBarrier<PIPE_ALL>(); DataCopy(yGm, b, 1024); DataCopy(yGm, t, 64);",
                   r"DataCopy: dst overwrites GM byte 0 .* missing PipeBarrier<PIPE_MTE3>"),
    "store_then_load": (OPEN + "Adds(b, a, 1.0f, 1024); PipeBarrier<PIPE_ALL>(); DataCopy(yGm, b, 1024); DataCopy(t, yGm, 64);",
                        r"DataCopy: src reads GM byte 0 .*HardEvent::MTE3_MTE2"),
    "neighbour_of_scalar": (OPEN + """WholeReduceSum(b, a, 64, 1, 1, 1, 8); b.SetValue(1, 0.0f);
       int e = pipe.FetchEventID(HardEvent::S_MTE3); SetFlag<HardEvent::S_MTE3>(e); WaitFlag<HardEvent::S_MTE3>(e);
       DataCopyPad(yGm, b, DataCopyExtParams{1, 8, 0, 0, 0});""", r"DataCopyPad: src reads .* WholeReduceSum wrote .*HardEvent::V_MTE3"),
    # -- flags
    "flag_never_waited": (SETUP + "int e = pipe.FetchEventID(HardEvent::V_S); SetFlag<HardEvent::V_S>(e);", r"SetFlag: event id 0 of V_S is still set"),
    "flag_twice": (SETUP + "int e = pipe.AllocEventID<HardEvent::V_S>(); SetFlag<HardEvent::V_S>(e); SetFlag<HardEvent::V_S>(e);",
                   r"SetFlag: event id 0 of V_S is set a second time"),
    "flag_not_set": (SETUP + "int e = pipe.AllocEventID<HardEvent::V_S>(); WaitFlag<HardEvent::V_S>(e);", r"WaitFlag: event id 0 of V_S was not set"),
    # -- cores together
    "flag_id_of_sync_all": ("CrossCoreSetFlag<0x0, PIPE_MTE3>(12);", r"flagId = 12; 11\.\.14 belong to SyncAll", MIXV),
    "flag_id_16": ("CrossCoreSetFlag<0x0, PIPE_MTE3>(16);", r"flagId = 16, allowed are 0\.\.15", MIXV),
    "cross_left": ("CrossCoreSetFlag<0x0, PIPE_MTE3>(1);", r"CrossCoreSetFlag: flag 1 .* ends at 1; every counter must return to zero", MIXV),
    "cross_16": ("if ASCEND_IS_AIC { for (int i = 0; i < 16; ++i) CrossCoreSetFlag<0x2, PIPE_FIX>(1); }", r"flag 1 is set 16 times", MIX),
    "cross_deadlock": ("if ASCEND_IS_AIV { CrossCoreWaitFlag<0x2>(1); }", r"CrossCoreWaitFlag: deadlock: 2 cores wait for flags that nobody sets", MIX),
    "sync_all_skipped": ("if (GetBlockIdx() == 0) { SyncAll(); }", r"SyncAll: deadlock: not every core arrives", MIXV, "3"),
    "sync_too_many_blocks": ("SyncAll();", r"SyncAll: 49 blocks on 48 physical cores", MIXV, "49"),
    "gm_two_writers": (OPEN + "Adds(b, a, 1.0f, 1024);" + STORE, r"DataCopy: dst overwrites GM byte 0 .* two cores without a cross-core order", AIV, "2"),
    "gm_reader_and_writer": (OPEN + """Adds(b, a, 1.0f, 1024); out.EnQue(b); b = out.DeQue<float>();
       if (GetBlockIdx() == 0) { DataCopy(yGm, b, 1024); } else { DataCopy(t, yGm, 64); } out.FreeTensor(b); in.FreeTensor(a);""",
                             r"DataCopy: src reads GM byte 0 .* two cores", AIV, "2"),
    "gm_scalar_line": (SETUP + """yGm.SetValue(static_cast<uint64_t>(GetBlockIdx()), 1.0f);
       DataCacheCleanAndInvalid<float, CacheLine::SINGLE_CACHE_LINE, DcciDst::CACHELINE_OUT>(yGm);""",
                       r"SetValue: the 64-byte line at byte 0 of .* is scalar-written by two cores", AIV, "2"),
    "gm_scalar_dirty": (SETUP + "yGm.SetValue(0, 1.0f);", r"SetValue: the written line sits in the scalar cache .*DataCacheCleanAndInvalid"),
    # -- cube
    "mmad_m_1": (CUBE + CUBE_LOAD + MMAD.replace("(16, 16", "(1, 16"), r"Mmad: m = 1 switches the unit to GEMV", AIC),
    "mmad_range": (CUBE + CUBE_LOAD + MMAD.replace("(16, 16", "(4096, 16"), r"Mmad: m = 4096, allowed are 1\.\.4095", AIC),
    "mmad_l0a": (CUBE + CUBE_LOAD + MMAD.replace("(16, 16, 32", "(16, 16, 80"), r"Mmad: fm: bytes 0\.\.2560 are reached, the tensor has 2048", AIC),
    "mmad_alignment": (CUBE + CUBE_LOAD + MMAD.replace("(c,", "(c[16],"), r"Mmad: dst: address 64 in L0C is not a multiple of 1024", AIC),
    "mmad_wrong_memory": (CUBE + CUBE_LOAD + MMAD.replace("a2, b2", "b2, a2"), r"Mmad: fm lies in L0B, this operand must be in L0A", AIC),
    "mmad_no_barrier": (CUBE + CUBE_LOAD + MMAD + MMAD.replace("true", "false"), r"Mmad: dst reads L0C byte 0 .* missing PipeBarrier<PIPE_M>", AIC),
    "mmad_unordered": (CUBE + re.sub(r"l0[ab].EnQue.*|[ab]2 = l0[ab].DeQue.*", "", CUBE_LOAD) + MMAD,
                       r"Mmad: fm reads L0A byte 0 which LoadData wrote .*MTE1_M", AIC),
    "fixpipe_early": (CUBE + CUBE_LOAD + MMAD + FIX, r"Fixpipe: src reads L0C byte 0 which Mmad wrote .*M_FIX", AIC),
    "fixpipe_quant": (CUBE + CUBE_LOAD + MMAD + CUBE_END + FIX.replace("NoQuant", "F322F16"), r"Fixpipe: quantPre = 1 does not turn float into float", AIC),
    "fixpipe_pitch": (CUBE + CUBE_LOAD + MMAD + CUBE_END + FIX.replace("16, 16, 16, 16", "16, 16, 8, 16"), r"Fixpipe: srcStride = 8", AIC),
    "fixpipe_unwritten": (CUBE + CUBE_LOAD + MMAD.replace("16, 16, 32", "16, 8, 32") + CUBE_END + FIX,
                          r"Fixpipe: src: element \(0, 8\) was never computed", AIC),
    "nd2nz_range": (CUBE + "DataCopy(a1, xGm, Nd2NzParams{1, 16, 32, 0, 65536, 16, 1, 0});", r"DataCopy: srcDValue = 65536, allowed are 0\.\.65535", AIC),
    "nd2nz_room": (CUBE + "DataCopy(a1, xGm, Nd2NzParams{1, 64, 48, 0, 32, 64, 1, 0});", r"DataCopy: .*bytes", AIC),
    "load_transposed_float": ("""TPipe pipe; TBuf<TPosition::A1> p; TBuf<TPosition::A2> q; pipe.InitBuffer(p, 512); pipe.InitBuffer(q, 512);
       LoadData(q.Get<float>(), p.Get<float>(), LoadData2DParams(0, 1, 1, 0, 0, true, 0));""", r"LoadData: ifTranspose = true for float", AIC),
    "l0_alignment": (CUBE + CUBE_LOAD.replace("LoadData(a2, a1", "LoadData(a2[16], a1"), r"LoadData: dst: address 32 in L0A is not a multiple of 512", AIC),
}  # fmt: skip


def source(name: str, body: str, kind: str = AIV) -> str:
    type_ = f"  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_{kind});\n" if kind else ""
    return (
        f'extern "C" __global__ __aicore__ void {name}([[maybe_unused]] GM_ADDR x, [[maybe_unused]] GM_ADDR y) {{\n'
        f"{type_}{body}\n}}\n"
    )


@pytest.fixture(scope="module")
def wrong() -> HostProgram:
    text = "".join(source(name, case[0], *case[2:3]) for name, case in WRONG.items())
    return build({"wrong.cpp": HEAD + text}, optimise="-O0", flags=QUIET)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_kernel_is_rejected(wrong: HostProgram, name: str) -> None:
    _, message, *rest = WRONG[name]
    x = np.linspace(0, 1, 1024, dtype=np.float32)
    with pytest.raises(ShimError) as caught:
        wrong.run(name, x, Workspace(4096), blocks=int(rest[1]) if len(rest) > 1 else 1)
    assert re.search(message, str(caught.value)), caught.value
    assert caught.value.call and caught.value.file == "wrong.cpp"


def test_the_frames_of_the_wrong_kernels_are_right(wrong: HostProgram) -> None:
    """The parts that the wrong kernels are made of pass when nothing is wrong with them."""
    good = {
        "vector": source("vector", OPEN + "  Adds(b, a, 1.0f, 1024);" + STORE),
        "cube": source("cube", CUBE + CUBE_LOAD + MMAD + CUBE_STORE, AIC),
    }
    program = build({f"{name}.cpp": HEAD + text for name, text in good.items()}, flags=QUIET)
    x, y = np.arange(1024, dtype=np.float32), np.zeros(1024, np.float32)
    program.run("vector", x, Out(y))
    assert np.array_equal(y, x + 1)
    a, c = np.random.default_rng(0).integers(-3, 4, (64, 32)).astype(np.float16), np.zeros((64, 16), np.float32)
    program.run("cube", a, c)
    left = a[:16].astype(np.float32)
    assert np.array_equal(c[:16], left @ left.T)


# What the device's headers would refuse, the shim's do too.
REFUSED = {
    "half_arithmetic": ("half h = half(1.0f) + half(2.0f); (void)h;", "operator"),
    "half_compare": ("if (half(1.0f) < half(2.0f)) { return; }", "operator"),
    "half_implicit": ("half h = 1.0f; (void)h;", "conversion"),
    "scalar_type": (OPEN + HALVES + "Adds(h, h, 1.0f, 8);", "no matching function"),
    "int_div": (OPEN + "LocalTensor<int32_t> i = t.ReinterpretCast<int32_t>(); Div(i, i, i, 8);", "Div: type not supported"),
    "bf16_add": (OPEN + "LocalTensor<bfloat16_t> i = t.ReinterpretCast<bfloat16_t>(); Add(i, i, i, 8);", "Add: type not supported"),
    "int_abs": (OPEN + "LocalTensor<int32_t> i = t.ReinterpretCast<int32_t>(); Abs(i, i, 8);", "Abs: type not supported"),
    "int32_and": (OPEN + "LocalTensor<int32_t> i = t.ReinterpretCast<int32_t>(); And(i, i, i, 8);", "And: type not supported"),
    "no_neg": (OPEN + "Neg(b, a, 8);", "Neg"),
    "no_scatter": (OPEN + "Scatter(b, a, t, 0, 8);", "Scatter"),
    "no_interleave": (OPEN + "Interleave(b, a, t, t, 8);", "Interleave"),
    "no_divs": (OPEN + "Divs(b, a, 1.0f, 8);", "Divs"),
    "no_deinterleave": (OPEN + "DeInterleave(b, a, t, t, 8);", "DeInterleave"),
    "no_duplicate_of_a_tensor": (OPEN + "Duplicate(b, a, 8);", "Duplicate"),
    "no_copy_of_a_count": (OPEN + "Copy(b, a, 8);", "Copy"),
    "no_subs": (OPEN + "Subs(b, a, 1.0f, 8);", "Subs"),
    "tmp_lvalue": (OPEN + "uint32_t d[2] = {8, 8}, s[2] = {8, 1}; Broadcast<float, 2, 1>(b, a, d, s, scratch.Get<uint8_t>());", "cannot convert"),
    "pipe_s": ("PipeBarrier<PIPE_S>();", "not allowed"),
    "mmad_types": ("LocalTensor<half> h; Mmad(h, h, h, MmadParams(16, 16, 16, 0, false, true));", "Mmad: half"),
    "braces_narrow": ("uint32_t rows = GetBlockNum(); DataCopyExtParams p{rows, 32, 0, 0, 0}; (void)p;", "narrowing"),
    "unused_variable": ("int nothing = 0;", "unused"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_source_does_not_compile(name: str) -> None:
    body, message = REFUSED[name]
    with pytest.raises(CompileError, match=message):
        build({f"{name}.cpp": HEAD + source(name, body)}, exact=name == "braces_narrow", optimise="-O0")


def test_without_a_compiler_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    compiler.cache_clear()
    try:
        with pytest.raises(CompileError, match="needs a C\\+\\+17 compiler; none of no-such-compiler"):
            build({"a.cpp": ""})
    finally:
        compiler.cache_clear()
