{# What Snowflake says otherwise than DuckDB. Where both take one form, the models use that one. #}

{# Bronze is files on DuckDB and tables here: the loader writes the rows of each object with the place of their slot,
   so the table itself tells what was loaded. #}
{% macro snowflake__typed_rows(table, stream) %}
  {{ return("(select t.* from bronze.typed_" ~ stream ~ " t join " ~ table ~ " s on t.stream = s.stream and t.partition = s.partition"
     ~ " and t.generation = s.generation and t.\"start\" = s.\"start\")") }}
{% endmacro %}

{% macro snowflake__no_rows(stream) %}{{ return('bronze.typed_' ~ stream) }}{% endmacro %}

{# dbt-snowflake runs each statement by itself (autocommit) unless it finds `begin;` and `commit;` about it, and
   `create table as` commits at once whatever stands about it: a model's rows and its hooks are never one transaction here.
   They stay together by order instead. What is built anew first forgets its books, then come the rows, then the books. A run
   that dies before its books leaves rows whose run the loads do not know. The next one takes the same slots again, or judges
   the same trades, finds each row by its identity, and adds none: nothing is lost or doubled. What must be mended is
   what the books say of the dead run: how many rows it kept, and which minutes its verdicts changed. That is written down
   before the next run adds rows of its own. #}
{% macro snowflake__together(statements) %}{{ return("begin;\n" ~ statements | join(";\n") ~ ";\ncommit;") }}{% endmacro %}

{% macro snowflake__mend_books() %}
  {%- if is_incremental() -%}
    {%- set unknown = " from " ~ this ~ " where silver_run > (select coalesce(max(run), 0) from bronze.loads where model = '" ~ model.name ~ "')" -%}
    {%- set mended = ["insert into bronze.loads select '" ~ model.name ~ "', silver_run, 0, count(*)" ~ unknown ~ " group by silver_run"] -%}
    {%- if model.name == 'rejected_trades' -%}
      {%- do mended.insert(0, "insert into bronze.verdicts_changed select distinct " ~ current_run() ~ ", symbol, source, bucket_start" ~ unknown ~ " and " ~ could_have_a_bar()) -%}
    {%- endif -%}
    {%- do run_statement(together(mended)) -%}
  {%- endif -%}
{% endmacro %}

{# dbt-snowflake does not know `merge_clauses`, by which a record that comes again stays the first one on DuckDB: here it is
   done by hand. Without it a row that comes again takes the place of the old one, as dbt would have it. #}
{% macro snowflake__get_merge_sql(target, source_sql, unique_key, dest_columns, incremental_predicates) %}
  {%- set names = dest_columns | map(attribute='quoted') | list -%}
  {%- set keys, updates = [], [] -%}
  {%- for key in unique_key -%}{%- do keys.append("s." ~ key ~ " = d." ~ key) -%}{%- endfor -%}
  {%- for name in names -%}{%- do updates.append(name ~ " = s." ~ name) -%}{%- endfor -%}
  {{ return(together(["merge into " ~ target ~ " as d using " ~ source_sql ~ " as s on " ~ keys | join(" and ")
     ~ ("" if config.get('merge_clauses') else "\nwhen matched then update set " ~ updates | join(", "))
     ~ "\nwhen not matched then insert (" ~ names | join(", ") ~ ")\nvalues (s." ~ names | join(", s.") ~ ")"])) }}
{% endmacro %}

{# The post-hook of dynamic tables: the last one of a chain, which has a lag of its own, is refreshed with all before it, so
   that the models behind it in the run read what the run has brought. #}
{% macro refresh_dynamic_tables() -%}
  {%- if config.get('target_lag') | lower != 'downstream' -%} alter dynamic table {{ this }} refresh {%- endif -%}
{%- endmacro %}

{# A product here has the scale min(s1 + s2, max(s1, s2, 12)), so two factors of scale 8 would lose four digits. Whole
   numbers times one of scale 16 lose none. (The double multiplies as DuckDB does, and would not show it.) #}
{% macro snowflake__amount(price, size) -%}
  cast(cast({{ price }} as decimal(28, 8)) * 100000000 as decimal(19, 0))
    * cast(cast({{ size }} as decimal(28, 8)) * 100000000 as decimal(19, 0))
    * cast('0.0000000000000001' as decimal(17, 16))
{%- endmacro %}

{# TIME_SLICE would do it, but gives a time without a zone, which becomes one again by the session's zone. #}
{% macro snowflake__bucket(unit, number, of) -%}
  dateadd({{ unit }}, -mod(date_part({{ unit }}, {{ of }}), {{ number }}), date_trunc('{{ unit }}', {{ of }}))
{%- endmacro %}

{% macro snowflake__every(condition) %}booland_agg({{ condition }}){% endmacro %}
{% macro snowflake__some(condition) %}boolor_agg({{ condition }}){% endmacro %}

{% macro snowflake__split_rows(relation, column, name) -%}
  {{ return("select r." ~ column ~ ", f.value::varchar as " ~ name ~ " from " ~ relation ~ " r, lateral flatten(input => split(r." ~ column ~ ", ',')) f") }}
{%- endmacro %}

{# `dbt run-operation make_bronze --target snowflake`: the tables that the loader fills, where they are missing. Typed rows
   have the columns of the Parquet objects and the place of their slot; the others are those that the refiner keeps on DuckDB. #}
{% macro make_bronze() %}
  {%- set place = 'stream varchar not null, partition integer not null, generation bigint not null, "start" bigint not null' -%}
  {%- set identity = 'session varchar, frame bigint, idx integer, seq bigint, record_offset bigint, received_at timestamptz' -%}
  {%- set tables = {
    'slots': place ~ ', "end" bigint not null, kind varchar not null, "rows" bigint not null, typed varchar, typed_rows bigint, archive_hour varchar, poison bigint not null, arrival bigint not null',
    'poison': place ~ ', session varchar, frame bigint, idx integer, seq bigint, record_offset bigint, received_at timestamptz, raw varchar, raw_base64 boolean',
    'unread': place ~ ', error varchar not null',
    'failures': 'began timestamptz not null, last timestamptz not null, rounds bigint not null, phase varchar not null, error varchar not null',
    'fills': 'place bigint not null, line bigint not null, account varchar not null, symbol varchar not null, executed_at timestamptz not null, quantity decimal(18, 8) not null, price decimal(18, 8) not null, fee decimal(18, 8) not null, currency varchar not null, note varchar not null, held decimal(38, 8) not null, cost decimal(38, 8) not null, average_cost decimal(38, 8), realized_pnl decimal(38, 8) not null',
    'positions': 'content varchar not null, used varchar',
    'ledger': 'model varchar not null, ' ~ place ~ ', run bigint not null, arrival bigint not null',
    'loads': 'model varchar not null, run bigint not null, arrived bigint not null, kept bigint not null',
    'runs': 'run bigint not null, began timestamptz not null',
    'runs_used': 'model varchar not null, run bigint not null',
    'watermarks': 'model varchar not null, source varchar not null, watermark timestamptz not null',
    'verdicts_changed': 'run bigint not null, symbol varchar not null, source varchar not null, bucket_start timestamptz not null',
    'gold_days': 'model varchar not null, day date not null, run bigint not null',
    'typed_trades': place ~ ', ' ~ identity ~ ', source varchar, symbol varchar, price decimal(18, 8), size decimal(18, 8), event_time timestamptz, conditions varchar, time_suspect boolean, price_update boolean, frame_repeat boolean',
    'typed_gaps': place ~ ', ' ~ identity ~ ', kind varchar, shard varchar, symbols varchar, previous_session varchar, reason varchar, last_received_at timestamptz, first_received_at timestamptz, last_frame bigint, frames bigint, trades bigint, quarantined bigint, gaps bigint',
    'typed_quarantine': place ~ ', ' ~ identity ~ ', reason varchar, detail varchar, raw varchar, raw_base64 boolean',
  } -%}
  {%- do run_statement('create schema if not exists bronze') -%}
  {%- for name, columns in tables.items() -%}{%- do run_statement('create table if not exists bronze.' ~ name ~ ' (' ~ columns ~ ')') -%}{%- endfor -%}
{% endmacro %}
