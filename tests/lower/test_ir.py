"""LLVM IR as text: what the builder writes, read by LLVM and run."""

from __future__ import annotations

import ctypes

from pto_wsp.lower import ir, jit

I64, POINTER = ir.IntType(64), ir.PointerType()


def function(module: ir.Module, name: str = "f", arguments: int = 2) -> tuple[ir.Function, ir.Builder]:
    made = ir.Function(module, ir.FunctionType(I64, [I64] * arguments), name)
    return made, ir.Builder(made.append_basic_block("entry"))


def run(module: ir.Module, *arguments: int, name: str = "f") -> int:
    code = jit.load(str(module))
    return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(arguments))(code.address(name))(*arguments)


def test_equal_types_are_one_object():
    assert ir.VectorType(ir.FloatType(), 16) is ir.VectorType(ir.FloatType(), 16)
    assert str(ir.ArrayType(ir.VectorType(ir.IntType(8), 4), 3)) == "[3 x <4 x i8>]"
    assert ir.VectorType(ir.DoubleType(), 8).suffix == "v8f64"


def test_constants():
    pair = ir.VectorType(ir.IntType(32), 2)
    assert [str(x) for x in (I64(-3), ir.IntType(1)(True), ir.undefined(I64))] == ["i64 -3", "i1 1", "i64 undef"]
    assert [x.text for x in (pair(7), pair([1, 2]), pair(None))] == [
        "splat (i32 7)", "<i32 1, i32 2>", "zeroinitializer"
    ]  # fmt: skip
    assert str(ir.FloatType()(-0.0)) == "float 0x8000000000000000"
    assert str(ir.ArrayType(ir.IntType(8), 3)(b"a\0\xff")) == '[3 x i8] c"\\61\\00\\ff"'


def test_names_are_unique_and_may_be_any_text():
    module = ir.Module()
    f, build = function(module, arguments=1)
    f.args[0].name = "größe"
    memory = build.alloca(I64, name="größe.address")
    again = build.alloca(I64, name="größe.address")
    assert memory.text != again.text
    build.store(f.args[0], memory)
    build.store(build.load(memory, typ=I64), again)
    build.ret(build.add(build.load(again, typ=I64), I64(1)))
    assert run(module, 41) == 42


def test_branches_join_where_they_should():
    module = ir.Module()
    f, build = function(module)
    x, y = f.args
    result = build.alloca(I64)
    build.store(I64(0), result)
    with build.if_then(build.icmp_signed("<", x, I64(0)), likely=False):
        build.ret(I64(-1))
    with build.if_else(build.icmp_unsigned(">", x, y)) as (larger, other):
        with larger:
            build.store(build.sub(x, y), result)
        with other:
            with build.if_then(build.icmp_signed("==", x, y)):
                build.store(I64(100), result)
    build.ret(build.load(result, typ=I64))
    assert [run(module, *pair) for pair in ((-5, 1), (7, 3), (3, 3), (2, 9))] == [-1, 4, 100, 0]
    assert str(module).count("!prof") == 1 and "branch_weights" in str(module)


def test_code_before_the_end_of_another_block():
    """As a loop's body that finds out what has to happen before the loop."""
    module = ir.Module()
    f, build = function(module, arguments=1)
    memory, start = build.alloca(I64), build.block
    loop, done = (build.append_basic_block(name) for name in ("loop", "done"))
    build.branch(loop)
    build.position_at_end(loop)
    i = build.phi(I64)
    i.add_incoming(I64(0), start)
    with build.goto_block(start):
        build.store(I64(1000), memory)
    build.store(build.add(build.load(memory, typ=I64), i), memory)
    following = build.add(i, I64(1))
    i.add_incoming(following, loop)
    build.cbranch(build.icmp_signed("<", following, f.args[0]), loop, done)
    build.position_at_end(done)
    build.ret(build.load(memory, typ=I64))
    assert run(module, 4) == 1000 + 0 + 1 + 2 + 3


def test_constant_data_and_calls():
    module = ir.Module()
    table = ir.GlobalConstant(module, "powers of ten", ir.ArrayType(I64, 3)([1, 10, 100]), align=8)
    g, build = function(module, "g", 1)
    g.linkage = "internal"
    g.attributes += ["noinline"]
    build.ret(build.load(build.gep(table, [g.args[0]], source_etype=I64), typ=I64))
    f, build = function(module)
    build.ret(build.add(build.call(g, [f.args[0]]), build.call(g, [f.args[1]])))
    assert run(module, 0, 2) == 101


def test_what_is_known_is_not_left_to_llvm():
    f, build = function(ir.Module(), arguments=1)
    x, (no, yes) = f.args[0], (ir.IntType(1)(n) for n in (0, 1))
    numbers = [verb(I64(7), I64(2)) for verb in (build.add, build.sub, build.mul, build.udiv)]
    assert [n.text for n in numbers] == ["9", "5", "14", "3"]
    same = [build.add(I64(0), x), build.sub(x, I64(0)), build.mul(I64(1), x), build.udiv(x, I64(1))]
    same += [build.or_(x, I64(0)), build.and_(I64(-1), x), build.select(yes, x, I64(0)), build.select(no, I64(0), x)]
    assert all(value is x for value in same)
    assert build.icmp_signed("<", I64(2), I64(3)).text == "1"
    assert not build.block.lines
    assert build.sub(I64(0), x) is not x and build.icmp_unsigned("<", I64(-1), I64(3)).text == "%v2"
    build.cbranch(no, build.append_basic_block("never"), build.append_basic_block("always"))
    assert f.blocks[0].lines[-1] == "  br label %always"
