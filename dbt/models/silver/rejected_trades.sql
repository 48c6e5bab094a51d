{{ config(materialized='incremental', incremental_strategy='merge', unique_key=['session', 'frame', 'idx'],
          on_schema_change='fail', post_hook="{{ keep_ledger() }}") }}
{%- set source = new_slots('trades') %}
select session, frame, idx, symbol, price, size, event_time, received_at, conditions, {{ rejected_rule() }} as rule
from {{ source }}
where {{ rejected_rule() }} is not null
qualify row_number() over (partition by session, frame, idx order by record_offset) = 1
