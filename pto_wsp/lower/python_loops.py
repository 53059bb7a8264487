"""A compiler for a small part of Python: loops over arrays -> LLVM text -> machine code. It compiles the simulator's
engines (in-order, dataflow, channels) and its passes over all tasks (races, causes); sim/loops.py says when.

In: a function of ints and arrays that returns an int and calls only functions of that kind. Out: a function that takes
the same arguments and releases the GIL. The language: 64-bit ints, `if`, `while`, `for ... in range(...)`, assignments,
calls. That is enough for an engine, and it is compiled in a tenth of the time that a general compiler for Python takes.
What is not in the language is a SyntaxError that names the line. Machine code is kept in the cache on disk, beside that
of kernels, under a key made of the functions' bytecode and constants: nothing to clear after an edit.

One source, two ways to run: with PTO_WSP_PLAIN_ENGINES=1 (NUMBA_DISABLE_JIT=1 does the same) engines stay plain Python,
for breakpoints and prints; results are the same. Start reading at `compiled`.
"""

from __future__ import annotations

import ast
import ctypes
import inspect
import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np

from pto_wsp.lower import jit
from pto_wsp.lower.places import address_of

__all__ = ["SWITCHES", "compiled", "from_cache"]

SWITCHES = ("PTO_WSP_PLAIN_ENGINES", "NUMBA_DISABLE_JIT")
"""Environment variables: any of them, set to anything but 0, keeps engines plain Python."""


def compiled(function: Callable[..., int], types: Sequence[str], report: int = 0) -> Callable[..., int]:
    """`function` as machine code.

    types   of its arguments: "i64", "bool", or an array such as "i64[]", "i32[]", "u8[]": C-contiguous, one dimension.
            Arrays that are written to share no memory with others. Indices are not checked, unless:
    report  address of `void(line, a, b)`, which must not return: it is told the line of an index a outside its array
            of b elements, below 0 too, and of a division a / b without a result. For tests
    Where machine code is switched off (see above) it is the function itself.
    """
    if _disabled():
        return function
    code = jit.load(_identity(function, types, report), lambda: llvm_text(function, types, report), kind="engine")
    return _callable(code, types)


def from_cache(function: Callable[..., int], types: Sequence[str]) -> Callable[..., int] | None:
    """The same if it can be had at once, that is, when this machine has compiled it before; else None."""
    try:
        return None if _disabled() else _callable(jit.load(_identity(function, types), _refuse, kind="engine"), types)
    except _NotCached:
        return None


class _NotCached(Exception):
    pass


def _refuse() -> str:
    raise _NotCached


def _disabled() -> bool:
    return any(os.environ.get(name, "0") not in ("", "0") for name in SWITCHES)


def _callable(code: jit.Code, types: Sequence[str]) -> Callable[..., int]:
    entry = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(code.address("entry"))

    def call(*arguments: Any) -> int:
        words = [word for argument, name in zip(arguments, types, strict=True) for word in _words(argument, name)]
        given = np.array(words, np.int64)  # kept alive during the call
        return int(entry(address_of(given)))

    call.code = code  # type: ignore[attr-defined]  # the machine code lives as long as its caller
    return call


_DTYPES = {"i64[]": np.dtype(np.int64), "i32[]": np.dtype(np.int32), "u8[]": np.dtype(np.uint8)}


def _words(argument: Any, name: str) -> tuple[int, ...]:
    """An int as it is; an array as address and length."""
    if name not in _DTYPES:
        return (int(argument),)
    if argument.dtype != _DTYPES[name] or argument.ndim != 1 or not argument.flags.c_contiguous:
        got = f"{argument.dtype} of shape {argument.shape}"
        raise TypeError(f"machine code was made for a contiguous {name}; got {got}")
    return address_of(argument), argument.size


def _identity(function: Callable[..., int], types: Sequence[str], report: int = 0) -> str:
    """Text that determines the machine code: what Python compiled each function to, and the constants it names."""
    texts = []
    for part in _with_helpers(function):
        code, known = part.__code__, part.__globals__
        constants = [(name, known[name]) for name in code.co_names if isinstance(known.get(name), int)]
        texts.append(f"{code.co_code.hex()} {code.co_consts} {code.co_names} {code.co_varnames} {constants}\n")
    return f"{''.join(texts)}{list(types)}{report or ''}"


