"""What is done to the syntax tree of a chat template before it is compiled."""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer

from edgellm.chat_template.work_budget import NODE


class Generation(Extension):
    """The block {% generation %}, which marks text to train on: only its scope matters here."""

    tags = {"generation"}  # noqa: RUF012 - Jinja reads it from the class

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the block's content, in a scope of its own."""
        line = next(parser.stream).lineno
        return nodes.Scope(
            parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line
        )


class Metering(NodeTransformer):
    """Puts payment into a syntax tree, wherever Jinja's own hooks see nothing."""

    def _paid(self, node: nodes.Node) -> nodes.Filter:
        return nodes.Filter(
            self.generic_visit(node), "@pay", [], [], None, None, lineno=node.lineno
        )

    def _toll(self, within: list[nodes.Node], line: int) -> nodes.Filter:
        count = sum(1 + sum(1 for _ in node.find_all(nodes.Node)) for node in within)
        return nodes.Filter(
            nodes.Const(NODE * (count + 1)), "@spend", [], [], None, None, lineno=line
        )

    def _tolled(self, node: Any) -> nodes.Node:
        toll = self._toll(node.body, node.lineno)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(toll, lineno=node.lineno))
        return node  # type: ignore[no-any-return]

    visit_Macro = visit_CallBlock = visit_Block = _tolled  # noqa: N815 - Jinja looks for these names
    visit_List = visit_Dict = _paid  # noqa: N815

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        """Take a toll for each turn, and for each test whether there is one."""
        toll = self._toll([node.test], node.lineno) if node.test else None
        self._tolled(node)
        if node.test and toll:
            node.test = nodes.And(toll, node.test, lineno=node.lineno)
        return node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        """Take pay for a tuple, unless it is names to assign to."""
        return self._paid(node) if node.ctx == "load" else self.generic_visit(node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        """Slice by a filter."""
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        ends = [end or nodes.Const(None) for end in (node.arg.start, node.arg.stop, node.arg.step)]
        return nodes.Filter(node.node, "@slice", ends, [], None, None, lineno=node.lineno)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        """Concatenate by a filter."""
        self.generic_visit(node)
        return nodes.Filter(
            nodes.List(node.nodes), "@concatenate", [], [], None, None, lineno=node.lineno
        )

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        """Compare by a filter; of a chain such as a < b < c every part is computed, which shows in errors at most."""
        self.generic_visit(node)
        rest = [part for operand in node.ops for part in (nodes.Const(operand.op), operand.expr)]
        return nodes.Filter(node.expr, "@compare", rest, [], None, None, lineno=node.lineno)
