-- A record that comes again is the same record, so the first one stays.
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
  date_trunc('minute', event_time) as bucket_start,
  received_at,
  conditions,
  coalesce(time_suspect, false) as time_suspect,
  coalesce(price_update, false) as price_update,
  coalesce(frame_repeat, false) as frame_repeat,
  coalesce(received_at >= date_trunc('minute', event_time) + interval '{{ 60 + var("late_grace_seconds") }} seconds', false) as late,
  cast({{ current_run() }} as bigint) as silver_run
from {{ typed }}
where {{ rejected_rule() }} is null
qualify row_number() over (partition by session, frame, idx order by record_offset) = 1
