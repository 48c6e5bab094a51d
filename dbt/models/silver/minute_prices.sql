{{ config(unique_key=['symbol', 'source', 'bucket_start'], post_hook="{{ keep_run_used() }}") }}
-- A minute with a new trade is computed again from all its trades.
{%- set judged = has_a_price_to_judge() %}
with touched as (
  select distinct symbol, source, bucket_start
  from {{ ref('stg_trades') }}
  where {{ judged }} {% if is_incremental() %}and silver_run > {{ last_run_used() }}{% endif %}
)

select
  t.symbol,
  t.source,
  t.bucket_start,
  {{ bucket('hour', 1, 't.bucket_start') }} as hour_start,
  percentile_disc(0.5) within group (order by t.price) as price,
  min(t.price) as low,
  max(t.price) as high
from (
  select symbol, source, bucket_start, price
  from {{ ref('stg_trades') }}
  where {{ judged }} {{ minutes_of_new_trades() }}
) t
join touched x on t.symbol = x.symbol and t.source = x.source and t.bucket_start = x.bucket_start
group by t.symbol, t.source, t.bucket_start
{{ by_time('t.bucket_start') }}
