"""Kernel graphs as text: `print_graph` writes one, `parse` reads it back equal, `same` says what equal means.

    kernel rmsnorm_tile(%0 x: In tile<32x128xf32>, %1 out: Out tile<32x128xf32>)
      %2: tile<32x128xf32> = load %0 at=entry
      %3: tile<32x128xf32> = mul %2 %2                    # rmsnorm.py:9
      %4: tile<32x1xf32>   = rowmean %3                   # rmsnorm.py:10
      ...
      store %1 %6                                         # rmsnorm.py:12

A line is a node: its number and type, the op, its operands, its static arguments as name=value, and in a comment the
user's line. Comments mean nothing to `parse`. Text may come from another process, so nothing in it is trusted: it is
read token by token, every node goes through its row's type rule, and sizes are bounded.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn

from pto_wsp.errors import IRConversionError, PtoError, SourceLine
from pto_wsp.trace.graph import KernelGraph, Node, Param, ValueType, check_node, check_params
from pto_wsp.trace.ops import OPS, Op
from pto_wsp.types import DType, Location, ScalarType, TileType

if TYPE_CHECKING:
    from pto_wsp.trace.custom import CustomBody

MOST_CHARACTERS = 1 << 26                       # of a text
MOST_NODES = 1 << 20                            # of a kernel
MOST_ELEMENTS = 1 << 31                         # of a tile
MOST_IN_TUPLE = 8                               # numbers in a static argument
COMMENT_COLUMN = 60                             # comments stand in one column, at most this far to the right

DIRECTIONS = {"in": "In", "out": "Out", "inout": "InOut"}
DTYPES = {d.value: d for d in DType}
NAMED_NUMBERS = {"inf": math.inf, "nan": math.nan, "true": True, "false": False}       # what a bare word cannot be


class GraphTextError(IRConversionError, ValueError):
    """A text is no kernel graph. `row` and `column` count from 1 and say where it stops being one."""

    def __init__(self, message: str = "", row: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.row = row
        self.column = column


# ---- equality ------------------------------------------------------------------------------------------------------

def same(a: KernelGraph, b: KernelGraph) -> bool:
    """Whether two graphs are the same program: names, parameters, and node by node op, operands, type and attributes.

    The user's lines do not count. NaN equals NaN here, and 0.0 does not equal -0.0, since a program can tell.
    """
    return _shape(a) == _shape(b)


def _shape(graph: KernelGraph) -> tuple[Any, ...]:
    """What `same` compares: the graph with numbers in place of nodes."""
    number = {id(n): i for i, n in enumerate(graph.nodes)}
    params = tuple((p.name, p.direction, number.get(id(p.node))) for p in graph.params)
    nodes = tuple((n.op.name, tuple(number.get(id(o)) for o in n.operands), n.type,
                   tuple(sorted((k, _value_text(v)) for k, v in n.attrs.items()))) for n in graph.nodes)
    return graph.name, params, nodes, graph.custom


# ---- printing ------------------------------------------------------------------------------------------------------

def print_graph(graph: KernelGraph, comments: bool = True) -> str:
    """The graph as text, with the users' lines as comments or without. Ends without a newline."""
    number: dict[int, int] = {}
    for node in [p.node for p in graph.params] + [n for n in graph.nodes if n.type is not None]:
        number.setdefault(id(node), len(number))
    handles = {id(p.node) for p in graph.params}
    rows = [_node_text(n, number) for n in graph.nodes if id(n) not in handles]
    if graph.custom is not None:
        rows.insert(0, _custom_text(graph.custom))
    width = max((len(result) for result, _, _ in rows), default=0)
    lines = [f"  {result:<{width}} = {work}" if result else f"  {work}" for result, work, _ in rows]
    column = min(max((len(line) for line in lines), default=0), COMMENT_COLUMN)
    if comments:
        places = [_line_text(place) for _, _, place in rows]
        lines = [f"{line:<{column}}   # {place}" if place else line for line, place in zip(lines, places, strict=True)]
    return "\n".join([_header(graph, number), *lines])


def _header(graph: KernelGraph, number: Mapping[int, int]) -> str:
    params = [f"%{number[id(p.node)]} {_name_text(p.name)}: "
              + (f"{DIRECTIONS[p.direction]} " if p.is_tile else "") + _type_text(p.type) for p in graph.params]
    short = f"kernel {_name_text(graph.name)}({', '.join(params)})"
    if len(short) <= 110:
        return short
    return f"kernel {_name_text(graph.name)}(\n    " + ",\n    ".join(params) + ")"


