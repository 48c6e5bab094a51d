{{ config(materialized='incremental', incremental_strategy='merge', unique_key=['session', 'frame', 'idx'],
          merge_exclude_columns=['silver_run'], on_schema_change='fail', post_hook="{{ keep_ledger() }}") }}
{%- set source = new_slots('trades') %}
select
  session, frame, idx, seq, source, symbol, price, size, event_time, received_at, conditions,
  time_suspect, price_update, frame_repeat,
  {{ current_run() }} as silver_run
from {{ source }}
where {{ rejected_rule() }} is null
qualify row_number() over (partition by session, frame, idx order by record_offset) = 1
