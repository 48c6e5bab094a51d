{# Bars of a width from the next finer ones: exact, as open and close are those of the first and last finer bar
   that has them, and all else adds up. Whole buckets are made anew, from the bars that lie in them. #}
{% macro coarser_bars(finer, unit, number=1) -%}
{%- do touched_buckets(unit, number) -%}
with placed as (
  select
    symbol, source, session, bucket_start as part_start, {{ bucket(unit, number) }} as bucket_start,
    open, high, low, close, volume, notional, trades
  from {{ finer }}
  where {{ since_touched('bucket_start', 'bucket_start') }}
),

bars as (
  select
    p.symbol, p.source, p.session, p.bucket_start,
    min_by(p.open, case when p.open is not null then p.part_start end) as open,
    max(p.high) as high,
    min(p.low) as low,
    max_by(p.close, case when p.close is not null then p.part_start end) as close,
    sum(p.volume) as volume,
    sum(p.notional) as notional,
    sum(p.trades) as trades
  from placed p
  {% if is_incremental() -%}
  join bronze.touched_{{ model.name }} t on p.symbol = t.symbol and p.source = t.source and p.bucket_start = t.bucket_start
  {% endif -%}
  group by p.symbol, p.source, p.session, p.bucket_start
)

select
  symbol,
  source,
  session,
  bucket_start,
  cast(open as decimal(18, 8)) as open,
  cast(high as decimal(18, 8)) as high,
  cast(low as decimal(18, 8)) as low,
  cast(close as decimal(18, 8)) as close,
  cast(volume as decimal(38, 8)) as volume,
  cast(notional as decimal(38, 16)) as notional,
  cast(trades as bigint) as trades,
  cast(notional as double) / nullif(cast(volume as double), 0) as vwap
from bars
{%- endmacro %}
