-- A bar's prices lie between its low and its high, and nothing in it is negative.
select * from {{ ref('ohlc_1m') }}
where low > high or open > high or close > high or open < low or close < low or volume < 0 or notional < 0 or trades < 0
