{{ config(materialized='table', meta={
  'key': ['symbol', 'source'], 'region': ['symbol', 'source'], 'published_by': 'trading_date', 'published_per': 'all'
}) }}
-- A row a symbol: small, so it is made whole each time. No price and no date is later than the newest event time, as
-- those by a suspect time may be. What adds up over a day is that of ohlc_1d.
{%- set times = newest_times() -%}
{%- set is_newest = "cast(d.bucket_start as date) <= " ~ trading_date('d.symbol', 'w.watermark') -%}
{%- set since = literal("select coalesce(min(m.d), '1970-01-01 00:00:00+00'::timestamptz) from (select max(d.bucket_start) as d from "
    ~ ref('ohlc_1d') ~ " d join (" ~ times ~ ") w on d.source = w.source and " ~ is_newest ~ " group by d.symbol, d.source) m") %}
{%- set last_bars -%}
  select o.symbol, o.source, max_by(o.close, case when o.close is not null then o.bucket_start end) as last_price, max(o.bucket_start) as last_minute
  from {{ ref('ohlc_1m') }} o
  join (
    select d.symbol, d.source, max(d.bucket_start) as newest, max(w.watermark) as watermark
    from {{ ref('ohlc_1d') }} d join ({{ times }}) w on d.source = w.source and {{ is_newest }} group by d.symbol, d.source
  ) s on o.symbol = s.symbol and o.source = s.source and {{ trading_date('o.symbol', 'o.bucket_start') }} = cast(s.newest as date)
  where o.bucket_start <= s.watermark and o.bucket_start >= {{ since }}
  group by o.symbol, o.source
{%- endset %}
with times as (
  {{ times }}
),

days as (
  select
    d.symbol, d.source, d.bucket_start as trading_date, d.session, d.open, d.high, d.low, d.close, d.volume, d.notional, d.trades,
    max(d.bucket_start) over (partition by d.symbol, d.source) as newest
  from {{ ref('ohlc_1d') }} d
  join times w on d.source = w.source and {{ is_newest }}
),

sums as (
  select symbol, source, newest, sum(volume) as volume, sum(notional) as notional, sum(trades) as trades
  from days where trading_date = newest group by symbol, source, newest
),

-- The main session of the newest date, and the last close of one before it.
main as (
  select
    symbol, source,
    max(case when trading_date = newest then open end) as open,
    max(case when trading_date = newest then high end) as high,
    max(case when trading_date = newest then low end) as low,
    max_by(close, case when trading_date < newest and close is not null then trading_date end) as previous_close
  from days
  where session in ('regular', 'continuous')
  group by symbol, source
),

last_bars as (
  {{ last_bars }}
),

last_trades as (
  select t.symbol, t.source, max(t.event_time) as last_trade_at
  from {{ ref('trades') }} t
  join last_bars b on t.symbol = b.symbol and t.source = b.source and t.bucket_start = b.last_minute
  join times w on t.source = w.source and t.event_time <= w.watermark
  where not t.price_update and {{ only_minutes('t.bucket_start', last_bars, by='last_minute') }}
  group by t.symbol, t.source
),

states as (
  select
    s.symbol, s.source, cast(s.newest as date) as trading_date, b.last_price, t.last_trade_at, w.watermark,
    m.previous_close, b.last_price - m.previous_close as change,
    cast(b.last_price as double) / nullif(cast(m.previous_close as double), 0) - 1 as change_ratio,
    m.open, m.high, m.low, s.volume, s.notional, s.trades
  from sums s
  left join last_bars b on s.symbol = b.symbol and s.source = b.source
  left join last_trades t on s.symbol = t.symbol and s.source = t.source
  left join main m on s.symbol = m.symbol and s.source = m.source
  join times w on s.source = w.source
)

select
  symbol,
  source,
  trading_date,
  last_price,
  last_trade_at,
  cast({{ seconds_between('last_trade_at', 'watermark') }} as double) as last_trade_age_seconds,
  previous_close,
  cast(change as decimal(18, 8)) as change,
  change_ratio,
  open,
  high,
  low,
  cast(volume as decimal(38, 8)) as volume,
  cast(notional as decimal(38, 16)) as notional,
  cast(trades as bigint) as trades,
  cast(notional as double) / nullif(cast(volume as double), 0) as vwap,
  case when change_ratio is not null then cast(rank() over (partition by source order by change_ratio desc nulls last) as bigint) end as rank_change,
  cast(rank() over (partition by source order by notional desc) as bigint) as rank_notional,
  cast(sum(case when change > 0 then 1 else 0 end) over (partition by source) as bigint) as advancers,
  cast(sum(case when change < 0 then 1 else 0 end) over (partition by source) as bigint) as decliners,
  cast(sum(case when change = 0 then 1 else 0 end) over (partition by source) as bigint) as unchanged
from states
