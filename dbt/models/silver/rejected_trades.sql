{{ config(
  unique_key=['session', 'frame', 'idx'],
  merge_clauses={'when_matched': [{'action': 'do_nothing'}], 'when_not_matched': [{'action': 'insert', 'mode': 'by_name'}]},
  pre_hook="{{ forget_verdicts() }}",
  post_hook="{{ keep_verdicts() }}"
) }}
-- Rules on the record alone are decided once; the price band for all trades of the minutes that are to be judged.
{%- set rule = rejected_rule() %}
{%- do judge_minutes() %}
{#- Mostly none. #}
{%- set minutes_out_of_band = "select bucket_start from bronze.pending_" ~ model.name ~ " where " ~ out_of_band('high', 'reference') ~ " or " ~ out_of_band('low', 'reference') %}
with rejected as (
  select *, {{ rule }} as rule
  from {{ ref('stg_trades') }}
  where {{ rule }} is not null {% if is_incremental() %}and silver_run > {{ last_run_used() }}{% endif %}
  union all
  select t.*, 'price_out_of_band' as rule
  from (
    select * from {{ ref('stg_trades') }}
    where {{ has_a_price_to_judge() }} and {{ only_minutes('bucket_start', minutes_out_of_band) }}
  ) t
  join {{ 'bronze.pending_' ~ model.name if execute else ref('minute_prices') }} p
    on t.symbol = p.symbol and t.source = p.source and t.bucket_start = p.bucket_start
  where {{ out_of_band('t.price', 'p.reference') }}
)

select
  session,
  frame,
  idx,
  seq,
  source,
  symbol,
  price,
  size,
  event_time,
  bucket_start,
  received_at,
  conditions,
  rule,
  cast({{ current_run() }} as bigint) as silver_run
from rejected
