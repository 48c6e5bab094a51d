-- A record that comes again is the same record, so the first one stays. What is said of it is rejected_trades' matter.
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
  -- The years that a calendar takes: others are rejected.
  case
    when event_time >= '1970-01-01 00:00:00+00'::timestamptz and event_time < '2200-01-01 00:00:00+00'::timestamptz
      then date_trunc('minute', event_time)
  end as bucket_start,
  received_at,
  conditions,
  coalesce(time_suspect, false) as time_suspect,
  coalesce(price_update, false) as price_update,
  coalesce(frame_repeat, false) as suspect_repeat,
  cast({{ current_run() }} as bigint) as silver_run
from {{ typed }}
qualify row_number() over (partition by session, frame, idx order by record_offset) = 1
-- A large load too: a run then reads the last blocks.
order by received_at
