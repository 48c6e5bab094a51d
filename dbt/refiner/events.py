"""dbt's events, less those that nobody hears: it makes a message of each, some thousand a run, which is a seventh of what
a run costs."""

from __future__ import annotations

from typing import Any

from dbt.events.types import NodeStart
from dbt_common.events import event_manager_client
from dbt_common.events.base_types import BaseEvent, EventLevel
from dbt_common.events.event_manager import EventManager


class HeardEvents(EventManager):
    """Lets through the begin of each node, which a run's phase is told by, and all that is no detail for debugging."""

    def fire_event(self, e: BaseEvent, level: EventLevel | None = None, *more: Any, **named: Any) -> None:
        if isinstance(e, NodeStart) or (level or e.level_tag()) != EventLevel.DEBUG:
            super().fire_event(e, level, *more, **named)


def hear() -> None:
    """From now on, in this process."""
    event_manager_client.ctx_set_event_manager(HeardEvents())