def _node_text(node: Node, number: Mapping[int, int]) -> tuple[str, str, SourceLine | None]:
    """("%3: tile<32x1xf32>", "rowmean %2", the user's line)"""
    result = "" if node.type is None else f"%{number[id(node)]}: {_type_text(node.type)}"
    operands = [f"%{number[id(o)]}" if id(o) in number else "%?" for o in node.operands]
    attrs = [f"{name}={_value_text(value)}" for name, value in node.attrs.items()]
    return result, " ".join([node.op.name, *operands, *attrs]), node.line


def _custom_text(body: CustomBody) -> tuple[str, str, SourceLine | None]:
    """("", "custom core=AIV cpp=body cpu=scale_rows", the user's line)"""
    cpp = f" cpp={body.form}" if body.cpp is not None else ""
    cpu = f" cpu={_name_text(body.function.__name__)}" if body.cpu is not None else ""
    return "", f"custom core={body.core}{cpp}{cpu}", body.line


def _line_text(line: SourceLine | None) -> str:
    return "" if line is None else re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", " ", os.path.basename(line.place))


def _type_text(type_: ValueType) -> str:
    if isinstance(type_, TileType) and type_.location is not Location.UB:
        return f"{type_}@{type_.location.value}"
    return str(type_)


def _name_text(name: str) -> str:
    return name if re.fullmatch(WORD, name) and name not in NAMED_NUMBERS else json.dumps(name)


def _value_text(value: Any) -> str:
    """A static argument: f32, 3, -0.5, inf, true, entry, "two words", (16, 128)."""
    if isinstance(value, DType):
        return value.value
    if isinstance(value, (TileType, ScalarType)):
        return _type_text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        plain = re.fullmatch(WORD, value) and value not in DTYPES and value not in NAMED_NUMBERS
        return value if plain else json.dumps(value)
    if isinstance(value, tuple):
        return f"({', '.join(_value_text(v) for v in value)})"
    raise IRConversionError(f"{value!r} ({type(value).__name__}) has no form in the text of a graph.")


# ---- reading -------------------------------------------------------------------------------------------------------

WORD = r"[^\W\d]\w*"
TOKENS = re.compile(rf"""
    (?P<newline>\n) | (?P<blank>[ \t\r]+) | (?P<comment>\#[^\n]*)
  | (?P<node>%[0-9]+)
  | (?P<tile>tile<[^>\n]*>(?:@{WORD})?)
  | (?P<number>-?(?:inf\b|[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?))
  | (?P<string>"(?:[^"\\\n]|\\.)*")
  | (?P<word>{WORD})
  | (?P<mark>[(),:=])
""", re.VERBOSE)
TILE = re.compile(rf"tile<([1-9][0-9]{{0,9}})x([1-9][0-9]{{0,9}})x({WORD})>(?:@({WORD}))?")


@dataclass(frozen=True, slots=True)
class Token:
    kind: str                                   # a group of TOKENS, or "end"
    text: str
    start: int                                  # offset in the text


def parse(text: str) -> KernelGraph:
    """The graph that a text describes. Lines of the user's code are not carried over.

    raises GraphTextError, which shows the place in the text
    """
    return _GraphReader(text).kernel()


def parse_part(text: str, begin: int, end: int) -> KernelGraph:
    """The graph that text[begin:end] describes, for the clock only: a custom kernel's has no body, C++ or Python.

    Errors show the place in the whole text.
    """
    reader = _GraphReader(text, begin, end)
    reader.bodies_matter = False
    return reader.kernel()


