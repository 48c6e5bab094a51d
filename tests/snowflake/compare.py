"""The tables of both warehouses, row by row."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Ratios may differ by so much, relative: the order of a sum of doubles is nobody's promise.
TOLERANCE = 1e-9

Row = tuple[Any, ...]


def models(manifest: Any) -> list[Any]:
    """All models, in order: one that is new is compared by itself."""
    return sorted((node for node in manifest.nodes.values() if node.resource_type == "model"), key=lambda node: (node.schema, node.alias))


def query(node: Any, columns: list[str]) -> str:
    return f"select {', '.join(columns)} from {node.schema}.{node.alias}"


def plain(value: Any) -> Any:
    """Times as microseconds; everything else is compared as it is."""
    return (value - EPOCH) // timedelta(microseconds=1) if isinstance(value, datetime) else value


def sort_key(row: Row) -> tuple[tuple[bool, str], ...]:
    return tuple((value is None, str(value)) for value in row if not isinstance(value, float))


def differences(name: str, left: list[Row], right: list[Row]) -> list[str]:
    """What is not the same, in words; at most a few of them."""
    if len(left) != len(right):
        return [f"{name}: {len(left)} rows and {len(right)}"]
    pairs = zip(sorted(left, key=sort_key), sorted(right, key=sort_key), strict=True)
    return [f"{name}: {a} and {b}" for a, b in pairs if not same_row(a, b)][:3]


def same_row(left: Row, right: Row) -> bool:
    return all(same(a, b) for a, b in zip(left, right, strict=True))


def same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=TOLERANCE, abs_tol=1e-12)
    return left == right and isinstance(left, bool) == isinstance(right, bool)
