{# What indicators over a series share. A series is (symbol, source, session), its bars are the closed ones with a
   price; `bars` is a bar's place in it, from 1. #}
{% macro series(alias=none) -%}
  {%- set dot = alias ~ '.' if alias else '' -%}
  {{ dot }}symbol, {{ dot }}source, {{ dot }}session
{%- endmacro %}

{% macro same_series(a, b) -%}
  {{ a }}.symbol = {{ b }}.symbol and {{ a }}.source = {{ b }}.source and {{ a }}.session = {{ b }}.session
{%- endmacro %}

{# Notes in bronze.before_<model> the last n bars before the tail of each series that has a bar in it, `going_on`: from the
   last of them recursive indicators go on, and windows look back over all. They are looked for in the last hours, and further
   back only for the series that have not so many there: of a session that has just begun, seldom traded, or new. #}
{% macro note_bars_before(n, going_on, table=none) %}
  {%- set table, mine = table or this, "bronze.before_" ~ model.name -%}
  {%- if execute and is_incremental() -%}
    {%- do run_statement("create or replace table " ~ mine ~ " as select " ~ series() ~ ", bucket_start, bars from " ~ table ~ " where false") -%}
    {%- set wanted = "select distinct " ~ series('g') ~ " from (" ~ going_on ~ ") g left join (
          select " ~ series() ~ ", min(bars) as lowest, max(bars) as highest from " ~ mine ~ " group by " ~ series() ~ "
        ) b on " ~ same_series('g', 'b') ~ " where b.lowest is null or b.lowest > greatest(b.highest - " ~ (n - 1) ~ ", 1)" -%}
    {%- set reaches = ['4 hours', '4 days', '60 days', none] -%}
    {%- set more = namespace(wanted=true) -%}
    {%- for reach in reaches -%}
      {%- set more.wanted = loop.first or (more.wanted and run_query(wanted ~ " limit 1").rows) -%}
      {%- if more.wanted -%}
        {%- set since = "p.bucket_start >= t.since - interval '" ~ reach ~ "' and " ~ since_touched('p.bucket_start', back=reach) if reach else 'true' -%}
        {%- set until = 't.since' if loop.first else "t.since - interval '" ~ loop.previtem ~ "'" -%}
        {%- do run_statement("insert into " ~ mine ~ "
              with reached as (
                select " ~ series('p') ~ ", p.bucket_start, p.bars from " ~ table ~ " p
                join bronze.touched_" ~ model.name ~ " t on p.symbol = t.symbol and p.source = t.source and p.bucket_start < " ~ until ~ "
                join (" ~ wanted ~ ") w on " ~ same_series('p', 'w') ~ "
                where " ~ since ~ "
              ),
              newest as (
                select " ~ series() ~ ", max(bars) as bars
                from (select " ~ series() ~ ", bars from reached union all select " ~ series() ~ ", bars from " ~ mine ~ ") b
                group by " ~ series() ~ "
              )
              select " ~ series('r') ~ ", r.bucket_start, r.bars from reached r join newest n on " ~ same_series('r', 'n') ~ " and r.bars > n.bars - " ~ n) -%}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{% endmacro %}

{# How many bars each of these series has before its tail. #}
{% macro bars_before(part) -%}
  select {{ series() }}, max(bars) as bars from bronze.before_{{ model.name }} o where {{ part }} group by {{ series() }}
{%- endmacro %}

{# Only the minutes of those bars, as a condition on a scan. #}
{% macro minutes_before(column) -%}
  {{ only_minutes(column, "select bucket_start from bronze.before_" ~ model.name) }}
{%- endmacro %}

{# A frame of the last n bars of a series. #}
{% macro last_bars(n) -%}
  over (partition by {{ series() }} order by bucket_start rows between {{ n - 1 }} preceding and current row)
{%- endmacro %}

{# Recursive means in closed form, since SQL has no recursion over rows that is quick. y(t) = x(t) + r y(t-1) is the
   sum of r^(t-k) x(k) over all k before; the sum is taken in chunks of 512 bars, over r^-k, which stays far from the
   limits of a double for all periods from 5 up, and what two chunks before hand on is added: the third before has a
   weight below 1e-17 up to a period of 50. Row 0 is the bar before the tail, of which x is y itself.
   https://en.wikipedia.org/wiki/Exponential_smoothing; Wilder's mean is the same with alpha = 1/n. #}
{% macro chunk_of(row) %}cast(floor({{ row }} / 512.0) as integer){% endmacro %}
{% macro place_in_chunk(row) %}({{ row }} - 512 * {{ chunk_of(row) }}){% endmacro %}

{% macro smoothed_in_chunk(x, r) -%}
  power({{ r }}, in_chunk) * sum({{ x }} * power({{ r }}, -in_chunk)) over (partition by {{ series() }}, chunk order by bucket_start rows unbounded preceding)
{%- endmacro %}

{# Expects the chunk's own part in {{ name }} of the rows, and the ends of the chunk before and of that before it as e1 and e2. #}
{% macro smoothed(name, r) -%}
  (l.{{ name }} + power({{ r }}, l.in_chunk + 1) * (coalesce(e1.{{ name }}, 0) + power({{ r }}, 512) * coalesce(e2.{{ name }}, 0)))
{%- endmacro %}

{# Joins, to the rows l of a relation, the ends of the two chunks before. #}
{% macro join_chunks_before(relation) -%}
  {%- for n in [1, 2] %}
  left join {{ relation }} e{{ n }} on {{ same_series('l', 'e' ~ n) }} and e{{ n }}.chunk = l.chunk - {{ n }} and e{{ n }}.in_chunk = 511
  {%- endfor -%}
{%- endmacro %}

{# The weight of the newest value in an EMA of n bars and in Wilder's mean, and that of all before, as literals of
   doubles: Snowflake divides decimals with few digits. #}
{% macro ema_alpha(n) %}cast({{ 2 / (n + 1) }} as double){% endmacro %}
{% macro ema_decay(n) %}cast({{ (n - 1) / (n + 1) }} as double){% endmacro %}
{% macro wilder_alpha(n) %}cast({{ 1 / n }} as double){% endmacro %}
{% macro wilder_decay(n) %}cast({{ (n - 1) / n }} as double){% endmacro %}
