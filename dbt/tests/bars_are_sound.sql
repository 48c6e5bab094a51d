-- A bar's prices lie between its low and its high, and its sums belong to its trades.
select * from {{ ref('ohlc_1m') }}
where low > high or open > high or close > high or open < low or close < low
  or volume < 0 or notional < 0 or trades < 0
  or (trades = 0 and volume <> 0)
  or (trades = 0 and high is null)
  or bucket_start <> date_trunc('minute', bucket_start)
