{%- set typed = new_slots('gaps') %}
select
  session,
  frame,
  idx,
  seq,
  received_at,
  kind,
  shard,
  symbols,
  previous_session,
  reason,
  last_received_at,
  first_received_at,
  last_frame,
  frames,
  trades,
  quarantined,
  gaps,
  cast({{ current_run() }} as bigint) as silver_run
from {{ typed }}
qualify row_number() over (partition by session, frame, idx order by record_offset) = 1
