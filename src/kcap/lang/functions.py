# SPDX-License-Identifier: Apache-2.0
"""Functions of a script: ``fn name($a : type, …) : type { … }``.

A function is put in the place of each call, as a macro is; unlike a macro's, its parameters are
variables that hold values of their types, and it sees the script's maps. The BPF programs so need
no calls, which the verifier follows like the code itself anyway.
"""

from __future__ import annotations

from kcap.lang import ast
from kcap.lang.diagnostic import Diagnostics, Label

RESULT = "$return"


def as_macros(program: ast.Program, diagnostics: Diagnostics) -> ast.Program:
    """The program with a macro in the place of each function.

    :param diagnostics: gets an error for a function that returns elsewhere than at its end, or
        not what it says it returns.
    """
    if not program.subprogs:
        return program
    items: list[ast.Item] = []
    for item in program.items:
        if isinstance(item, ast.Subprog):
            items.append(_macro(item, diagnostics))
        else:
            items.append(item)
    return program.replace(items=items)


def _macro(function: ast.Subprog, diagnostics: Diagnostics) -> ast.FunctionMacro:
    """``{ let $a: type = argument; …; let $result: type = value; $result }``"""
    parameters: list[ast.Identifier | ast.Variable | ast.Map] = []
    statements: list[ast.Stmt] = []
    for parameter in function.parameters:
        variable = parameter.variable
        given = f"{variable.name} as given"  # a name that no script can write
        parameters.append(ast.Identifier(variable.span, given))
        argument = ast.Identifier(variable.span, given)
        statements.append(ast.Let(parameter.span, variable, parameter.type, argument))
    body = function.body
    result = body.value
    statements += body.statements
    if result is None and body.statements and isinstance(body.statements[-1], ast.Return):
        returned = statements.pop()
        assert isinstance(returned, ast.Return)
        result = returned.value
    _check(function, statements, result, diagnostics)
    value: ast.Expr | None = None
    if result is not None and not _is_void(function.return_type):
        kept = ast.Variable(result.span, RESULT)
        statements.append(ast.Let(result.span, kept, function.return_type, result))
        value = ast.Variable(result.span, RESULT)
    block = ast.Block(body.span, statements, value)
    return ast.FunctionMacro(function.span, function.name, parameters, block)


def _check(
    function: ast.Subprog,
    statements: list[ast.Stmt],
    result: ast.Expr | None,
    diagnostics: Diagnostics,
) -> None:
    name, type_ = function.name, function.return_type
    for statement in statements:
        for node in ast.walk(statement):
            if isinstance(node, ast.Return):
                diagnostics.error(
                    "unsupported",
                    f"the function {name.text} returns before its end, which kcap can't do",
                    node.span,
                    labels=(Label(name.span, "the function"),),
                    help=("set a variable and return it at the end",),
                )
    nothing = _is_void(type_)
    if result is not None and nothing:
        title = f"Function {name.text} is of type void, cannot return a value"
        diagnostics.error("return-type", title, result.span)
    if result is None and not nothing:
        diagnostics.error("return-type", f"Function {name.text} returns nothing", name.span)


def _is_void(type_: ast.TypeNode | None) -> bool:
    return type_ is None or (isinstance(type_, ast.NamedType) and type_.name == "void")
