{# What data_quality is made of. Its regions are hours of a symbol; the feed as a whole is the symbol ''. #}

{# Hours in which something is new: records that came, outages that were told, slots that were taken or wait, and where
   it is told that Gold stands still, or no more. What came in runs without trades is found again until the next one with
   some (see keep_gold_books), which does no harm. #}
{% macro touched_hours() %}
  {%- do ref('trades') -%}{%- do ref('rejected_trades') -%}{%- do ref('quarantine') -%}{%- do ref('gaps') -%}
  {%- if execute and is_incremental() -%}
    {%- do run_query("create or replace table bronze.touched_" ~ model.name ~ " as
          select distinct symbol, source, hour_start from (
            select symbol, source, date_trunc('hour', received_at) as hour_start from " ~ ref('trades') ~ "
            where silver_run > " ~ last_run_used() ~ "
            union all
            select coalesce(symbol, ''), coalesce(source, " ~ feed() ~ "), date_trunc('hour', received_at) from " ~ ref('rejected_trades') ~ "
            where silver_run > " ~ last_run_used() ~ "
            union all
            select '', " ~ feed() ~ ", date_trunc('hour', received_at) from " ~ ref('quarantine') ~ "
            where silver_run > " ~ last_run_used() ~ "
            union all
            select symbol, source, hour_start from (" ~ outages('silver_run > ' ~ last_run_used()) ~ ") o
            union all
            select '', " ~ feed() ~ ", " ~ archived_in('s.archive_hour') ~ " from bronze.slots s
            join bronze.ledger l on " ~ same_slot('l') ~ " where s.stream = 'trades' and l.run > " ~ last_run_used() ~ "
            union all
            select '', " ~ feed() ~ ", " ~ archived_in('s.archive_hour') ~ " from bronze.slots s
            join bronze.unread u on " ~ same_slot('u') ~ " where s.stream = 'trades'
            union all
            select symbol, source, hour_start from " ~ this ~ " where gold_failing_since is not null
            union all
            select '', " ~ feed() ~ ", hour_start from (" ~ standstill() ~ ") f
          ) q where hour_start is not null") -%}
  {%- endif -%}
{% endmacro %}

{% macro same_slot(other) -%}
  {{ other }}.stream = s.stream and {{ other }}.partition = s.partition and {{ other }}.generation = s.generation and {{ other }}."start" = s."start"
{%- endmacro %}

{# Gaps, quarantine and slots name no source: all are of the one feed. #}
{% macro feed() %}'{{ var("feed") }}'{% endmacro %}

{# The outages, cut into hours, a row for each symbol that had no feed. One without a known begin or end (none of the
   feed's records so far) takes no time that could be told. #}
{% macro outages(where='true') -%}
  {%- set told = "(select symbols, last_received_at as since, first_received_at as until from " ~ ref('gaps') ~ " where kind = 'gap' and symbols <> '' and " ~ where ~ ")" -%}
  select c.symbol, {{ feed() }} as source, h.hour_start,
    greatest(h.since, h.hour_start) as since, least(h.until, {{ dbt.dateadd('hour', 1, 'h.hour_start') }}) as until
  from ({{ hours(told) }}) h
  join ({{ split_rows("(select distinct symbols from " ~ told ~ " t)", 'symbols', 'symbol') }}) c on h.symbols = c.symbols
{%- endmacro %}

{# The hours since the first of the rounds that failed, and why. The refiner says with the variable whether Gold stands
   still: while a round is made that may go well, it is not known. #}
{% macro standstill() -%}
  {%- if var('gold_stands_still', false) -%}
    {{ hours("(select began as since, " ~ dbt.dateadd('microsecond', 1, 'greatest(began, last)') ~ " as until, began, phase || ': ' || error as reason from bronze.failures)") }}
  {%- else -%}
    select cast(null as timestamptz) as hour_start, cast(null as timestamptz) as began, cast(null as varchar) as reason from {{ ref('gaps') }} where false
  {%- endif -%}
{%- endmacro %}

{# Keeps of rows those in touched hours; all of them where the model is made anew. #}
{% macro if_touched(symbol, source, hour) -%}
  {%- if is_incremental() -%}
  join bronze.touched_{{ model.name }} x on {{ symbol }} = x.symbol and {{ source }} = x.source and {{ hour }} = x.hour_start
  {%- endif -%}
{%- endmacro %}

{% macro same_hour(a, b) -%}
  {{ a }}.symbol = {{ b }}.symbol and {{ a }}.source = {{ b }}.source and {{ a }}.hour_start = {{ b }}.hour_start
{%- endmacro %}
