-- A minute that a new trade or a new verdict touches is computed again from all its trades, so a late trade
-- corrects exactly its bar.
{% do touched_buckets('minute') -%}
with touched as (
  select t.symbol, t.source, t.bucket_start, {{ market_session('t.symbol', 't.bucket_start') }} as session
  from (
    select distinct symbol, source, bucket_start from {{ 'bronze.touched_ohlc_1m' if is_incremental() else ref('trades') }}
  ) t
  {{ join_calendar('t.symbol', 't.bucket_start') }}
),

placed as (
  select
    t.symbol, t.source, x.session, t.bucket_start, t.price, t.size, t.conditions, t.price_update,
    row_number() over (
      partition by t.symbol, t.source, t.bucket_start order by t.event_time, t.session, t.frame, t.idx
    ) as place
  from {{ ref('trades') }} t
  join touched x on t.symbol = x.symbol and t.source = x.source and t.bucket_start = x.bucket_start
  {{ touched_minutes_only('t.bucket_start') }}
),

rules as (
  select unlisted, needs_yes from {{ ref('rule_tables') }} where rule_table = '{{ var("sale_conditions") }}'
),

-- What a trade may move depends on its set of codes alone, and there are few sets.
condition_sets as (
  select distinct conditions from placed where conditions <> ''
),

codes as (
  select
    s.conditions,
    coalesce(c.high_low, rules.unlisted) as high_low,
    coalesce(c.open_close, rules.unlisted) as open_close,
    coalesce(c.volume, rules.unlisted) as volume,
    rules.needs_yes
  from ({{ split_rows('condition_sets', 'conditions', 'code') }}) s
  cross join rules
  left join {{ ref('sale_conditions') }} c on c.rule_table = '{{ var("sale_conditions") }}' and c.code = s.code
),

verdicts as (
  select
    conditions,
    {{ all_let('high_low') }} as high_low,
    {{ all_let('high_low', also='extended') }} as high_low_extended,
    {{ all_let('open_close') }} as open_close,
    {{ all_let('open_close', also='extended') }} as open_close_extended,
    {{ every("volume in ('yes', 'neutral')") }} as volume
  from codes
  group by conditions
),

-- No verdict: a trade without codes, which is a regular one.
judged as (
  select
    p.symbol, p.source, p.session, p.bucket_start, p.price, p.size, p.place,
    not p.price_update and coalesce(
      case when p.session in ('pre', 'post') then v.high_low_extended else v.high_low end, not rules.needs_yes
    ) as moves_high_low,
    not p.price_update and coalesce(
      case when p.session in ('pre', 'post') then v.open_close_extended else v.open_close end, not rules.needs_yes
    ) as moves_open_close,
    not p.price_update and coalesce(v.volume, true) as moves_volume
  from placed p
  cross join rules
  left join verdicts v on p.conditions = v.conditions
),

bars as (
  select
    symbol, source, session, bucket_start,
    min_by(price, case when moves_open_close then place end) as open,
    max(case when moves_high_low then price end) as high,
    min(case when moves_high_low then price end) as low,
    max_by(price, case when moves_open_close then place end) as close,
    coalesce(sum(case when moves_volume then size end), 0) as volume,
    coalesce(sum(case when moves_volume then {{ amount('price', 'size') }} end), 0) as notional,
    count(case when moves_volume then 1 end) as trades
  from judged
  where moves_high_low or moves_open_close or moves_volume
  group by symbol, source, session, bucket_start
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
{{ by_time() }}
