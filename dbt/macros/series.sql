{# What indicators over a series share. A series is (symbol, source, session), its bars are the closed ones with a
   price; `bars` is a bar's place in it, from 1. #}
{% macro series(alias=none) -%}
  {%- set dot = alias ~ '.' if alias else '' -%}
  {{ dot }}symbol, {{ dot }}source, {{ dot }}session
{%- endmacro %}

{% macro same_series(a, b) -%}
  {{ a }}.symbol = {{ b }}.symbol and {{ a }}.source = {{ b }}.source and {{ a }}.session = {{ b }}.session
{%- endmacro %}

{# The last bar before the tail of each touched series: from it recursive indicators go on. The series that have a bar in
   the tail, `going_on`, are looked for in all that is older only if the last days have none of them. #}
{% macro last_before_tail(going_on, table=none) -%}
  {%- set recent = since_touched('p.bucket_start', back='4 days') -%}
  with near as (
    select {{ series('p') }}, max(p.bars) as bars
    from {{ table or this }} p
    join bronze.touched_{{ model.name }} t on p.symbol = t.symbol and p.source = t.source and p.bucket_start < t.since
    where {{ recent }}
    group by {{ series('p') }}
  ),

  far as (
    select g.symbol, g.source, g.session, t.since
    from (select distinct {{ series() }} from {{ going_on }}) g
    join bronze.touched_{{ model.name }} t on g.symbol = t.symbol and g.source = t.source
    where not exists (select 1 from near n where {{ same_series('n', 'g') }})
  )

  select {{ series() }}, bars from near
  union all
  select {{ series('p') }}, max(p.bars) as bars
  from {{ table or this }} p
  join far f on {{ same_series('p', 'f') }} and p.bucket_start < f.since
  where not {{ recent }}
  group by {{ series('p') }}
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
