# SPDX-License-Identifier: Apache-2.0
"""Configuration variables of the language (bpftrace 0.27, docs/language.md, "Config Variables").

A variable is set by the script's ``config`` block or by the environment variable ``BPFTRACE_`` +
its name in upper case; the environment wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from kcap.errors import UsageError
from kcap.lang.diagnostic import Diagnostic, Diagnostics, Edit
from kcap.records import dataclass, field, fields

if TYPE_CHECKING:
    from kcap.lang import ast

StackMode = Literal["bpftrace", "perf", "raw", "build_id"]
MissingProbes = Literal["error", "warn", "ignore"]
Unstable = Literal["error", "warn", "enable"]
UserSymbolCache = Literal["PER_PID", "PER_PROGRAM", "NONE"]

PREFIX = "BPFTRACE_"

LICENSES = (
    "Dual MIT/GPL",
    "Dual BSD/GPL",
    "Dual MPL/GPL",
    "GPL and additional rights",
    "GPL v2",
    "GPL",
)

_UNSTABLE = ("error", "warn", "enable")


@dataclass(frozen=True, slots=True)
class Option:
    """What a configuration variable takes.

    :param choices: the words that it takes; () for any text, integer or boolean.
    :param minimum: the least integer.
    :param spellings: other spellings of a choice, such as ``0`` for ``NONE``.
    """

    choices: tuple[str, ...] = ()
    minimum: int = 0
    spellings: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Config:
    """The configuration that holds for a script; defaults are bpftrace's.

    ``perf_rb_pages`` 0 and ``cache_user_symbols`` None stand for "decide at run time": the former
    by the memory there is, the latter PER_PROGRAM with ``-c`` or without ASLR, else PER_PID.

    :ivar dummy_ts_map: a map that ``tseries()`` reads the time from, for tests; environment only.
    :ivar origins: who set a variable, 'environment' or 'script'; defaults are not in it.
    """

    cache_user_symbols: UserSymbolCache | None = None
    cpp_demangle: bool = True
    lazy_symbolication: bool = False
    license: str = "GPL"
    log_size: int = 1_000_000
    max_bpf_progs: int = 1024
    max_cat_bytes: int = 10240
    max_map_keys: int = 4096
    max_probes: int = 1024
    max_strlen: int = 1024
    missing_probes: MissingProbes = "error"
    on_stack_limit: int = 32
    perf_rb_pages: int = 0
    print_maps_on_exit: bool = True
    show_debug_info: bool = True
    stack_mode: StackMode = "bpftrace"
    str_trunc_trailer: str = ".."
    unstable_dw_ustack: Unstable = "warn"
    unstable_import_statement: Unstable = "enable"
    unstable_tseries: Unstable = "warn"
    unstable_typeinfo: Unstable = "enable"
    dummy_ts_map: str = ""
    origins: dict[str, str] = field(default_factory=dict, compare=False)


OPTIONS: dict[str, Option] = {
    "cache_user_symbols": Option(("PER_PID", "PER_PROGRAM", "NONE"), spellings={"0": "NONE"}),
    "cpp_demangle": Option(),
    "lazy_symbolication": Option(),
    "license": Option(LICENSES),
    "log_size": Option(minimum=1),
    "max_bpf_progs": Option(minimum=1),
    "max_cat_bytes": Option(),
    "max_map_keys": Option(minimum=1),
    "max_probes": Option(minimum=1),
    "max_strlen": Option(minimum=1),
    "missing_probes": Option(("error", "warn", "ignore")),
    "on_stack_limit": Option(),
    "perf_rb_pages": Option(minimum=1),
    "print_maps_on_exit": Option(),
    "show_debug_info": Option(),
    "stack_mode": Option(("bpftrace", "perf", "raw", "build_id")),
    "str_trunc_trailer": Option(),
    "unstable_dw_ustack": Option(_UNSTABLE),
    "unstable_import_statement": Option(_UNSTABLE),
    "unstable_tseries": Option(_UNSTABLE),
    "unstable_typeinfo": Option(_UNSTABLE),
}
"""By name. Unless ``unstable_typeinfo`` and ``unstable_import_statement`` enable them, bpftrace
refuses ``typeinfo()`` and imports in a block, of which kcap takes those of its library."""

DEPRECATED = frozenset(
    {
        "max_type_res_iterations",
        "symbol_source",
        "unstable_addr",
        "unstable_import",
        "unstable_macro",
        "unstable_map_decl",
    }
)
"""Names that scripts still have, and that mean nothing any more."""

ALIASES = {"strlen": "max_strlen", "map_keys_max": "max_map_keys", "cat_bytes_max": "max_cat_bytes"}
"""Names of earlier versions (BPFTRACE_STRLEN until 0.21 and so on)."""

ENVIRONMENT_ONLY = ("btf", "color", "kernel_build", "kernel_source", "vmlinux")

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_DEFAULTS = {item.name: item.default for item in fields(Config)}


def canonical_name(name: str) -> str:
    """The variable that ``name`` means: ``BPFTRACE_STACK_MODE``, ``STACK_MODE``, ``stack_mode``."""
    lowered = name.lower().removeprefix(PREFIX.lower())
    return ALIASES.get(lowered, lowered)


def parse_value(name: str, value: str | int | bool) -> Any:
    """``value`` as the variable ``name`` takes it.

    :param name: a key of :data:`OPTIONS`.
    :param value: as written; numbers and booleans also as text.
    :raises ValueError: with what is allowed.
    """
    option, default = OPTIONS[name], _DEFAULTS[name]
    if isinstance(default, bool):
        found = _BOOLEANS.get(str(value).lower())
        if found is None:
            raise ValueError(f"Invalid value for {name}. Need true or false.")
        return found
    if isinstance(default, int):
        return _parse_integer(name, option, value)
    text = option.spellings.get(str(value), str(value))
    if option.choices and text not in option.choices:
        choices = ", ".join(option.choices)
        raise ValueError(f"Invalid value for {name}. Found: {value}. Valid values: {choices}.")
    return text


def _parse_integer(name: str, option: Option, value: str | int | bool) -> int:
    try:
        number = int(str(value), 0) if not isinstance(value, bool) else int(value)
    except ValueError:
        raise ValueError(f"Invalid value for {name}. Need an integer.") from None
    if number < option.minimum:
        raise ValueError(f"Invalid value for {name}: {number} is less than {option.minimum}.")
    return number


def from_environment(environment: Mapping[str, str]) -> Config:
    """The defaults with what the environment sets.

    :param environment: such as ``os.environ``.
    :raises UsageError: a variable has a value that it does not take.
    """
    config = Config(dummy_ts_map=environment.get(f"{PREFIX}DUMMY_TS_MAP", ""))
    for name in (*OPTIONS, *ALIASES):
        variable = PREFIX + name.upper()
        if variable not in environment:
            continue
        known = canonical_name(name)
        try:
            setattr(config, known, parse_value(known, environment[variable]))
        except ValueError as error:
            raise UsageError(
                f"{variable}: {error}", hint=f"unset {variable} or give it a value it takes"
            ) from None
        config.origins[known] = "environment"
    return config


def apply_block(config: Config, block: ast.Config | None, diagnostics: Diagnostics) -> None:
    """Set what the script's ``config`` block says and the environment does not.

    :param config: changed in place.
    :param diagnostics: gets an error for every entry that can't be taken.
    """
    for entry in block.entries if block is not None else ():
        diagnostic = _apply_entry(config, entry)
        if diagnostic is not None:
            diagnostics.add(diagnostic)


def _apply_entry(config: Config, entry: ast.ConfigEntry) -> Diagnostic | None:
    name = canonical_name(entry.name.text)
    if name in ENVIRONMENT_ONLY:
        return Diagnostic(
            "config-environment-only",
            "error",
            f"{name} can only be set as an environment variable",
            entry.span,
            help=(f"set {PREFIX}{name.upper()} in the environment",),
        )
    if name in DEPRECATED:
        title = f"{name} is deprecated and has no effect"
        return Diagnostic("config-deleted", "warning", title, entry.span)
    if name not in OPTIONS:
        return _unknown_option(entry, name)
    from kcap.lang.ast import Identifier

    value = entry.value
    try:
        parsed = parse_value(name, value.name if isinstance(value, Identifier) else value.value)
    except ValueError as error:
        return Diagnostic("config-value", "error", str(error), entry.value.span)
    if config.origins.get(name) != "environment":
        setattr(config, name, parsed)
        config.origins[name] = "script"
    return None


def _unknown_option(entry: ast.ConfigEntry, name: str) -> Diagnostic:
    from kcap.symbols.nearest import nearest

    near = nearest(name, OPTIONS)
    return Diagnostic(
        "config-unknown",
        "error",
        f"{entry.name.text}: not a known configuration option",
        entry.span,
        help=(f"did you mean {near[0]}?",) if near else (),
        edits=(Edit(entry.name.span, near[0]),) if near else (),
    )
