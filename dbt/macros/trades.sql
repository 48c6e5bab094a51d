{# What makes a typed row a rejected trade; null for a good one. #}
{% macro rejected_rule() -%}
  case
    when price <= 0 and not price_update then 'price_not_positive'
    when size < 0 then 'size_negative'
    when event_time is null then 'time_missing'
  end
{%- endmacro %}

{# The market session of a trade, by the New York clock of its event time. A symbol with an exchange
   before the colon (BINANCE:BTCUSDT) trades round the clock. #}
{% macro market_session(symbol, event_time) -%}
  case
    when {{ symbol }} like '%:%' then 'continuous'
    when {{ minute_of_day(event_time) }} >= 240 and {{ minute_of_day(event_time) }} < 570 then 'pre'
    when {{ minute_of_day(event_time) }} >= 570 and {{ minute_of_day(event_time) }} < 960 then 'regular'
    when {{ minute_of_day(event_time) }} >= 960 and {{ minute_of_day(event_time) }} < 1200 then 'post'
    else 'closed'
  end
{%- endmacro %}

{% macro minute_of_day(ts) %}{{ adapter.dispatch('minute_of_day', 'tickmint')(ts) }}{% endmacro %}
{% macro default__minute_of_day(ts) -%}
  (extract(hour from timezone('America/New_York', {{ ts }})) * 60 + extract(minute from timezone('America/New_York', {{ ts }})))
{%- endmacro %}
