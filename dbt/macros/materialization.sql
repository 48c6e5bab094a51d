{# dbt-duckdb's way with an incremental model takes a dozen statements, most of them to ask what the columns are. These
   models run every few seconds, and have a contract that says it: here they take one, and its strategy's. A table that is
   made anew goes dbt-duckdb's way, which holds it against the contract. So do, always, the models of Silver that take
   slots: a change of any other one makes its table anew (see refiner/origin.py), and theirs would stay as it is. #}
{% materialization incremental, adapter='duckdb' %}
  {%- set existing = load_cached_relation(this) -%}
  {%- if existing is none or existing.is_view or should_full_refresh() or config.get('meta', {}).get('takes_slots') -%}
    {{ return(dbt.materialization_incremental_duckdb()) }}
  {%- endif -%}
  {%- set target, temporary = this.incorporate(type='table'), this.incorporate(path={'identifier': this.identifier ~ '__new', 'schema': none, 'database': none}) -%}
  {{ run_hooks(pre_hooks, inside_transaction=False) }}
  {{ run_hooks(pre_hooks, inside_transaction=True) }}
  {%- set change = adapter.get_incremental_strategy_macro(context, config.get('incremental_strategy')) -%}
  {% call statement('main', auto_begin=True) -%}
    create or replace temporary table {{ temporary }} as ({{ compiled_code }});
    {{ change({'target_relation': target, 'temp_relation': temporary, 'unique_key': config.get('unique_key'), 'dest_columns': [], 'incremental_predicates': none}) }}
  {%- endcall %}
  {{ run_hooks(post_hooks, inside_transaction=True) }}
  {% do adapter.commit() %}
  {{ run_hooks(post_hooks, inside_transaction=False) }}
  {{ return({'relations': [target]}) }}
{% endmaterialization %}
