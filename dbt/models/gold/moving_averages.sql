{{ config(meta={'region': 'tails', 'made': 'each_minute'}) }}
{%- set periods = [5, 20, 50] -%}
{%- do touched_tails() -%}
{%- set tail = closed_bars() -%}
{%- do note_bars_before(periods | max, tail) %}
{%- call(part) by_parts('l.bucket_start') %}
with new_bars as (
  select * from ({{ tail }}) o where {{ part }}
),

{% if is_incremental() -%}
before as (
  {{ bars_before(part) }}
),

-- As many bars before the tail as the longest window looks back.
earlier as (
  select {{ series('p') }}, p.bucket_start, p.close, p.bars, p.ema_5, p.ema_20, p.ema_50, b.bars as bars_before
  from {{ this }} p
  join before b on {{ same_series('p', 'b') }} and p.bars > b.bars - {{ periods | max }} and p.bars <= b.bars
  where {{ minutes_before('p.bucket_start') }}
),
{%- endif %}

placed as (
  select
    {{ series('n') }}, n.bucket_start, n.close, true as is_new,
    row_number() over (partition by {{ series('n') }} order by n.bucket_start) {{ '+ coalesce(b.bars, 0)' if is_incremental() }} as place,
    {% for n in periods %}cast(null as double) as ema_{{ n }}, {% endfor %}
    {{ 'coalesce(b.bars, 1)' if is_incremental() else '1' }} as first_place
  from new_bars n
  {% if is_incremental() -%}
  left join before b on {{ same_series('n', 'b') }}
  union all
  select
    {{ series() }}, bucket_start, close, false, bars,
    {% for n in periods %}case when bars = bars_before then ema_{{ n }} end, {% endfor %}
    bars_before
  from earlier
  {%- endif %}
),

means as (
  select
    *,
    place - first_place as row_in_tail,
    {% for n in periods -%}
    avg(cast(close as double)) {{ last_bars(n) }} as mean_{{ n }},
    -- The weights 1 to n are the places, less those before the window; sums of decimals are exact.
    cast(sum(cast(place as decimal(18, 0)) * close) {{ last_bars(n) }} - cast(place - {{ n }} as decimal(18, 0)) * cast(sum(close) {{ last_bars(n) }} as decimal(20, 8)) as double) / {{ n * (n + 1) // 2 }} as weighted_{{ n }},
    {% endfor -%}
    stddev_pop(cast(close as double)) {{ last_bars(20) }} as deviation_20
  from placed
),

chunked as (
  select
    *,
    {{ chunk_of('row_in_tail') }} as chunk,
    {{ place_in_chunk('row_in_tail') }} as in_chunk,
    {% for n in periods -%}
    case
      when ema_{{ n }} is not null then ema_{{ n }}
      when place < {{ n }} or not is_new then 0
      when place = {{ n }} then mean_{{ n }}
      else {{ ema_alpha(n) }} * cast(close as double)
    end as x_{{ n }}{{ ',' if not loop.last }}
    {% endfor %}
  from means
),

local as (
  select
    *,
    {% for n in periods %}{{ smoothed_in_chunk('x_%d' % n, ema_decay(n)) }} as y_{{ n }}{{ ', ' if not loop.last }}{% endfor %}
  from chunked
)

select
  {{ series('l') }},
  l.bucket_start,
  l.close,
  cast(l.place as bigint) as bars,
  {% for n in periods %}case when l.place >= {{ n }} then l.mean_{{ n }} end as sma_{{ n }},
  {% endfor -%}
  {% for n in periods %}case when l.place >= {{ n }} then {{ smoothed('y_%d' % n, ema_decay(n)) }} end as ema_{{ n }},
  {% endfor -%}
  {% for n in periods %}case when l.place >= {{ n }} then l.weighted_{{ n }} end as wma_{{ n }},
  {% endfor -%}
  case when l.place >= 20 then l.mean_20 + 2 * l.deviation_20 end as bb_upper,
  case when l.place >= 20 then l.mean_20 end as bb_middle,
  case when l.place >= 20 then l.mean_20 - 2 * l.deviation_20 end as bb_lower
from local l
{{ join_chunks_before('local') }}
where l.is_new
{%- endcall %}