class Reader:
    """One pass over the tokens of text[begin:end], one ahead."""

    TOKENS = TOKENS
    TITLE = "graph text"

    def __init__(self, text: str, begin: int = 0, end: int | None = None) -> None:
        if not isinstance(text, str):
            raise GraphTextError(f"a graph is read from a str; got {type(text).__name__}.")
        if len(text) > MOST_CHARACTERS:
            raise GraphTextError(f"the text has {len(text)} characters; at most {MOST_CHARACTERS} are read.")
        self.text = text
        self.begin, self.end = begin, len(text) if end is None else end
        self.parentheses = 0
        self.tokens = self._tokens()
        self.token = next(self.tokens)

    def _tokens(self) -> Iterator[Token]:
        """Tokens without blanks and comments; line ends only outside parentheses, where they mean something."""
        position = self.begin
        while position < self.end:
            found = self.TOKENS.match(self.text, position, self.end)
            if found is None:
                self.fail(f"{self.text[position]!r} means nothing here.", Token("mark", self.text[position], position))
            kind = found.lastgroup or ""
            if kind not in ("blank", "comment") and not (kind == "newline" and self.parentheses):
                yield Token(kind, found.group(), position)
            position = found.end()
        while True:
            yield Token("end", "", self.end)

    def fail(self, why: str, token: Token | None = None) -> NoReturn:
        token = token or self.token
        row = self.text.count("\n", 0, token.start) + 1
        begin = self.text.rfind("\n", 0, token.start) + 1
        end = self.text.find("\n", begin)
        column = token.start - begin
        first = max(0, column - 80)             # of a very long line, the part around the token
        shown = self.text[begin:end if end >= 0 else len(self.text)][first:first + 160].replace("\t", " ")
        carets = "^" * max(1, min(len(token.text.rstrip("\n")), len(shown) - (column - first)))
        raise GraphTextError(f"{self.TITLE}, line {row}, column {column + 1}: {why}\n    {shown}\n"
                             f"    {' ' * (column - first)}{carets}", row, column + 1)

    # -- tokens

    def take(self) -> Token:
        token = self.token
        if token.kind == "mark":
            self.parentheses += (token.text == "(") - (token.text == ")")
        self.token = next(self.tokens)
        return token

    def expect(self, kind: str, what: str, text: str | None = None) -> Token:
        if self.token.kind != kind or (text is not None and self.token.text != text):
            got = {"end": "the end of the text", "newline": "the end of the line"}.get(self.token.kind, self.token.text)
            self.fail(f"expected {what}; got {got[:80]}.")
        return self.take()

    def mark(self, text: str) -> Token:
        return self.expect("mark", f"'{text}'", text)

    def at_mark(self, text: str) -> bool:
        return self.token.kind == "mark" and self.token.text == text

    def skip_lines(self) -> None:
        while self.token.kind == "newline":
            self.take()

    def end_of_line(self) -> None:
        if self.token.kind != "end":
            self.expect("newline", "the end of the line")

    def name(self, what: str) -> str:
        if self.token.kind == "string":
            return self.string(self.take())
        return self.expect("word", what).text

    def string(self, token: Token) -> str:
        try:
            found = json.loads(token.text)
        except ValueError as error:
            self.fail(f"not a string: {error}.", token)
        return str(found)

    def number(self, token: Token) -> int | float:
        if len(token.text) > 40:
            self.fail("this number has too many digits.", token)
        return int(token.text) if token.text.lstrip("-").isdigit() else float(token.text)


def _without_body(name: str, core: str, nodes: list[Node]) -> CustomBody:
    """A custom kernel as far as its text tells."""
    from pto_wsp.trace.custom import CustomBody

    cycles = next((n.attrs["cycles"] for n in nodes if n.op.name == "add_cycles"), None)
    return CustomBody(name, None, "", "", (), None, (), cycles, core, 0, None)


