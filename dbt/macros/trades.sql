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
{# Seconds from one instant to another, exact to the microsecond. #}
{% macro seconds_between(first, second) -%}
  cast({{ dbt.datediff('(' ~ first ~ ')', '(' ~ second ~ ')', 'microsecond') }} * cast(0.000001 as decimal(7, 6)) as decimal(18, 6))
{%- endmacro %}
