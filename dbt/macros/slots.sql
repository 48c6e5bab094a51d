{# Slots, not time stamps, say what is new: a watermark on a time column loses what arrives late. A
   model takes the slots that are not in its ledger; its post-hooks put them there, in the model's own
   transaction, so rows and ledger commit or roll back together. The list of slots goes through a table:
   what a macro changes in `model` does not reach the hooks. A model that is built anew takes all. Slots with
   an object that cannot be read wait in `unread`.
   A model that wants poison, records that only raw holds, takes the slots of all streams that name some. #}
{% macro new_slots(stream, with_poison=false) %}
  {%- if not execute -%}{{ return('bronze.empty_' ~ stream) }}{%- endif -%}
  {%- do run_query("create or replace table bronze.pending_" ~ model.name ~ " as
      select stream, partition, generation, start, typed, typed_rows, poison, " ~ (not is_incremental()) | lower ~ " as anew,
        case when stream = '" ~ stream ~ "' then coalesce(typed_rows, 0) else 0 end" ~ (" + poison" if with_poison else "") ~ " as arrives
      from bronze.slots s
      where ((stream = '" ~ stream ~ "' and typed is not null)" ~ (" or poison > 0" if with_poison else "") ~ ")
        and not exists (select 1 from bronze.unread u
          where u.stream = s.stream and u.partition = s.partition and u.generation = s.generation and u.start = s.start)"
      ~ (" and not exists (select 1 from bronze.ledger l
           where l.model = '" ~ model.name ~ "' and l.stream = s.stream and l.partition = s.partition
             and l.generation = s.generation and l.start = s.start)" if is_incremental() else "")) -%}
  {{ return(typed_rows('bronze.pending_' ~ model.name, stream)) }}
{% endmacro %}

{# The rows of the typed objects that a table lists. The empty table gives the columns: for a run in
   which there are no objects, and for objects that were written before a column was added. #}
{% macro typed_rows(table, stream) %}
  {%- set typed = run_query("select typed from " ~ table ~ " where stream = '" ~ stream ~ "' and typed is not null order by generation, partition, start").columns[0].values() | list -%}
  {%- if not typed -%}{{ return('bronze.empty_' ~ stream) }}{%- endif -%}
  {%- set names = [] -%}
  {%- for name in typed -%}{%- do names.append("'" ~ name | replace("'", "''") ~ "'") -%}{%- endfor -%}
  {{ return("(from bronze.empty_" ~ stream ~ " union all by name from read_parquet([" ~ names | join(", ") ~ "], union_by_name = true))") }}
{% endmacro %}

{# The post-hooks of Silver. #}
{% macro forget(books) -%}
  delete from bronze.{{ books }} where model = '{{ this.identifier }}' and (select bool_or(anew) from bronze.pending_{{ this.identifier }})
{%- endmacro %}

{% macro keep_ledger() -%}
  insert into bronze.ledger
  select '{{ this.identifier }}', stream, partition, generation, start, {{ current_run() }} from bronze.pending_{{ this.identifier }}
{%- endmacro %}

{% macro keep_load() -%}
  insert into bronze.loads
  select '{{ this.identifier }}', {{ current_run() }}, coalesce(sum(arrives), 0), (select count(*) from {{ this }} where silver_run = {{ current_run() }})
  from bronze.pending_{{ this.identifier }}
{%- endmacro %}

{# The run that Silver gives its rows; Gold keeps the last one that it used. #}
{% macro current_run() %}(select max(run) from bronze.runs){% endmacro %}

{# As a literal, by which a scan skips what is older. #}
{% macro last_run_used() -%}
  {{ run_query("select coalesce(max(run), 0) from bronze.runs_used where model = '" ~ model.name ~ "'").columns[0].values()[0] if execute else 0 }}
{%- endmacro %}

{# The post-hooks of what is made from Silver's rows. #}
{% macro forget_run_used() %}delete from bronze.runs_used where model = '{{ this.identifier }}'{% endmacro %}

{% macro keep_run_used() -%}
  insert into bronze.runs_used select '{{ this.identifier }}', coalesce(max(run), 0) from bronze.loads where model in ('stg_trades', 'rejected_trades')
{%- endmacro %}

{% macro generate_schema_name(custom_schema_name, node) -%}
  {{ custom_schema_name | trim if custom_schema_name else target.schema }}
{%- endmacro %}
