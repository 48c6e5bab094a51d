{{ config(severity='warn') }}
-- No more than a warning: the prices and sums are right, and a longer calendar makes Gold anew.
with covered as (
  select min(trading_date) as first_date, max(trading_date) as last_date from {{ ref('trading_calendar') }} where market = 'US'
),

dates as (
  select distinct {{ trading_date('symbol', 'bucket_start') }} as trading_date
  from {{ ref('ohlc_1m') }}
  where session = 'closed'
)

select dates.trading_date
from dates
cross join covered
where not coalesce(dates.trading_date between covered.first_date and covered.last_date, false)
