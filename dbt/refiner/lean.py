"""dbt, less what it does for nobody here, or in each run anew: of each of its events it makes a message, some thousand a
run; for each result of a query it works out how text would be read as a date; it compiles the templates of all models that it
runs, and looks for plugins among all of Python's modules. Each shows in a profile of a run."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from functools import cache
from types import CodeType
from typing import Any

from dbt.adapters.sql import connections
from dbt.events.types import NodeStart
from dbt.plugins.manager import PluginManager
from dbt_common.clients import agate_helper
from dbt_common.clients.jinja import MacroFuzzEnvironment
from dbt_common.events import event_manager_client
from dbt_common.events.base_types import BaseEvent, EventLevel
from dbt_common.events.event_manager import EventManager


class Unheard:
    """Stands in for the three events of each statement, which are messages before anybody can say that he does not listen."""

    def __init__(self, **_: Any) -> None: ...


class HeardEvents(EventManager):
    """Lets through the begin of each node, which a run's phase is told by, and all that is no detail for debugging."""

    def fire_event(self, e: BaseEvent | Unheard, level: EventLevel | None = None, *more: Any, **named: Any) -> None:
        if isinstance(e, Unheard):
            return
        if isinstance(e, NodeStart) or (level or e.level_tag()) != EventLevel.DEBUG:
            super().fire_event(e, level, *more, **named)


#: New objects after which Python's collector looks for cycles among the youngest. A run makes some 100,000.
YOUNG = 10_000


def make_lean() -> None:
    """From now on, in this process."""
    event_manager_client.ctx_set_event_manager(HeardEvents())
    for name in ("ConnectionUsed", "SQLQuery", "SQLQueryStatus"):
        setattr(connections, name, Unheard)
    agate_helper.build_type_tester = type_tester
    agate_helper.empty_table = empty_table
    MacroFuzzEnvironment.compile = compile_once
    PluginManager.get_prefixed_modules = staticmethod(plugins)


# Here, not in `make_lean`: a second call would hold the one in the other.
build_type_tester = cache(agate_helper.build_type_tester)
empty_table = cache(agate_helper.empty_table)
plugins = cache(PluginManager.get_prefixed_modules)


def settle() -> None:
    """Has Python's collector leave out all that stands now, a parsed project above all: going through it takes 0.2 s, which
    falls into about every run that is not a small one. To be called again when another project stands in its place."""
    gc.set_threshold(YOUNG)
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def type_tester(text_columns: Iterable[str], string_null_values: Iterable[str] | None = ("null", "")) -> Any:
    """agate's types of columns, of which those by text do not change."""
    return build_type_tester(frozenset(text_columns), string_null_values and tuple(string_null_values))


compile_template = MacroFuzzEnvironment.compile
compiled: dict[tuple[type, str], CodeType] = {}


def compile_once(self: MacroFuzzEnvironment, source: str) -> CodeType:
    """A template's code, which depends on nothing but its text and the kind of environment: dbt makes those of a kind alike."""
    of = (type(self), source)
    if of not in compiled:
        compiled[of] = compile_template(self, source)
    return compiled[of]
