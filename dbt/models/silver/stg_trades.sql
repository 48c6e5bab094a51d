-- A record that comes again is the same record, so the first one stays. What is said of it is rejected_trades' matter.
{%- set typed = new_slots('trades') %}
{%- set identity = 'session, frame, idx' %}
-- Keys alone are held against each other: a window over whole rows would take a large load's memory, and all of the order in
-- which it came, by which a run reads the last blocks. (Two threads keep it for the most part.)
with again as (
  select {{ identity }} from {{ typed }} group by {{ identity }} having count(*) > 1
),

records as (
  select t.* from {{ typed }} t
  where not exists (select 1 from again a where a.session = t.session and a.frame = t.frame and a.idx = t.idx)
  union all
  select t.* from {{ typed }} t
  join again a on a.session = t.session and a.frame = t.frame and a.idx = t.idx
  qualify row_number() over (partition by t.session, t.frame, t.idx order by t.record_offset) = 1
)

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
      then {{ bucket('minute', 1, 'event_time') }}
  end as bucket_start,
  received_at,
  conditions,
  coalesce(time_suspect, false) as time_suspect,
  coalesce(price_update, false) as price_update,
  coalesce(frame_repeat, false) as suspect_repeat,
  cast({{ current_run() }} as bigint) as silver_run
from records
