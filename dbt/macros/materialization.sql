{# dbt-duckdb's way with an incremental model takes a dozen statements, most of them to ask what the columns are. Gold's
   models run every few seconds, have a contract, and replace a region: theirs takes four. All else, and a table that is
   made anew, goes dbt-duckdb's way. #}
{% materialization incremental, adapter='duckdb' %}
  {%- set existing = load_cached_relation(this) -%}
  {%- if existing is none or existing.is_view or should_full_refresh() or config.get('incremental_strategy') != 'replace' -%}
    {{ return(dbt.materialization_incremental_duckdb()) }}
  {%- endif -%}
  {%- set target, temporary = this.incorporate(type='table'), this.incorporate(path={'identifier': this.identifier ~ '__new', 'schema': none, 'database': none}) -%}
  {{ run_hooks(pre_hooks, inside_transaction=False) }}
  {{ run_hooks(pre_hooks, inside_transaction=True) }}
  {%- set arguments = {'target_relation': target, 'temp_relation': temporary, 'columns': model.columns.values() | map(attribute='name') | list} -%}
  {% call statement('main', auto_begin=True) -%}
    create or replace temporary table {{ temporary }} as ({{ compiled_code }});
    {{ get_incremental_replace_sql(arguments) }}
  {%- endcall %}
  {{ run_hooks(post_hooks, inside_transaction=True) }}
  {% do adapter.commit() %}
  {{ run_hooks(post_hooks, inside_transaction=False) }}
  {{ return({'relations': [target]}) }}
{% endmaterialization %}