class _GraphReader(Reader):
    """The grammar of kernel graphs."""

    bodies_matter = True

    def __init__(self, text: str, begin: int = 0, end: int | None = None) -> None:
        super().__init__(text, begin, end)
        self.numbered: dict[str, Node] = {}
        self.made: set[int] = set()             # ids of the nodes so far
        self.directions: dict[int, str] = {}    # of the parameters, by id of their nodes

    def kernel(self) -> KernelGraph:
        self.skip_lines()
        start = self.expect("word", "'kernel'", "kernel")
        name = self.name("the kernel's name")
        params = self.params()
        nodes = [p.node for p in params]
        try:
            self.directions = check_params(name, params)
        except PtoError as error:
            self.fail(error.message, start)
        self.end_of_line()
        self.skip_lines()
        core = self.custom()
        while self.token.kind != "end":
            if len(nodes) >= MOST_NODES:
                self.fail(f"a kernel has at most {MOST_NODES} nodes.")
            nodes.append(self.node())
            self.end_of_line()
            self.skip_lines()
        return KernelGraph(name, params, tuple(nodes), None if core is None else _without_body(name, core, nodes))

    def custom(self) -> str | None:
        """The core that runs the body of a custom kernel; None for others."""
        if self.bodies_matter or self.token.text != "custom":
            return None
        self.take()
        given: dict[str, str] = {}
        while self.token.kind == "word":
            word = self.take().text
            self.mark("=")
            given[word] = self.name("a name")
        if given.get("core") not in ("AIV", "AIC", "MIX"):
            self.fail("a custom kernel has core=AIV, AIC or MIX.")
        self.end_of_line()
        self.skip_lines()
        return given["core"]

    def params(self) -> tuple[Param, ...]:
        self.mark("(")
        params: list[Param] = []
        while not self.at_mark(")"):
            if params:
                self.mark(",")
            params.append(self.param(len(params)))
        self.mark(")")
        return tuple(params)

    def param(self, index: int) -> Param:
        number = self.expect("node", "a parameter like '%0 x: In tile<16x128xf32>'")
        name = self.name("the parameter's name")
        self.mark(":")
        direction = "in"
        if self.token.kind == "word" and self.token.text in DIRECTIONS.values():
            word = self.take().text
            direction = next(d for d, shown in DIRECTIONS.items() if shown == word)
            if self.token.kind != "tile":
                self.fail("only tiles have a direction.")
        elif self.token.kind == "tile":
            self.fail("a tile parameter needs In, Out or InOut.")
        type_ = self.type()
        op = OPS["param" if isinstance(type_, TileType) else "scalar_param"]
        node = Node(op, (), type_, {"type": type_, "index": index})
        self.define(number, node)
        self.made.add(id(node))
        return Param(name, direction, node)

    def define(self, token: Token, node: Node) -> None:
        if token.text in self.numbered:
            self.fail(f"{token.text} is already there.", token)
        self.numbered[token.text] = node

    def type(self) -> ValueType:
        token = self.token
        if token.kind == "word" and token.text in DTYPES:
            self.take()
            return ScalarType(DTYPES[token.text])
        found = TILE.fullmatch(token.text)
        if token.kind != "tile" or found is None or found[3] not in DTYPES:
            self.fail(f"expected a type like tile<16x128xf32> or f32 (dtypes: {', '.join(DTYPES)}).")
        rows, cols, location = int(found[1]), int(found[2]), found[4]
        if rows * cols > MOST_ELEMENTS:
            self.fail(f"a tile has at most {MOST_ELEMENTS} elements.")
        if location is not None and location not in [place.value for place in Location]:
            self.fail(f"there is no location {location[:80]}.")
        self.take()
        return TileType(rows, cols, DTYPES[found[3]], Location.UB if location is None else Location(location))

    def node(self) -> Node:
        start = self.token
        number = type_ = None
        if self.token.kind == "node":
            number = self.take()
            self.mark(":")
            type_ = self.type()
            self.mark("=")
        op = self.op()
        operands = []
        while self.token.kind == "node":
            token = self.take()
            if token.text not in self.numbered:
                self.fail(f"{token.text} has not been made yet.", token)
            operands.append(self.numbered[token.text])
        node = Node(op, tuple(operands), type_, self.attrs(op))
        try:
            check_node(node, self.made, self.directions)
        except PtoError as error:
            self.fail(error.message, start)
        self.made.add(id(node))
        if number is not None:
            self.define(number, node)
        return node

    def op(self) -> Op:
        token = self.expect("word", "an op")
        if token.text == "custom":
            self.fail("the body of a custom kernel is C++ or a Python function, which this text does not hold.", token)
        if token.text not in OPS:
            close = get_close_matches(token.text[:80], OPS, 1)
            self.fail(f"there is no op {token.text[:80]}{f'; did you mean {close[0]}?' if close else '.'}", token)
        if token.text in ("param", "scalar_param"):
            self.fail("parameters stand in the kernel's first line.", token)
        return OPS[token.text]

    def attrs(self, op: Op) -> dict[str, Any]:
        attrs: dict[str, Any] = {}
        while self.token.kind == "word":
            token = self.take()
            if token.text not in op.attrs or token.text in attrs:
                self.fail(f"{op.name} takes {' and '.join(op.attrs) or 'no arguments'}, each once.", token)
            self.mark("=")
            attrs[token.text] = self.value()
        missing = [name for name in op.attrs if name not in attrs]
        if missing:
            self.fail(f"{op.name} needs {missing[0]}=...")
        return attrs

    def value(self) -> Any:
        token = self.take()
        if token.kind == "number":
            return self.number(token)
        if token.kind == "string":
            return self.string(token)
        if token.kind == "word":
            return DTYPES.get(token.text, NAMED_NUMBERS.get(token.text, token.text))
        if token.kind == "mark" and token.text == "(":
            items: list[Any] = []
            while not self.at_mark(")"):
                if items:
                    self.mark(",")
                if len(items) == MOST_IN_TUPLE:
                    self.fail(f"at most {MOST_IN_TUPLE} numbers stand here.")
                items.append(self.number(self.expect("number", "a number")))
            self.mark(")")
            return tuple(items)
        self.fail("expected a value: a number, a dtype, a word, a string or (a, b).", token)