def _with_helpers(function: Callable[..., int]) -> list[Any]:
    """The function and those that it calls, directly or through others."""
    found: list[Any] = [function]
    for part in found:
        found += [helper for helper in _called(part).values() if helper not in found]
    return found


def _called(function: Any) -> dict[str, Any]:
    """The Python functions that a function calls, by name."""
    known = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    return {name: value for name, value in known.items() if isinstance(value, FunctionType)}


# ---- LLVM text


def llvm_text(function: Callable[..., int], types: Sequence[str], report: int = 0) -> str:
    """A module whose `entry(ptr words)` calls the function; the words are its arguments, an array is two of them."""
    made: dict[tuple[Any, ...], str] = {}
    texts: list[str] = []
    kinds = tuple("i64" if name == "bool" else name for name in types)
    name = _function(function, kinds, made, texts, report)
    lines, passed, at = ["define i64 @entry(ptr %words) {"], [], 0
    for kind in kinds:
        for part in range(2 if kind.endswith("[]") else 1):
            lines.append(f"  %p{at} = getelementptr i64, ptr %words, i64 {at}")
            lines.append(f"  %w{at} = load i64, ptr %p{at}")
            if kind.endswith("[]") and part == 0:
                lines.append(f"  %a{at} = inttoptr i64 %w{at} to ptr")
                passed.append(f"ptr %a{at}")
            else:
                passed.append(f"i64 %w{at}")
            at += 1
    lines += [f"  %result = call i64 @{name}({', '.join(passed)})", "  ret i64 %result", "}", ""]
    return "\n".join([*texts, *lines])


def _function(
    function: Any, kinds: tuple[str, ...], made: dict[tuple[Any, ...], str], texts: list[str], report: int
) -> str:
    """Emit a function for arguments of these kinds, unless that has been done; its name."""
    key = (function, kinds)
    if key not in made:
        made[key] = f"{function.__name__}.{len(made)}"
        texts.append(_Function(function, kinds, made, texts, report).text(made[key]))
    return made[key]


@dataclass(frozen=True)
class _Array:
    pointer: str
    length: str
    element: str  # LLVM type
    kind: str


_ELEMENTS = {"i64[]": "i64", "i32[]": "i32", "u8[]": "i8"}
_BINARY = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor",
    ast.LShift: "shl", ast.RShift: "ashr",
}  # fmt: skip
_COMPARE = {ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "slt", ast.LtE: "sle", ast.Gt: "sgt", ast.GtE: "sge"}


