"""Dynamic tables: here a table, and beside it the query that it is made of.

Snowflake refreshes one when its lag nears its target. Nothing does here, as if that never came: only `alter dynamic
table .. refresh` brings one up to date, and before it those that it is made of. So whoever reads one without that gets old
rows, and a test sees it. That Snowflake's own refresh of what has changed gives the rows of the whole query cannot be shown
here, nor its schedule, its cost, or what becomes of a dynamic table when a table under it is replaced.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CREATE = re.compile(
    r"(?is)\s*create\s+(?:or\s+replace\s+)?(?:transient\s+)?dynamic\s+table\s+(?P<name>\S+)\s+(?P<options>.*?)\s+as\s*\((?P<query>.*)\)\s*;?\s*"
)
OPTION = re.compile(r"(?i)(\w+)\s*=\s*('[^']*'|\S+)")
REFRESH = re.compile(r"(?i)\s*alter\s+dynamic\s+table\s+(\S+)\s+refresh\s*;?\s*")
DROP = re.compile(r"(?i)\s*drop\s+dynamic\s+table\s+(if\s+exists\s+)?(\S+)\s*;?\s*")
SHOW = re.compile(r"(?i)\s*show\s+dynamic\s+tables\s+like\s+'([^']+)'\s+in\s+schema\s+(\S+)\s*;?\s*")
SHOW_OBJECTS = re.compile(r"(?i)\s*show\s+objects\s+in\s+([\w.\"]+)\s+limit\s+\d+\s*;?\s*")


@dataclass(frozen=True)
class Dynamic:
    """A dynamic table as it was created. The names of the options are in small letters."""

    name: str
    query: str
    options: dict[str, str]

    def table(self) -> str:
        return f"create or replace table {self.name} as ({self.query})"

    def is_made_of(self, name: str) -> bool:
        return re.search(rf"(?i)(?<![\w.]){re.escape(name)}(?![\w.])", self.query.replace('"', "")) is not None


#: By their full names, in the order of creation.
known: dict[str, Dynamic] = {}


def read(sql: str) -> Dynamic | None:
    """What a statement that creates one says."""
    if not (found := CREATE.fullmatch(sql)):
        return None
    options = {name.lower(): value.strip("'") for name, value in OPTION.findall(found["options"])}
    return Dynamic(full_name(found["name"]), found["query"], options)


def full_name(name: str) -> str:
    return name.replace('"', "").upper()


def statements(sql: str) -> list[str] | None:
    """What is done instead of a statement about dynamic tables; None if it is about something else."""
    if made := read(sql):
        known.pop(made.name, None)
        known[made.name] = made
        return [made.table()]
    if found := REFRESH.fullmatch(sql):
        return [known[name].table() for name in chain(full_name(found[1]))]
    if found := DROP.fullmatch(sql):
        known.pop(full_name(found[2]), None)
        return [f"drop table {found[1] or ''}{found[2]}"]
    if found := SHOW.fullmatch(sql):
        return [shown(f"{full_name(found[2])}.{found[1].upper()}")]
    if found := SHOW_OBJECTS.fullmatch(sql):
        return [objects(full_name(found[1]))]
    return None


def chain(name: str) -> list[str]:
    """The dynamic table, after those that it is made of."""
    before = [other for other in known if other != name and known[name].is_made_of(other)]
    return list(dict.fromkeys([*(one for other in before for one in chain(other)), name]))


def shown(name: str) -> str:
    database, schema, table = name.split(".")
    made = known.get(name)
    told = {
        "name": table, "schema_name": schema, "database_name": database, "text": "", "cluster_by": "", "immutable_where": "",
        **{option: made.options.get(option, "") if made else "" for option in ("target_lag", "warehouse", "refresh_mode")},
    }  # fmt: skip
    columns = ", ".join(f"""'{value}' as "{column}\"""" for column, value in told.items())
    return f"select {columns} {'' if made else 'where false'}"


def objects(schema: str) -> str:
    """As fakesnow's own, which knows no dynamic ones."""
    names = ", ".join(f"'{name}'" for name in ["", *known])
    return f"""
        select table_name as "name", table_schema as "schema_name", table_catalog as "database_name",
          case table_type when 'BASE TABLE' then 'TABLE' else table_type end as "kind", 'N' as "is_iceberg",
          case when table_catalog || '.' || table_schema || '.' || table_name in ({names}) then 'Y' else 'N' end as "is_dynamic"
        from information_schema.tables where table_catalog || '.' || table_schema = '{schema}'
        """
