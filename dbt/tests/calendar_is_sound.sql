-- The sessions of a trading day follow one another and lie inside its trading date, also at the clock changes.
select * from {{ ref('trading_calendar') }}
where not coalesce(
  pre_open < regular_open and regular_open < regular_close and regular_close < post_close
  and trading_date = {{ trading_date("'A'", 'pre_open') }} and trading_date = {{ trading_date("'A'", 'post_close') }},
  false)
