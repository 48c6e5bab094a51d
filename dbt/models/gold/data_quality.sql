{{ config(meta={'key': ['symbol', 'source', 'hour_start'], 'region': ['symbol', 'source', 'hour_start'], 'made': 'each_load', 'published_by': 'hour_start'}) }}
-- Each part counts something and says nothing of the rest; together they are the row of a symbol and hour.
{% do touched_hours() -%}
with records as (
  select
    {{ symbol_of('t') }} as symbol, {{ source_of('t') }} as source, {{ touched_hour_of('t') }} as hour_start, t.received_at,
    r.session is null as is_good, t.event_time, t.time_suspect, t.suspect_repeat, {{ is_late('t') }} as late,
    -- Times that no difference can be taken of are rejected.
    case when r.session is null then cast({{ microseconds_between('t.event_time', 't.received_at') }} as double) / 1000 end as lag_ms
  from {{ ref('stg_trades') }} t
  left join {{ ref('rejected_trades') }} r on t.session = r.session and t.frame = r.frame and t.idx = r.idx
  {{ records_if_touched('t') }}
),

trades as (
  select
    symbol, source, hour_start,
    count(*) as received,
    max(received_at) as last_received_at,
    count(case when is_good then 1 end) as silver,
    count(case when not is_good then 1 end) as rejected,
    count(case when is_good and late then 1 end) as late,
    count(case when is_good and time_suspect then 1 end) as time_suspect,
    count(case when is_good and suspect_repeat then 1 end) as suspect_repeat,
    max(case when is_good and not time_suspect then event_time end) as last_event_time,
    percentile_cont(0.5) within group (order by lag_ms) as lag_p50_ms,
    percentile_cont(0.95) within group (order by lag_ms) as lag_p95_ms,
    percentile_cont(0.99) within group (order by lag_ms) as lag_p99_ms,
    max(lag_ms) as lag_max_ms
  from records
  group by symbol, source, hour_start
),

outages as (
  select
    o.symbol, o.source, o.hour_start, o.since, o.until,
    max(o.until) over (
      partition by o.symbol, o.source, o.hour_start order by o.since, o.until rows between unbounded preceding and 1 preceding
    ) as until_before
  from ({{ outages(since_touched('first_received_at', by='hour_start')) }}) o
  {{ if_touched('o.symbol', 'o.source', 'o.hour_start') }}
),

-- A moment that several outages tell of counts once.
without_feed as (
  select
    symbol, source, hour_start,
    sum(case when until > coalesce(until_before, since) then {{ microseconds_between('greatest(since, coalesce(until_before, since))', 'until') }} else 0 end) as microseconds
  from outages
  group by symbol, source, hour_start
),

quarantined as (
  select '' as symbol, {{ feed() }} as source, {{ touched_hour_of('q') }} as hour_start, count(*) as quarantined
  from {{ ref('quarantine') }} q
  {{ records_if_touched('q', "''", feed()) }}
  group by {{ touched_hour_of('q') }}
),

archived as (
  select '' as symbol, {{ feed() }} as source, {{ archived_in('s.archive_hour') }} as hour_start, sum(s."rows") as archived
  from {{ source('bronze', 'slots') }} s
  {{ if_touched("''", feed(), archived_in('s.archive_hour')) }}
  where s.stream = 'trades' and s.archive_hour is not null
  group by s.archive_hour
),

standstill as (
  select '' as symbol, {{ feed() }} as source, hour_start, began, reason from ({{ standstill() }}) f
),

places as (
  select symbol, source, hour_start from trades
  union select symbol, source, hour_start from without_feed
  union select symbol, source, hour_start from quarantined
  union select symbol, source, hour_start from archived
  union select symbol, source, hour_start from standstill
)

select
  p.symbol,
  p.source,
  p.hour_start,
  cast(coalesce(t.received, 0) as bigint) as received,
  cast(case when p.symbol = '' then coalesce(a.archived, 0) end as bigint) as archived,
  cast(coalesce(t.silver, 0) as bigint) as silver,
  cast(coalesce(t.rejected, 0) as bigint) as rejected,
  cast(case when p.symbol = '' then coalesce(q.quarantined, 0) end as bigint) as quarantined,
  cast(coalesce(t.late, 0) as bigint) as late,
  cast(coalesce(t.time_suspect, 0) as bigint) as time_suspect,
  cast(coalesce(t.suspect_repeat, 0) as bigint) as suspect_repeat,
  cast(cast(coalesce(w.microseconds, 0) as bigint) * cast(0.000001 as decimal(7, 6)) as decimal(18, 6)) as gap_seconds,
  t.last_received_at,
  t.last_event_time,
  t.lag_p50_ms,
  t.lag_p95_ms,
  t.lag_p99_ms,
  t.lag_max_ms,
  f.began as gold_failing_since,
  f.reason as gold_failing_reason
from places p
left join trades t on {{ same_hour('p', 't') }}
left join without_feed w on {{ same_hour('p', 'w') }}
left join quarantined q on {{ same_hour('p', 'q') }}
left join archived a on {{ same_hour('p', 'a') }}
left join standstill f on {{ same_hour('p', 'f') }}
