# SPDX-License-Identifier: Apache-2.0
"""Reads of map elements that an earlier read of the same program has looked up already.

``/@start[tid]/ { @ = hist(nsecs - @start[tid]); delete(@start, tid); }`` names an element twice,
and wants one value of it. A read takes the value of an earlier one that was surely evaluated, if
the keys are surely the same and no statement in between can have changed the map. (Another CPU
can; but then nobody can tell which of the two came first.)
"""

from __future__ import annotations

from kcap.codegen import rewriting
from kcap.sema import tree


def repeated_reads(program: tree.Program) -> dict[tree.MapRead, tree.MapRead]:
    """Each read that may take the value of an earlier one, with that."""
    walk = _Walk()
    known: list[tree.MapRead] = []
    if program.predicate is not None:
        walk.expression(program.predicate, known, True)
    walk.block(program.body, known, True)
    return walk.found


class _Walk:
    """Goes through a program in the order in which it runs.

    Its methods are given the reads whose values are known, which they change; and whether what
    they look at is surely evaluated, so that what follows may rely on it.
    """

    def __init__(self) -> None:
        self.found: dict[tree.MapRead, tree.MapRead] = {}

    def block(self, body: list[tree.Stmt], known: list[tree.MapRead], sure: bool) -> None:
        for statement in body:
            self._statement(statement, known, sure)

    def _statement(self, statement: tree.Stmt, known: list[tree.MapRead], sure: bool) -> None:
        match statement:
            case tree.ExprStmt():
                self.expression(statement.expr, known, sure)
            case tree.AssignVariable() | tree.Return():
                if statement.value is not None:
                    self.expression(statement.value, known, sure)
            case tree.AssignMap() | tree.UpdateAggregate():
                value = statement.value if isinstance(statement, tree.AssignMap) else statement.call
                if statement.key is not None:
                    self.expression(statement.key, known, sure)
                self.expression(value, known, sure)
                _forget(known, statement.map)
            case tree.If():
                self.expression(statement.condition, known, sure)
                branches = [*known], [*known]
                self.block(statement.then, branches[0], True)
                self.block(statement.otherwise, branches[1], True)
                known[:] = [read for read in known if all(read in branch for branch in branches)]
            case _:
                known.clear()  # a loop: its body may run after what it changes

    def expression(self, expr: tree.Expr, known: list[tree.MapRead], sure: bool) -> None:
        """Look at an expression and its parts."""
        match expr:
            case tree.MapRead():
                self._read(expr, known, sure)
            case tree.Logical():
                self.expression(expr.left, known, sure)
                self.expression(expr.right, known, False)
            case tree.Ternary():
                self.expression(expr.condition, known, sure)
                self.expression(expr.then, known, False)
                self.expression(expr.otherwise, known, False)
            case tree.IncDec():
                if isinstance(expr.target, tree.MapRead):
                    _forget(known, expr.target.map)
            case tree.BlockExpr():
                self.block(expr.body, known, sure)
                if expr.result is not None:
                    self.expression(expr.result, known, sure)
            case tree.Call():
                for argument in expr.args:
                    self.expression(argument, known, False)
                if isinstance(expr.data, tree.Map):
                    _forget(known, expr.data)
            case _:
                for name in type(expr)._fields:
                    part = getattr(expr, name)
                    for each in part if isinstance(part, list) else [part]:
                        if isinstance(each, tree.Expr):
                            self.expression(each, known, sure)

    def _read(self, expr: tree.MapRead, known: list[tree.MapRead], sure: bool) -> None:
        if expr.key is not None:
            self.expression(expr.key, known, sure)
        if not expr.type.is_scalar or not rewriting.is_constant(expr.key):
            return
        for earlier in known:
            if earlier.map is expr.map and rewriting.same(earlier.key, expr.key):
                self.found[expr] = earlier
                return
        if sure:
            known.append(expr)


def _forget(known: list[tree.MapRead], map_: tree.Map) -> None:
    known[:] = [read for read in known if read.map is not map_]
