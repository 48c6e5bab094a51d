{# Slots, not time stamps, say what is new: a watermark on a time column loses what arrives late. A
   model takes the slots that are not in its ledger; its post-hook puts them there, in the model's own
   transaction, so rows and ledger commit or roll back together (on Snowflake: see `mend_books`). A run takes all
   that there are, so what is not in the ledger has arrived behind all that is, and nothing older is looked at.
   Slots with an object that cannot be read wait in `unread`, and arrive anew when it can be read. The list of
   slots goes through a table: what a macro changes in `model` does not reach the hooks. A model that is built
   anew takes all.
   A model that wants poison, records that only raw holds, takes the slots of all streams that name some. #}
{% macro new_slots(stream, with_poison=false) %}
  {%- if not execute -%}{{ return(no_rows(stream)) }}{%- endif -%}
  {%- do mend_books() -%}
  {%- do run_statement("create or replace table bronze.pending_" ~ model.name ~ " as
      select stream, partition, generation, \"start\", arrival, typed, typed_rows, poison, " ~ (not is_incremental()) | lower ~ " as anew,
        case when stream = '" ~ stream ~ "' then coalesce(typed_rows, 0) else 0 end" ~ (" + poison" if with_poison else "") ~ " as arrives
      from bronze.slots s
      where ((stream = '" ~ stream ~ "' and typed is not null)" ~ (" or poison > 0" if with_poison else "") ~ ")
        and not exists (select 1 from bronze.unread u
          where u.stream = s.stream and u.partition = s.partition and u.generation = s.generation and u.\"start\" = s.\"start\")"
      ~ (" and arrival > " ~ last_arrival() if is_incremental() else "")) -%}
  {{ return(typed_rows('bronze.pending_' ~ model.name, stream)) }}
{% endmacro %}

{# Runs what gives no rows: `run_query` makes a table of rows of what it gets, which costs more than most statements here. #}
{% macro run_statement(sql) %}{%- do adapter.execute(sql, auto_begin=false, fetch=false) -%}{% endmacro %}

{# As a literal, by which a scan skips what is older. #}
{% macro last_arrival() -%}
  {{ run_query("select coalesce(max(arrival), 0) from bronze.ledger where model = '" ~ model.name ~ "'").columns[0].values()[0] }}
{%- endmacro %}

{# The rows of the typed objects that a table of slots lists. #}
{% macro typed_rows(table, stream) %}{{ return(adapter.dispatch('typed_rows', 'tickmint')(table, stream)) }}{% endmacro %}

{# The empty table gives the columns: for a run in which there are no objects, and for objects that were
   written before a column was added. #}
{% macro default__typed_rows(table, stream) %}
  {%- set typed = run_query("select typed from " ~ table ~ " where stream = '" ~ stream ~ "' and typed is not null order by generation, partition, start").columns[0].values() | list -%}
  {%- if not typed -%}{{ return(no_rows(stream)) }}{%- endif -%}
  {%- set names = [] -%}
  {%- for name in typed -%}{%- do names.append("'" ~ name | replace("'", "''") ~ "'") -%}{%- endfor -%}
  {{ return("(from bronze.empty_" ~ stream ~ " union all by name from read_parquet([" ~ names | join(", ") ~ "], union_by_name = true))") }}
{% endmacro %}

{# A table with the columns of typed rows, for where no slots are known yet. #}
{% macro no_rows(stream) %}{{ return(adapter.dispatch('no_rows', 'tickmint')(stream)) }}{% endmacro %}
{% macro default__no_rows(stream) %}{{ return('bronze.empty_' ~ stream) }}{% endmacro %}

{# The hooks of Silver. A model that is built anew forgets what it took before its rows change: were it to end in
   between, it would take again what it holds, and never miss what it does not. #}
{% macro forget_books() -%}
  {{ together([forget('ledger'), forget('loads')]) }}
{%- endmacro %}

{% macro forget(books) -%}
  delete from bronze.{{ books }} where model = '{{ this.identifier }}' and exists (select 1 from bronze.pending_{{ this.identifier }} where anew)
{%- endmacro %}

{% macro keep_books() -%}
  {{ together([keep_ledger(), keep_load()]) }}
{%- endmacro %}

{% macro keep_ledger() -%}
  insert into bronze.ledger
  select '{{ this.identifier }}', stream, partition, generation, "start", {{ current_run() }}, arrival from bronze.pending_{{ this.identifier }}
{%- endmacro %}

{% macro keep_load() -%}
  insert into bronze.loads
  select '{{ this.identifier }}', {{ current_run() }}, coalesce(sum(arrives), 0), (select count(*) from {{ this }} where silver_run = {{ current_run() }})
  from bronze.pending_{{ this.identifier }}
{%- endmacro %}

{# Statements of which all are done or none. A model's hooks lie in its transaction, where a transaction can hold a model. #}
{% macro together(statements) %}{{ return(adapter.dispatch('together', 'tickmint')(statements)) }}{% endmacro %}
{% macro default__together(statements) %}{{ return(statements | join(';\n')) }}{% endmacro %}

{# Sets the books right after a run that died between a model's rows and its books. #}
{% macro mend_books() %}{{ return(adapter.dispatch('mend_books', 'tickmint')()) }}{% endmacro %}
{% macro default__mend_books() %}{% endmacro %}

{# The run that Silver gives its rows; Gold keeps the last one that it used. #}
{% macro current_run() %}(select max(run) from bronze.runs){% endmacro %}

{# As a literal, by which a scan skips what is older. #}
{% macro last_run_used() -%}
  {{ run_query("select coalesce(max(run), 0) from bronze.runs_used where model = '" ~ model.name ~ "'").columns[0].values()[0] if execute else 0 }}
{%- endmacro %}

{# The post-hook of what is made from Silver's rows. #}
{% macro keep_run_used() -%}
  {{ together(used_runs()) }}
{%- endmacro %}

{% macro used_runs() %}
  {{ return([
    "delete from bronze.runs_used where model = '" ~ this.identifier ~ "'",
    "insert into bronze.runs_used select '" ~ this.identifier ~ "', coalesce(max(run), 0) from bronze.loads where model in ('stg_trades', 'rejected_trades')"
  ]) }}
{% endmacro %}

{% macro generate_schema_name(custom_schema_name, node) -%}
  {{ custom_schema_name | trim if custom_schema_name else target.schema }}
{%- endmacro %}
