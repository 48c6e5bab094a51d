{# Slots, not time stamps, say what is new: a watermark on a time column loses what arrives late. A
   model takes the slots that are not in its ledger; its post-hook puts them there, in the model's own
   transaction, so rows and ledger commit or roll back together. #}

{% macro new_slots(stream) %}
  {%- if not execute -%}{{ return(typed_files([], stream)) }}{%- endif -%}
  {%- do run_query("create or replace table bronze.pending_" ~ model.name ~ " as
      select s.stream, s.partition, s.generation, s.start, s.typed
      from bronze.slots s anti join bronze.ledger l
        on l.model = '" ~ model.name ~ "' and l.stream = s.stream and l.partition = s.partition
           and l.generation = s.generation and l.start = s.start
      where s.stream = '" ~ stream ~ "'") -%}
  {%- set files = run_query("select typed from bronze.pending_" ~ model.name ~ " where typed is not null").columns[0].values() | list -%}
  {{ return(typed_files(files, stream)) }}
{% endmacro %}

{# Nothing new still needs the columns: an empty table of them stands in bronze. #}
{% macro typed_files(files, stream) %}
  {%- if files -%}
    {{ return("read_parquet(['" ~ files | join("','") ~ "'])") }}
  {%- else -%}
    {{ return("bronze.empty_" ~ stream) }}
  {%- endif -%}
{% endmacro %}

{% macro keep_ledger() -%}
  insert into bronze.ledger
  select '{{ this.identifier }}', stream, partition, generation, start from bronze.pending_{{ this.identifier }}
{%- endmacro %}

{# The run that Silver gives its rows; Gold keeps the last one that it used. #}
{% macro current_run() %}(select max(run) from bronze.runs){% endmacro %}

{% macro last_run_used() -%}
  (select coalesce(max(run), 0) from bronze.runs_used where model = '{{ this.identifier }}')
{%- endmacro %}

{% macro keep_run_used() -%}
  insert into bronze.runs_used select '{{ this.identifier }}', coalesce(max(silver_run), 0) from {{ ref('trades') }}
{%- endmacro %}

{% macro generate_schema_name(custom_schema_name, node) -%}
  {{ custom_schema_name | trim if custom_schema_name else target.schema }}
{%- endmacro %}
