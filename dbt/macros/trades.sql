{# price x size, exact. Factors of 19 digits make a product of 38, which holds any two of 18. #}
{% macro amount(price, size) -%}
  cast({{ price }} as decimal(19, 8)) * cast({{ size }} as decimal(19, 8))
{%- endmacro %}

{# The market session of a minute, by the New York clock. A symbol with an exchange before the colon
   (BINANCE:BTCUSDT) trades round the clock. #}
{% macro market_session(symbol, minute) -%}
  case
    when {{ symbol }} like '%:%' then 'continuous'
    when {{ new_york_minute(minute) }} between 240 and 569 then 'pre'
    when {{ new_york_minute(minute) }} between 570 and 959 then 'regular'
    when {{ new_york_minute(minute) }} between 960 and 1199 then 'post'
    else 'closed'
  end
{%- endmacro %}

{# Minutes since midnight in New York. #}
{% macro new_york_minute(ts) %}{{ adapter.dispatch('new_york_minute', 'tickmint')(ts) }}{% endmacro %}
{% macro default__new_york_minute(ts) -%}
  (extract(hour from timezone('America/New_York', {{ ts }})) * 60 + extract(minute from timezone('America/New_York', {{ ts }})))
{%- endmacro %}

{# True if the codes of a trade, grouped, let it move a field. `also` is a verdict that counts as yes here. #}
{% macro all_let(field, also=none) -%}
  {%- set yes = "'yes'" ~ (", '" ~ also ~ "'" if also else "") -%}
  bool_and({{ field }} in ({{ yes }}, 'neutral')) and (bool_or({{ field }} in ({{ yes }})) or not bool_or(needs_yes))
{%- endmacro %}

{# Seconds from one instant to another, exact to the microsecond. #}
{% macro seconds_between(first, second) -%}
  cast({{ dbt.datediff('(' ~ first ~ ')', '(' ~ second ~ ')', 'microsecond') }} * cast(0.000001 as decimal(7, 6)) as decimal(18, 6))
{%- endmacro %}
