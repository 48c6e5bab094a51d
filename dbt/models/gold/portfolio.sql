{{ config(
  materialized='table',
  meta={'key': ['account', 'symbol', 'trading_date'], 'published_by': 'trading_date', 'published_per': 'all'},
  post_hook="update bronze.positions set used = content"
) }}
-- Positions are of the user's file, see refiner/positions.py: each fill stands in bronze.fills with what the account has after it.
{%- set account, position = 'account, currency', 'account, symbol' %}
with fills as (
  select *, {{ trading_date('symbol', 'executed_at') }} as trading_date from {{ source('bronze', 'fills') }}
),

positions as (
  select account, symbol, min(currency) as currency, min(trading_date) as first_date from fills group by account, symbol
),

closes as (
  select
    o.symbol, cast(o.bucket_start as date) as trading_date, o.source, o.close,
    o.session in ('regular', 'continuous') as is_main,
    case o.session when 'post' then 3 when 'pre' then 1 when 'closed' then 0 else 2 end as place
  from {{ ref('ohlc_1d') }} o
  -- A suspect time dates no price after the newest one that is none.
  join ({{ newest_times() }}) w on o.source = w.source and cast(o.bucket_start as date) <= {{ trading_date('o.symbol', 'w.watermark') }}
  where o.close is not null
),

-- A price a date, of the main session and of any.
prices as (
  select symbol, trading_date, close, is_main
  from closes
  qualify row_number() over (partition by symbol, trading_date, is_main order by place desc, source) = 1
),

dates as (
  select trading_date from closes
  union
  select trading_date from fills
),

-- Which date's price holds on a date: of the main session as soon as there is one, else of any.
priced as (
  select
    s.symbol, d.trading_date,
    max(m.trading_date) over (partition by s.symbol order by d.trading_date rows unbounded preceding) as main_date,
    max(o.trading_date) over (partition by s.symbol order by d.trading_date rows unbounded preceding) as other_date
  from (select distinct symbol from positions) s
  cross join dates d
  left join prices m on s.symbol = m.symbol and d.trading_date = m.trading_date and m.is_main
  left join prices o on s.symbol = o.symbol and d.trading_date = o.trading_date and not o.is_main
),

-- The last fill of a position on a date, or before.
held as (
  select
    p.account, p.symbol, p.currency, d.trading_date,
    max(f.place) over (partition by p.account, p.symbol order by d.trading_date rows unbounded preceding) as place
  from positions p
  join dates d on d.trading_date >= p.first_date
  left join (select {{ position }}, trading_date, max(place) as place from fills group by {{ position }}, trading_date) f
    on p.account = f.account and p.symbol = f.symbol and d.trading_date = f.trading_date
),

valued as (
  select
    h.account, h.symbol, h.currency, h.trading_date,
    f.held as quantity, f.average_cost, f.cost, f.realized_pnl,
    x.close as last_price, x.trading_date as price_date,
    case
      when f.held = 0 then cast(0 as decimal(38, 8))
      else cast({{ amount('f.held', 'x.close') }} as decimal(38, 8))
    end as market_value
  from held h
  join fills f on h.place = f.place
  join priced p on h.symbol = p.symbol and h.trading_date = p.trading_date
  left join prices x
    on p.symbol = x.symbol and x.trading_date = coalesce(p.main_date, p.other_date) and x.is_main = (p.main_date is not null)
),

accounts as (
  select
    {{ account }}, trading_date,
    sum(coalesce(market_value, 0)) as market_value,
    sum(abs(market_value)) as gross,
    sum(realized_pnl + coalesce(market_value - cost, 0)) as pnl,
    count(*) - count(market_value) as unpriced
  from valued
  group by {{ account }}, trading_date
),

-- Before its first fill an account had neither gained nor lost.
peaks as (
  select
    *, greatest(0, max(pnl) over (partition by {{ account }} order by trading_date rows unbounded preceding)) - pnl as drawdown
  from accounts
),

drawdowns as (
  select *, max(drawdown) over (partition by {{ account }} order by trading_date rows unbounded preceding) as max_drawdown from peaks
)

select
  v.account,
  v.symbol,
  v.trading_date,
  nullif(v.currency, '') as currency,
  v.quantity,
  v.average_cost,
  v.cost,
  v.last_price,
  v.price_date,
  v.market_value,
  v.realized_pnl,
  cast(v.market_value - v.cost as decimal(38, 8)) as unrealized_pnl,
  cast(v.realized_pnl + v.market_value - v.cost as decimal(38, 8)) as total_pnl,
  cast(v.market_value as double) / nullif(cast(a.gross as double), 0) as exposure,
  cast(a.market_value as decimal(38, 8)) as account_market_value,
  cast(a.pnl as decimal(38, 8)) as account_pnl,
  cast(a.unpriced as bigint) as account_unpriced,
  cast(a.drawdown as decimal(38, 8)) as drawdown,
  cast(a.max_drawdown as decimal(38, 8)) as max_drawdown
from valued v
join drawdowns a on v.account = a.account and v.currency = a.currency and v.trading_date = a.trading_date