class _Function:
    """One function. Each variable has a place on the stack, which LLVM turns into registers."""

    def __init__(
        self, function: Any, kinds: tuple[str, ...], made: dict[tuple[Any, ...], str], texts: list[str], report: int
    ) -> None:
        self.function, self.made, self.texts, self.report = function, made, texts, report
        source = textwrap.dedent(inspect.getsource(function))
        tree: Any = ast.parse(source).body[0]
        self.body: list[Any] = tree.body
        self.first_line = function.__code__.co_firstlineno
        self.kinds = dict(zip((argument.arg for argument in tree.args.args), kinds, strict=True))
        self.arrays: dict[str, _Array] = {}
        self.head: list[str] = []
        self.lines: list[str] = []
        self.variables: set[str] = set()
        self.loops: list[tuple[str, str]] = []  # labels: continue, break
        self.count = 0

    def text(self, name: str) -> str:
        parameters = []
        for parameter, kind in self.kinds.items():
            if kind.endswith("[]"):
                self.arrays[parameter] = _Array(f"%{parameter}", f"%{parameter}.len", _ELEMENTS[kind], kind)
                parameters += [f"ptr noalias %{parameter}", f"i64 %{parameter}.len"]
            else:
                self.variable(parameter)
                self.put(f"store i64 %{parameter}, ptr %{parameter}.at")
                parameters.append(f"i64 %{parameter}")
        self.block(self.body)
        self.put("ret i64 0")
        body = "\n".join([*self.head, *self.lines])
        return f"define internal i64 @{name}({', '.join(parameters)}) {{\n{body}\n}}\n"

    # -- pieces of text

    def put(self, line: str) -> None:
        self.lines.append(f"  {line}")

    def value(self, right: str) -> str:
        self.count += 1
        self.put(f"%v{self.count} = {right}")
        return f"%v{self.count}"

    def label(self) -> str:
        self.count += 1
        return f"L{self.count}"

    def start(self, label: str) -> None:
        self.put(f"br label %{label}")
        self.lines.append(f"{label}:")

    def leave(self, terminator: str) -> None:
        """End the block; what follows can be reached by a label only."""
        self.put(terminator)
        self.lines.append(f"{self.label()}:")

    def variable(self, name: str) -> str:
        if name not in self.variables:
            self.variables.add(name)
            self.head.append(f"  %{name}.at = alloca i64")
        return f"%{name}.at"

    def error(self, node: Any, what: str) -> SyntaxError:
        line = self.first_line + node.lineno - 1
        return SyntaxError(f"{self.function.__code__.co_filename}:{line}: {what} is not in the compiled language")

    # -- statements

    def block(self, statements: list[Any]) -> None:
        for statement in statements:
            method = getattr(self, "do_" + type(statement).__name__, None)
            if method is None:
                raise self.error(statement, type(statement).__name__)
            method(statement)

    def do_Expr(self, node: Any) -> None:
        if not isinstance(node.value, ast.Constant):  # else a docstring
            self.expression(node.value)

    def do_Pass(self, node: Any) -> None:
        pass

    def do_Return(self, node: Any) -> None:
        self.leave(f"ret i64 {self.expression(node.value)}")

    def do_Break(self, node: Any) -> None:
        self.leave(f"br label %{self.loops[-1][1]}")

    def do_Continue(self, node: Any) -> None:
        self.leave(f"br label %{self.loops[-1][0]}")

    def do_Assign(self, node: Any) -> None:
        if isinstance(node.value, ast.Tuple):
            values = [self.expression(value) for value in node.value.elts]
        else:
            values = [self.expression(node.value)]
        for target in node.targets:
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            if len(parts) != len(values):
                raise self.error(node, "unpacking")
            for part, value in zip(parts, values, strict=True):
                self.store(part, value)

    def do_AugAssign(self, node: Any) -> None:
        if isinstance(node.target, ast.Name):
            place, element = self.variable(node.target.id), "i64"
        else:
            place, element = self.place(node.target)
        self.write(place, element, self.binary(node, node.op, self.read(place, element), self.expression(node.value)))

    def store(self, target: Any, value: str) -> None:
        if isinstance(target, ast.Name):
            self.put(f"store i64 {value}, ptr {self.variable(target.id)}")
        else:
            self.write(*self.place(target), value)

    def do_If(self, node: Any) -> None:
        yes, no, after = self.label(), self.label(), self.label()
        self.branch(node.test, yes, no)
        for label, body in ((yes, node.body), (no, node.orelse)):
            self.lines.append(f"{label}:")
            self.block(body)
            self.put(f"br label %{after}")
        self.lines.append(f"{after}:")

    def do_While(self, node: Any) -> None:
        head, body, after = self.label(), self.label(), self.label()
        self.start(head)
        self.branch(node.test, body, after)
        self.lines.append(f"{body}:")
        self.loops.append((head, after))
        self.block(node.body)
        self.loops.pop()
        self.put(f"br label %{head}")
        self.lines.append(f"{after}:")

    def do_For(self, node: Any) -> None:
        call = node.iter
        if not isinstance(call, ast.Call) or getattr(call.func, "id", "") != "range" or node.orelse:
            raise self.error(node, "a loop over anything but range(...)")
        given = [self.expression(argument) for argument in call.args]
        first, end, step = {1: ["0", *given, "1"], 2: [*given, "1"], 3: given}[len(given)]
        self.count += 1
        counter = self.variable(f"loop.{self.count}")
        head, body, following, after = (self.label() for _ in range(4))
        self.put(f"store i64 {first}, ptr {counter}")
        self.start(head)
        now = self.value(f"load i64, ptr {counter}")
        self.put(f"br i1 {self.value(f'icmp slt i64 {now}, {end}')}, label %{body}, label %{after}")
        self.lines.append(f"{body}:")
        self.store(node.target, now)
        self.loops.append((following, after))
        self.block(node.body)
        self.loops.pop()
        self.start(following)
        now = self.value(f"load i64, ptr {counter}")
        self.put(f"store i64 {self.value(f'add i64 {now}, {step}')}, ptr {counter}")
        self.put(f"br label %{head}")
        self.lines.append(f"{after}:")

    # -- conditions

    def branch(self, node: Any, yes: str, no: str) -> None:
        """Go on at one label or the other."""
        if isinstance(node, ast.BoolOp):
            for part in node.values[:-1]:
                following = self.label()
                if isinstance(node.op, ast.And):
                    self.branch(part, following, no)
                else:
                    self.branch(part, yes, following)
                self.lines.append(f"{following}:")
            self.branch(node.values[-1], yes, no)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self.branch(node.operand, no, yes)
        elif isinstance(node, ast.Compare):
            self.put(f"br i1 {self.compare(node)}, label %{yes}, label %{no}")
        else:
            holds = self.value(f"icmp ne i64 {self.expression(node)}, 0")
            self.put(f"br i1 {holds}, label %{yes}, label %{no}")

    def compare(self, node: Any) -> str:
        if len(node.ops) != 1 or type(node.ops[0]) not in _COMPARE:
            raise self.error(node, "this comparison")
        left, right = self.expression(node.left), self.expression(node.comparators[0])
        return self.value(f"icmp {_COMPARE[type(node.ops[0])]} i64 {left}, {right}")

    # -- expressions

    def expression(self, node: Any) -> str:
        method = getattr(self, "make_" + type(node).__name__, None)
        if method is None:
            raise self.error(node, type(node).__name__)
        return str(method(node))

    def make_Constant(self, node: Any) -> str:
        if not isinstance(node.value, int):
            raise self.error(node, repr(node.value))
        return str(int(node.value))

    def make_Name(self, node: Any) -> str:
        if node.id in self.variables:
            return self.value(f"load i64, ptr {self.variable(node.id)}")
        known = self.function.__globals__.get(node.id)
        if not isinstance(known, int):
            raise self.error(node, f"the name {node.id}, neither a variable nor a whole number,")
        return str(int(known))

    def make_Subscript(self, node: Any) -> str:
        return self.read(*self.place(node))

    def place(self, node: Any) -> tuple[str, str]:
        """Pointer to an element, and its type."""
        array = self.arrays.get(getattr(getattr(node, "value", None), "id", ""))
        if array is None:
            raise self.error(node, "this index or target")
        index = self.expression(node.slice)
        if self.report:
            self.insist(node, self.value(f"icmp ult i64 {index}, {array.length}"), index, array.length)
        return self.value(f"getelementptr {array.element}, ptr {array.pointer}, i64 {index}"), array.element

    def insist(self, node: Any, holds: str, a: str, b: str) -> None:
        """Report the line with two values unless a condition holds."""
        good, bad = self.label(), self.label()
        self.put(f"br i1 {holds}, label %{good}, label %{bad}")
        self.lines.append(f"{bad}:")
        line = self.first_line + node.lineno - 1
        self.put(f"call void inttoptr (i64 {self.report} to ptr)(i64 {line}, i64 {a}, i64 {b})")
        self.put("unreachable")
        self.lines.append(f"{good}:")

    def read(self, place: str, element: str) -> str:
        found = self.value(f"load {element}, ptr {place}")
        if element == "i64":
            return found
        return self.value(f"{'zext' if element == 'i8' else 'sext'} {element} {found} to i64")

    def write(self, place: str, element: str, value: str) -> None:
        if element != "i64":
            value = self.value(f"trunc i64 {value} to {element}")
        self.put(f"store {element} {value}, ptr {place}")

    def make_UnaryOp(self, node: Any) -> str:
        if isinstance(node.op, ast.USub):
            return self.value(f"sub i64 0, {self.expression(node.operand)}")
        if isinstance(node.op, ast.Invert):
            return self.value(f"xor i64 {self.expression(node.operand)}, -1")
        return self.chosen(node, ast.Constant(1), ast.Constant(0))

    def make_BinOp(self, node: Any) -> str:
        return self.binary(node, node.op, self.expression(node.left), self.expression(node.right))

    def binary(self, node: Any, op: Any, left: str, right: str) -> str:
        if type(op) in _BINARY:
            return self.value(f"{_BINARY[type(op)]} i64 {left}, {right}")
        if not isinstance(op, (ast.FloorDiv, ast.Mod)):
            raise self.error(node, type(op).__name__)
        if self.report:
            least = self.value(f"icmp eq i64 {left}, {-(1 << 63)}")
            beyond = self.value(f"and i1 {least}, {self.value(f'icmp eq i64 {right}, -1')}")
            wrong = self.value(f"or i1 {beyond}, {self.value(f'icmp eq i64 {right}, 0')}")
            self.insist(node, self.value(f"xor i1 {wrong}, true"), left, right)
        remainder = self.value(f"srem i64 {left}, {right}")
        signs = self.value(f"xor i64 {remainder}, {right}")
        other = self.value(f"icmp slt i64 {signs}, 0")
        some = self.value(f"icmp ne i64 {remainder}, 0")
        down = self.value(f"and i1 {other}, {some}")  # LLVM rounds towards 0, Python down
        if isinstance(op, ast.Mod):
            return self.value(f"select i1 {down}, i64 {self.value(f'add i64 {remainder}, {right}')}, i64 {remainder}")
        quotient = self.value(f"sdiv i64 {left}, {right}")
        return self.value(f"sub i64 {quotient}, {self.value(f'zext i1 {down} to i64')}")

    def make_Compare(self, node: Any) -> str:
        return self.value(f"zext i1 {self.compare(node)} to i64")

    def make_BoolOp(self, node: Any) -> str:
        if not all(isinstance(part, ast.Compare) for part in node.values):
            raise self.error(node, "and, or between values that are not comparisons, outside a condition,")
        return self.chosen(node, ast.Constant(1), ast.Constant(0))

    def make_IfExp(self, node: Any) -> str:
        return self.chosen(node.test, node.body, node.orelse)

    def chosen(self, test: Any, then: Any, orelse: Any) -> str:
        self.count += 1
        place = self.variable(f"chosen.{self.count}")
        yes, no, after = self.label(), self.label(), self.label()
        self.branch(test, yes, no)
        for label, side in ((yes, then), (no, orelse)):
            self.lines.append(f"{label}:")
            self.put(f"store i64 {self.expression(side)}, ptr {place}")
            self.put(f"br label %{after}")
        self.lines.append(f"{after}:")
        return self.value(f"load i64, ptr {place}")

    def make_Call(self, node: Any) -> str:
        name = getattr(node.func, "id", "")
        if name in ("min", "max") and len(node.args) == 2:
            first, second = (self.expression(argument) for argument in node.args)
            holds = self.value(f"icmp {'slt' if name == 'min' else 'sgt'} i64 {second}, {first}")
            return self.value(f"select i1 {holds}, i64 {second}, i64 {first}")
        if name == "len":
            return self.arrays[node.args[0].id].length
        function = self.function.__globals__.get(name)
        if not isinstance(function, FunctionType) or node.keywords:
            raise self.error(node, f"a call of {ast.unparse(node.func)}")
        passed, kinds = [], []
        for argument in node.args:
            array = self.arrays.get(getattr(argument, "id", ""))
            if array is None:
                passed.append(f"i64 {self.expression(argument)}")
                kinds.append("i64")
            else:
                passed += [f"ptr {array.pointer}", f"i64 {array.length}"]
                kinds.append(array.kind)
        callee = _function(function, tuple(kinds), self.made, self.texts, self.report)
        return self.value(f"call i64 @{callee}({', '.join(passed)})")
