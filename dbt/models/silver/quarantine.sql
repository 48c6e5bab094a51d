{%- set typed = new_slots('quarantine') %}
select
  session,
  frame,
  idx,
  seq,
  received_at,
  reason,
  detail,
  raw,
  raw_base64,
  cast({{ current_run() }} as bigint) as silver_run
from {{ typed }}
qualify row_number() over (partition by session, frame, idx order by record_offset) = 1
