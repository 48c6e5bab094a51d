{# A row for each hour of UTC, `hour_start`, that a row of a relation touches from its column `since` on and before
   `until`; none where one of them is null or nothing lies between. #}
{% macro hours(relation) %}{{ return(adapter.dispatch('hours', 'tickmint')(relation)) }}{% endmacro %}
{% macro default__hours(relation) -%}
  {{ return("select r.*, unnest(case when r.since < r.until then generate_series(date_trunc('hour', r.since), r.until - interval '1 microsecond', interval '1 hour') else [] end) as hour_start from " ~ relation ~ " r") }}
{%- endmacro %}
{% macro snowflake__hours(relation) -%}
  {{ return("select r.*, dateadd('hour', f.value::integer, date_trunc('hour', r.since)) as hour_start from " ~ relation ~ " r, lateral flatten(input =>
    array_generate_range(0, case when r.since < r.until then datediff('hour', r.since, dateadd('microsecond', -1, r.until)) + 1 else 0 end)) f") }}
{%- endmacro %}

{# The archive hour of a slot as the hour's first instant. #}
{% macro archived_in(column) %}cast({{ column }} || ':00:00+00:00' as timestamptz){% endmacro %}
