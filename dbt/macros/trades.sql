{# The business rule that rejects a typed row; null for a good trade. The bounds keep one absurd record
   from stopping the warehouse: a year that no calendar takes, or an amount of which a minute's sum would
   overflow. Each rule looks at nothing but the record, so that a full refresh decides alike. #}
{% macro rejected_rule() -%}
  case
    when event_time is null then 'time_missing'
    when event_time < '1970-01-01 00:00:00+00'::timestamptz or event_time >= '2200-01-01 00:00:00+00'::timestamptz then 'time_out_of_range'
    when coalesce(symbol, '') = '' then 'symbol_missing'
    when price is null then 'price_missing'
    when size is null then 'size_missing'
    when price <= 0 and not coalesce(price_update, false) then 'price_not_positive'
    when size < 0 then 'size_negative'
    when {{ amount('price', 'size') }} >= 1e16::decimal(38, 16) then 'amount_out_of_range'
  end
{%- endmacro %}

{# price x size, exact. Factors of 19 digits make a product of 38, which holds any two of 18. #}
{% macro amount(price, size) %}{{ adapter.dispatch('amount', 'tickmint')(price, size) }}{% endmacro %}
{% macro default__amount(price, size) -%}
  cast({{ price }} as decimal(19, 8)) * cast({{ size }} as decimal(19, 8))
{%- endmacro %}

{# True if the codes of a trade, grouped, let it move a field. `also` is a verdict that counts as yes here. #}
{% macro all_let(field, also=none) -%}
  {%- set yes = "'yes'" ~ (", '" ~ also ~ "'" if also else "") -%}
  {{ every(field ~ " in (" ~ yes ~ ", 'neutral')") }} and ({{ some(field ~ " in (" ~ yes ~ ")") }} or not {{ some("needs_yes") }})
{%- endmacro %}

{# Over the rows of a group: all of them, at least one. #}
{% macro every(condition) %}{{ adapter.dispatch('every', 'tickmint')(condition) }}{% endmacro %}
{% macro default__every(condition) %}bool_and({{ condition }}){% endmacro %}
{% macro some(condition) %}{{ adapter.dispatch('some', 'tickmint')(condition) }}{% endmacro %}
{% macro default__some(condition) %}bool_or({{ condition }}){% endmacro %}
