{%- set typed = new_slots('trades') %}
select
  session,
  frame,
  idx,
  seq,
  source,
  symbol,
  price,
  size,
  event_time,
  received_at,
  conditions,
  {{ rejected_rule() }} as rule,
  cast({{ current_run() }} as bigint) as silver_run
from {{ typed }}
where {{ rejected_rule() }} is not null
qualify row_number() over (partition by session, frame, idx order by record_offset) = 1
