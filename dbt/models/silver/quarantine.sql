-- What is no trade, and what killed its writer: that is only in raw, and was copied with its slot.
{%- set typed = new_slots('quarantine', with_poison=true) %}
with arrived as (
  select session, frame, idx, seq, record_offset, received_at, reason, detail, raw, raw_base64
  from {{ typed }}
  union all
  select
    p.session, p.frame, p.idx, p.seq, p.record_offset, p.received_at,
    'poison' as reason,
    'the writer of ' || p.stream || ' died of it three times; please report it' as detail,
    p.raw, p.raw_base64
  from {{ source('bronze', 'poison') }} p
  join bronze.pending_{{ model.name }} s
    on p.stream = s.stream and p.partition = s.partition and p.generation = s.generation and p."start" = s."start"
)

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
from arrived
qualify row_number() over (partition by session, frame, idx order by record_offset) = 1
