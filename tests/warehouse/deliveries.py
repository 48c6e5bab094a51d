"""Ways in which the trades of a day may be delivered: for both warehouses."""

from __future__ import annotations

import os

from bronze import Bronze

#: The long form of the tests: more seeds, more points, whole days. The short one has some of each.
LONG = os.environ.get("TICKMINT_LONG") == "1"


def as_recorded(bronze: Bronze) -> None:
    pass


def shuffled_within_ten_minutes(bronze: Bronze) -> None:
    """Out of order by up to ten minutes: each trade is received so much later at most."""
    bronze.connection.execute("select setseed(0.1)")
    bronze.connection.execute("update trades set received_at = received_at + to_seconds(random() * 600)")
    in_order_of(bronze, "received_at")


def held_back_by_hours(bronze: Bronze) -> None:
    """One in twenty comes hours after its time."""
    bronze.connection.execute("select setseed(0.2)")
    bronze.connection.execute("update trades set received_at = received_at + to_hours(1 + cast(random() * 8 as integer)) where random() < 0.05")
    in_order_of(bronze, "received_at")


def with_frames_repeated(bronze: Bronze) -> None:
    """One frame in fifty comes twice: deliveries of their own, which the validator has flagged."""
    bronze.connection.execute(
        """
        insert into trades by name
        select * replace (frame + 10000000 as frame, received_at + interval 1 millisecond as received_at, true as frame_repeat)
        from trades where frame % 50 = 7
        """
    )
    in_order_of(bronze, "received_at, frame")


def in_order_of(bronze: Bronze, order: str) -> None:
    """Numbers the trades as they come."""
    bronze.connection.execute(
        f"create or replace table trades as select * replace (row_number() over (order by {order}, frame, idx) - 1 as record_offset) from trades"
    )


WAYS = {
    "as recorded": as_recorded,
    "shuffled within ten minutes": shuffled_within_ten_minutes,
    "held back by hours": held_back_by_hours,
    "frames repeated": with_frames_repeated,
    "many restarts": shuffled_within_ten_minutes,
}
