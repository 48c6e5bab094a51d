{# What data_quality is made of. Its regions are hours of a symbol; the feed as a whole is the symbol ''. #}

{# Hours in which something is new: records that came, verdicts that were made or taken back, outages that were told,
   slots that were taken or wait, and where it is told that Gold stands still, or no more. What came in runs without
   trades is found again until the next one with some (see keep_gold_books), which does no harm. #}
{% macro touched_hours() %}
  {%- do [ref('stg_trades'), ref('trades'), ref('rejected_trades'), ref('quarantine'), ref('gaps')] -%}
  {%- if execute and is_incremental() -%}
    {%- set used = last_run_used() -%}
    {%- do run_statement("create or replace table bronze.touched_" ~ model.name ~ " as
          select distinct symbol, source, hour_start from (
            select " ~ symbol_of('t') ~ " as symbol, " ~ source_of('t') ~ " as source, " ~ hour_of('t') ~ " as hour_start
            from " ~ ref('stg_trades') ~ " t where t.silver_run > " ~ used ~ "
            union all
            select " ~ symbol_of('r') ~ ", " ~ source_of('r') ~ ", " ~ hour_of('r') ~ "
            from " ~ ref('rejected_trades') ~ " r where r.silver_run > " ~ used ~ "
            union all
            select t.symbol, t.source, " ~ hour_of('t') ~ " from " ~ ref('stg_trades') ~ " t
            join (select distinct symbol, source, bucket_start from bronze.verdicts_changed where run > " ~ used ~ ") v
              on t.symbol = v.symbol and t.source = v.source and t.bucket_start = v.bucket_start
            union all
            select '', " ~ feed() ~ ", " ~ hour_of('q') ~ " from " ~ ref('quarantine') ~ " q where q.silver_run > " ~ used ~ "
            union all
            select symbol, source, hour_start from (" ~ outages('silver_run > ' ~ used) ~ ") o
            union all
            select '', " ~ feed() ~ ", " ~ archived_in('s.archive_hour') ~ " from bronze.slots s
            join bronze.ledger l on l.arrival = s.arrival where s.stream = 'trades' and l.run > " ~ used ~ "
            union all
            select '', " ~ feed() ~ ", " ~ archived_in('s.archive_hour') ~ " from bronze.slots s
            join bronze.unread u on " ~ same_slot('u') ~ " where s.stream = 'trades'
            union all
            select symbol, source, hour_start from " ~ this ~ " where gold_failing_since is not null
            union all
            select '', " ~ feed() ~ ", hour_start from (" ~ standstill() ~ ") f
          ) h where hour_start is not null") -%}
  {%- endif -%}
{% endmacro %}

{# Where a record counts. One that was rejected may lack symbol and source. #}
{% macro symbol_of(alias) %}coalesce({{ alias }}.symbol, ''){% endmacro %}
{% macro source_of(alias) %}coalesce({{ alias }}.source, {{ feed() }}){% endmacro %}
{% macro hour_of(alias) %}{{ bucket('hour', 1, alias ~ '.received_at') }}{% endmacro %}

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

{# Of the rows of an alias, those in touched hours; all of them where the model is made anew. #}
{% macro if_touched(symbol, source, hour) -%}
  {%- if is_incremental() -%}
  join bronze.touched_{{ model.name }} x on {{ symbol }} = x.symbol and {{ source }} = x.source and {{ hour }} = x.hour_start
  {%- endif -%}
{%- endmacro %}

{# The same of records, of which there are many: cutting each of their times would take longer than all the rest. #}
{% macro records_if_touched(alias, symbol=none, source=none) -%}
  {%- if is_incremental() -%}
  join bronze.touched_{{ model.name }} x
    on {{ symbol or symbol_of(alias) }} = x.symbol and {{ source or source_of(alias) }} = x.source
      and {{ alias }}.received_at >= x.hour_start and {{ alias }}.received_at < {{ dbt.dateadd('hour', 1, 'x.hour_start') }}
  {%- endif %}
  where {{ alias }}.received_at is not null and {{ since_touched(alias ~ '.received_at', by='hour_start') }}
{%- endmacro %}

{% macro touched_hour_of(alias) %}{{ 'x.hour_start' if is_incremental() else hour_of(alias) }}{% endmacro %}

{% macro same_hour(a, b) -%}
  {{ a }}.symbol = {{ b }}.symbol and {{ a }}.source = {{ b }}.source and {{ a }}.hour_start = {{ b }}.hour_start
{%- endmacro %}
