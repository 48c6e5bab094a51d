{# Gold is made anew where new trades, or new verdicts on old ones, touch it, and nowhere else. A model names
   what is touched in a table, bronze.touched_<model>, before it runs; its strategy `replace` takes out of it what
   lies there and puts in what the model gives. Regions come in two shapes (meta `region`):
   - buckets: bars are functions of their own trades, so exactly their buckets (symbol, source, bucket_start);
   - tails: an indicator looks back, some of them (EMA, OBV) without end, so all of a series from the first bar
     that changed or closed on: (symbol, source, since).
   The run whose trades were used is kept by the model's own transaction (bronze.runs_used). #}

{# Buckets of a width in which new trades lie. `unit` is minute, hour or date. #}
{% macro touched_buckets(unit, number=1) %}
  {%- do ref('trades') -%}
  {%- if execute and is_incremental() -%}
    {%- do run_statement("create or replace table bronze.touched_" ~ model.name ~ " as
          select distinct symbol, source, " ~ bucket(unit, number) ~ " as bucket_start from (" ~ new_minutes() ~ ") m") -%}
  {%- endif -%}
{% endmacro %}

{# Series with bars that changed or closed since the last run. #}
{% macro touched_tails() %}
  {%- do changed_bars() -%}
  {%- if execute and is_incremental() -%}
    {%- do run_statement("create or replace table bronze.touched_" ~ model.name ~ " as
          select symbol, source, min(bucket_start) as since from bronze.changed_" ~ model.name ~ " group by symbol, source") -%}
  {%- endif -%}
{% endmacro %}

{# Closed bars that changed, and bars that closed, since the last run. A bar is closed when the newest event time of
   its source has passed its end; open ones wait, so most runs have little to do here. Suspect times close nothing. #}
{% macro changed_bars() %}
  {%- do [ref('stg_trades'), ref('trades')] -%}
  {%- if execute -%}
    {%- do note_watermark() -%}
    {%- if is_incremental() -%}
      {%- do run_statement("create or replace table bronze.changed_" ~ model.name ~ " as
            select distinct m.symbol, m.source, m.bucket_start from (
              select symbol, source, bucket_start from (" ~ new_minutes() ~ ") n
              union all
              select o.symbol, o.source, o.bucket_start from " ~ ref('ohlc_1m') ~ " o
              join bronze.watermark_" ~ model.name ~ " b on o.source = b.source and (b.before is null or o.bucket_start > b.before - interval '1 minute')
              where o.bucket_start > " ~ watermark_before('1 minute') ~ "
            ) m
            join bronze.watermark_" ~ model.name ~ " w on m.source = w.source
            where m.bucket_start <= w.watermark - interval '1 minute'") -%}
    {%- endif -%}
  {%- endif -%}
{% endmacro %}

{# Trades whose times tell how far a source is: CLOSING of refiner/publish.py. #}
{% macro tells_the_time() %}bucket_start is not null and not time_suspect{% endmacro %}

{# The newest event time of each source, and what it was when the model ran last. #}
{% macro note_watermark() %}
  {%- do run_statement("create or replace table bronze.watermark_" ~ model.name ~ " as
        select source, max(watermark) as watermark, max(before) as before from (
          select source, max(event_time) as watermark, cast(null as timestamptz) as before from " ~ ref('stg_trades') ~ "
          where " ~ tells_the_time() ~ (" and silver_run > " ~ last_run_used() if is_incremental() else "") ~ "
          group by source"
        ~ (" union all select source, watermark, watermark from bronze.watermarks where model = '" ~ model.name ~ "'" if is_incremental() else "")
        ~ ") w group by source") -%}
{% endmacro %}

{# The table of it. #}
{% macro watermark_now() %}bronze.watermark_{{ model.name }}{% endmacro %}

{# A literal so long before what the watermark was, of the source that is farthest behind; one that stands still closes nothing. #}
{% macro watermark_before(back) -%}
  {{ literal("select min(coalesce(before, '1970-01-01 00:00:00+00'::timestamptz)) - interval '" ~ back ~ "' from bronze.watermark_" ~ model.name ~ " where before is null or watermark > before") }}
{%- endmacro %}

{# The newest event time of each source now: what the indicators have seen, and what has come since they ran. For
   models that are made in each run. #}
{% macro newest_times() -%}
  {%- set used = run_query("select coalesce(max(run), 0) from bronze.runs_used where model = 'moving_averages'").columns[0].values()[0] if execute else 0 -%}
  select n.source, max(n.watermark) as watermark
  from (
    select source, watermark from bronze.watermarks where model = 'moving_averages'
    union all
    select source, max(event_time) as watermark from {{ ref('stg_trades') }}
    where {{ tells_the_time() }} and silver_run > {{ used }}
    group by source
  ) n
  group by n.source
{%- endmacro %}

{# The query of a model over tails, for some symbols at a time where there are many bars, as in a year that is made anew: the
   windows over all of them need more memory than DuckDB may have. To be called with the query, which takes the condition on
   the symbols of bars o; `time` is its column of time. #}
{% macro by_parts(time) -%}
  {%- set parts = parts_of_tails() if execute else 1 -%}
  {%- if parts == 1 -%}
    {{ caller('true') }}
    {{ by_time(time) }}
  {%- else -%}
    {%- set made = 'made_of_' ~ model.name -%}
    {%- for part in range(parts) -%}
      {%- do run_statement(("create or replace temporary table " ~ made ~ " as " if loop.first else "insert into " ~ made ~ " ")
            ~ caller("o.symbol in (select symbol from bronze.parts_" ~ model.name ~ " where part = " ~ part ~ ")")) -%}
    {%- endfor -%}
    select * from {{ made }} {{ by_time() }}
  {%- endif -%}
{%- endmacro %}

{# How many parts there are. Which symbols are in which stands in bronze.parts_<model>, if it is more than one. #}
{% macro parts_of_tails() %}{{ return(adapter.dispatch('parts_of_tails', 'tickmint')()) }}{% endmacro %}
{% macro default__parts_of_tails() -%}
  {%- set all = run_query("select coalesce(max(estimated_size), 0) from duckdb_tables() where schema_name = 'gold' and table_name = 'ohlc_1m'").columns[0].values()[0] -%}
  {%- if all <= var('bars_in_part') -%}{{ return(1) }}{%- endif -%}
  {%- set touched = "join bronze.touched_" ~ model.name ~ " t on o.symbol = t.symbol and o.source = t.source and o.bucket_start >= t.since" if is_incremental() -%}
  {%- do run_statement("create or replace table bronze.parts_" ~ model.name ~ " as
        select symbol, cast(floor((sum(bars) over (order by symbol rows unbounded preceding) - 1) / " ~ var('bars_in_part') ~ ") as integer) as part
        from (select o.symbol, count(*) as bars from " ~ ref('ohlc_1m') ~ " o " ~ touched ~ " where " ~ since_touched('o.bucket_start') ~ " group by o.symbol) b") -%}
  {{ return(run_query("select coalesce(max(part), 0) + 1 from bronze.parts_" ~ model.name).columns[0].values()[0]) }}
{%- endmacro %}
{# Snowflake's warehouses write to disk what does not fit. #}
{% macro snowflake__parts_of_tails() %}{{ return(1) }}{% endmacro %}

{# The bars of the tails, closed ones with a price; all of them where the model is made anew. #}
{% macro closed_bars() -%}
  select o.symbol, o.source, o.session, o.bucket_start, o.high, o.low, o.close, o.volume, o.notional
  from {{ ref('ohlc_1m') }} o
  join {{ watermark_now() }} w on o.source = w.source and o.bucket_start <= w.watermark - interval '1 minute'
  {% if is_incremental() -%}
  join bronze.touched_{{ model.name }} t on o.symbol = t.symbol and o.source = t.source and o.bucket_start >= t.since
  {% endif -%}
  where o.close is not null and o.high is not null and {{ since_touched('o.bucket_start') }}
{%- endmacro %}

{# A value of the warehouse as a literal of a timestamp. #}
{% macro literal(query) -%}
  {%- set value = run_query("select cast(v as varchar) from (" ~ query ~ ") q(v)").columns[0].values()[0] if execute else none -%}
  '{{ value or "9999-01-01 00:00:00+00" }}'::timestamptz
{%- endmacro %}

{# Narrows a scan to what is touched, by a literal, so that blocks of older history are not read; `back` is how much
   further back it must read. #}
{% macro since_touched(column, by='since', back='0 days') -%}
  {%- if execute and is_incremental() -%}
    {{ column }} >= {{ literal("select min(" ~ by ~ ") - interval '" ~ back ~ "' from bronze.touched_" ~ model.name) }}
  {%- else -%} true {%- endif -%}
{%- endmacro %}

{# The touched region of a table of alias d, joined as x. Of buckets, and of what else has keys of its own, the key
   columns are equal (meta `region`); of tails see above. #}
{% macro in_region() -%}
  {%- set region = config.require('meta')['region'] -%}
  {%- if region == 'tails' -%}
    d.symbol = x.symbol and d.source = x.source and d.bucket_start >= x.since and {{ since_touched('d.bucket_start') }}
  {%- else -%}
    {%- for column in region %}d.{{ column }} = x.{{ column }}{{ ' and ' if not loop.last }}{% endfor -%}
  {%- endif -%}
{%- endmacro %}

{# The incremental strategy `replace`. The days of rows that are taken out, and perhaps do not come again, are
   published too: see refiner/publish.py. #}
{% macro get_incremental_replace_sql(args) -%}
  {%- set target, region = args['target_relation'], in_region() -%}
  {%- set columns = (args['columns'] or args['dest_columns'] | map(attribute='quoted')) | join(', ') -%}
  {{ together([
    "insert into bronze.gold_days " ~ days_of(target ~ " d join bronze.touched_" ~ this.identifier ~ " x on " ~ region),
    "delete from " ~ target ~ " as d using bronze.touched_" ~ this.identifier ~ " x where " ~ region,
    "insert into " ~ target ~ " (" ~ columns ~ ") select " ~ columns ~ " from " ~ args['temp_relation'],
    "insert into bronze.gold_days " ~ days_of(args['temp_relation'] ~ " d")
  ]) }}
{%- endmacro %}

{% macro days_of(rows) -%}
  select distinct '{{ this.identifier }}', cast(d.{{ config.require('meta')['published_by'] }} as date), {{ current_run() }} from {{ rows }}
{%- endmacro %}

{# The post-hook of Gold: what it has used, and, where it was made anew, that all of its days have changed. A table that
   is published whole has changed whenever it was made. A dynamic table of Snowflake keeps no books. #}
{% macro keep_gold_books() -%}
  {%- if config.get('materialized') == 'dynamic_table' -%}{{ return(refresh_dynamic_tables()) }}{%- endif -%}
  {%- set meta, me = config.require('meta'), "'" ~ this.identifier ~ "'" -%}
  {%- set statements = used_runs() -%}
  {%- if meta['made'] == 'each_minute' and config.get('materialized') == 'incremental' -%}
    {%- do statements.append("delete from bronze.watermarks where model = " ~ me) -%}
    {%- do statements.append("insert into bronze.watermarks select " ~ me ~ ", source, watermark from bronze.watermark_" ~ this.identifier) -%}
  {%- endif -%}
  {%- if meta['published_per'] == 'all' -%}
    {%- do statements.append("insert into bronze.gold_days select " ~ me ~ ", cast(began as date), run from bronze.runs where run = " ~ current_run()) -%}
  {%- elif not is_incremental() -%}
    {%- do statements.append("insert into bronze.gold_days " ~ days_of(this ~ ' d')) -%}
  {%- endif -%}
  {{ together(statements) }}
{%- endmacro %}
