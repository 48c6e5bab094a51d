{{ config(materialized='view') }}
-- The good trades: those that no verdict rejects. What is not judged yet stands here, between the two models of one run;
-- Gold is made and published after both.
select
  t.session,
  t.frame,
  t.idx,
  t.seq,
  t.source,
  t.symbol,
  t.price,
  t.size,
  t.event_time,
  t.bucket_start,
  t.received_at,
  t.conditions,
  t.time_suspect,
  t.price_update,
  t.suspect_repeat,
  t.late,
  {{ seconds_between('t.event_time', 't.received_at') }} as lag_seconds,
  case when t.late then {{ seconds_between("t.bucket_start + interval '1 minute'", 't.received_at') }} end as late_seconds,
  t.silver_run
from (
  select
    *,
    {{ is_late('s') }} as late
  from {{ ref('stg_trades') }} s
) t
where not exists (
  select 1 from {{ ref('rejected_trades') }} r where r.session = t.session and r.frame = t.frame and r.idx = t.idx
)
