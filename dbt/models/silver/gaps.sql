{{ config(materialized='incremental', incremental_strategy='merge', unique_key=['session', 'frame', 'idx'],
          on_schema_change='fail', post_hook="{{ keep_ledger() }}") }}
{%- set source = new_slots('gaps') %}
select
  session, frame, idx, received_at, kind, shard, symbols, previous_session, reason, last_received_at,
  first_received_at, last_frame, frames, trades, quarantined, gaps
from {{ source }}
qualify row_number() over (partition by session, frame, idx order by record_offset) = 1
