{{ config(materialized='incremental', incremental_strategy='merge', unique_key=['session', 'frame', 'idx'],
          on_schema_change='fail', post_hook="{{ keep_ledger() }}") }}
{%- set source = new_slots('quarantine') %}
select session, frame, idx, received_at, reason, detail, raw, raw_base64
from {{ source }}
qualify row_number() over (partition by session, frame, idx order by record_offset) = 1
