{# Names the minutes that a query gives to the scan of Silver, as a condition, so that it skips all others: a join alone
   would read everything between the oldest and the newest of them, which one late trade makes long. They are named as
   stretches that lie more than an hour apart, and by the holes between these: DuckDB skips blocks by holes, and not by
   stretches joined with `or` nor by a list of more than a few values; the stretches then sort out rows. Many stretches
   are one, from the first minute to the last, and of no minutes nothing is read. #}
{% macro only_minutes(column, query, by='bucket_start') -%}
  {%- set stretches = run_query("
    select cast(min(minute) as varchar), cast(max(minute) as varchar)
    from (
      select minute, sum(case when minute <= before + interval '1 hour' then 0 else 1 end) over (order by minute rows unbounded preceding) as stretch
      from (
        select minute, lag(minute) over (order by minute) as before
        from (select distinct " ~ by ~ " as minute from (" ~ query ~ ") q where " ~ by ~ " is not null) d
      ) m
    ) s
    group by stretch order by stretch").rows | list if execute else [] -%}
  {%- if not stretches -%} false
  {%- else -%}
    ({{ column }} >= '{{ stretches[0][0] }}'::timestamptz and {{ column }} <= '{{ stretches[-1][1] }}'::timestamptz
    {%- if stretches | length in range(2, 17) %}
      {%- for n in range(1, stretches | length) %}
      and ({{ column }} <= '{{ stretches[n - 1][1] }}'::timestamptz or {{ column }} >= '{{ stretches[n][0] }}'::timestamptz)
      {%- endfor %}
      and (
      {%- for first, last in stretches -%}
        {{ ' or ' if not loop.first }}({{ column }} >= '{{ first }}'::timestamptz and {{ column }} <= '{{ last }}'::timestamptz)
      {%- endfor -%}
      )
    {%- endif -%})
  {%- endif -%}
{%- endmacro %}

{% macro touched_minutes_only(column) %}
  {%- if is_incremental() -%}
    where {{ only_minutes(column, "select bucket_start from bronze.touched_" ~ model.name) }}
  {%- endif -%}
{% endmacro %}

{# The same for a model that reads what no verdict was made on yet. #}
{% macro minutes_of_new_trades() %}
  {%- if execute and is_incremental() -%}
    and {{ only_minutes('bucket_start', "select bucket_start from " ~ ref('stg_trades') ~ " where bucket_start is not null and silver_run > " ~ last_run_used()) }}
  {%- endif -%}
{% endmacro %}

{# The minutes, by symbol and source, of which Gold does not know all: trades have come, or verdicts have changed, in
   runs after the last one that it used. #}
{% macro new_minutes() -%}
  {%- set used = last_run_used() -%}
  select symbol, source, bucket_start from {{ ref('trades') }} where silver_run > {{ used }} and not price_update
  union
  select symbol, source, bucket_start from bronze.verdicts_changed where run > {{ used }}
{%- endmacro %}

{# A row for each of the codes that stand in a column, separated by commas. #}
{% macro split_rows(relation, column, name) %}{{ return(adapter.dispatch('split_rows', 'tickmint')(relation, column, name)) }}{% endmacro %}
{% macro default__split_rows(relation, column, name) -%}
  {{ return("select " ~ column ~ ", unnest(string_split(" ~ column ~ ", ',')) as " ~ name ~ " from " ~ relation) }}
{%- endmacro %}

{# The bucket of a width that a time since 1970 lies in, cut in UTC; for `date`, the trading date at 00:00 UTC. DuckDB's own
   cutting of a time with a zone takes ten to thirty times as long. #}
{% macro bucket(unit, number, of='bucket_start') -%}
  {%- if unit == 'date' -%}date_trunc('day', {{ market_time('symbol', of) }})
  {%- else -%}{{ adapter.dispatch('bucket', 'tickmint')(unit, number, of) }}{%- endif -%}
{%- endmacro %}
{% macro default__bucket(unit, number, of) -%}
  {%- set width = number * {'minute': 60000000, 'hour': 3600000000}[unit] -%}
  make_timestamptz(epoch_us({{ of }}) // {{ width }} * {{ width }})
{%- endmacro %}

{# Of a table that is made whole: by time, as the runs add to it. Its blocks then hold stretches of time, of which a run
   reads the last. #}
{% macro by_time(column='bucket_start') -%}
  {%- if not is_incremental() -%} order by {{ column }} {%- endif -%}
{%- endmacro %}
