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

{# Whether a trade came so long after its minute that its bar may have stood already. #}
{% macro is_late(alias) -%}
  coalesce({{ microseconds_between(alias ~ '.bucket_start', alias ~ '.received_at') }} >= {{ 1000000 * (60 + var("late_grace_seconds")) }}, false)
{%- endmacro %}

{# On DuckDB `datediff` of times with a zone takes a microsecond a row. #}
{% macro microseconds_between(first, second) %}{{ return(adapter.dispatch('microseconds_between', 'tickmint')(first, second)) }}{% endmacro %}
{% macro default__microseconds_between(first, second) %}{{ return("(epoch_us(" ~ second ~ ") - epoch_us(" ~ first ~ "))") }}{% endmacro %}
{% macro snowflake__microseconds_between(first, second) %}{{ return(dbt.datediff('(' ~ first ~ ')', '(' ~ second ~ ')', 'microsecond')) }}{% endmacro %}

{# Seconds from one instant to another, exact to the microsecond. #}
{% macro seconds_between(first, second) -%}
  cast({{ microseconds_between(first, second) }} * cast(0.000001 as decimal(7, 6)) as decimal(18, 6))
{%- endmacro %}
