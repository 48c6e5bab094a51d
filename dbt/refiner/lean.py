"""dbt, less what it does for nobody here: of each of its events it makes a message, some thousand a run, and for each
result of a query it works out anew how text would be read as a date. Both show in a profile of a run."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from dbt.adapters.sql import connections
from dbt.events.types import NodeStart
from dbt_common.clients import agate_helper
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


def make_lean() -> None:
    """From now on, in this process."""
    event_manager_client.ctx_set_event_manager(HeardEvents())
    for name in ("ConnectionUsed", "SQLQuery", "SQLQueryStatus"):
        setattr(connections, name, Unheard)
    agate_helper.build_type_tester = type_tester


build_type_tester = cache(agate_helper.build_type_tester)


def type_tester(text_columns: Iterable[str], string_null_values: Iterable[str] | None = ("null", "")) -> Any:
    """agate's types of columns, of which those by text do not change."""
    return build_type_tester(frozenset(text_columns), string_null_values and tuple(string_null_values))
