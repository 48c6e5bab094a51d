{{ config(meta={'key': ['symbol', 'source', 'hour_start'], 'region': ['symbol', 'source', 'hour_start'], 'made': 'each_load', 'published_by': 'hour_start'}) }}
-- Each part counts something and says nothing of the rest; together they are the row of a symbol and hour.
{% do touched_hours() -%}
with received as (
  select {{ symbol_of('t') }} as symbol, {{ source_of('t') }} as source, {{ touched_hour_of('t') }} as hour_start, count(*) as received, max(t.received_at) as last_received_at
  from {{ ref('stg_trades') }} t
  {{ records_if_touched('t') }}
  group by {{ symbol_of('t') }}, {{ source_of('t') }}, {{ touched_hour_of('t') }}
),

good as (
  select
    t.symbol, t.source, {{ touched_hour_of('t') }} as hour_start, t.event_time, t.late, t.time_suspect, t.suspect_repeat,
    cast(t.lag_seconds * 1000 as double) as lag_ms
  from {{ ref('trades') }} t
  {{ records_if_touched('t', 't.symbol', 't.source') }}
),

good_trades as (
  select
    symbol, source, hour_start,
    count(*) as silver,
    count(case when late then 1 end) as late,
    count(case when time_suspect then 1 end) as time_suspect,
    count(case when suspect_repeat then 1 end) as suspect_repeat,
    max(case when not time_suspect then event_time end) as last_event_time,
    percentile_cont(0.5) within group (order by lag_ms) as lag_p50_ms,
    percentile_cont(0.95) within group (order by lag_ms) as lag_p95_ms,
    percentile_cont(0.99) within group (order by lag_ms) as lag_p99_ms,
    max(lag_ms) as lag_max_ms
  from good
  group by symbol, source, hour_start
),

bad_trades as (
  select {{ symbol_of('r') }} as symbol, {{ source_of('r') }} as source, {{ touched_hour_of('r') }} as hour_start, count(*) as rejected
  from {{ ref('rejected_trades') }} r
  {{ records_if_touched('r') }}
  group by {{ symbol_of('r') }}, {{ source_of('r') }}, {{ touched_hour_of('r') }}
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
    sum(case when until > coalesce(until_before, since) then {{ dbt.datediff('greatest(since, coalesce(until_before, since))', 'until', 'microsecond') }} else 0 end) as microseconds
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
  select symbol, source, hour_start from received
  union select symbol, source, hour_start from good_trades
  union select symbol, source, hour_start from bad_trades
  union select symbol, source, hour_start from without_feed
  union select symbol, source, hour_start from quarantined
  union select symbol, source, hour_start from archived
  union select symbol, source, hour_start from standstill
)

select
  p.symbol,
  p.source,
  p.hour_start,
  cast(coalesce(r.received, 0) as bigint) as received,
  cast(case when p.symbol = '' then coalesce(a.archived, 0) end as bigint) as archived,
  cast(coalesce(g.silver, 0) as bigint) as silver,
  cast(coalesce(b.rejected, 0) as bigint) as rejected,
  cast(case when p.symbol = '' then coalesce(q.quarantined, 0) end as bigint) as quarantined,
  cast(coalesce(g.late, 0) as bigint) as late,
  cast(coalesce(g.time_suspect, 0) as bigint) as time_suspect,
  cast(coalesce(g.suspect_repeat, 0) as bigint) as suspect_repeat,
  cast(cast(coalesce(w.microseconds, 0) as bigint) * cast(0.000001 as decimal(7, 6)) as decimal(18, 6)) as gap_seconds,
  r.last_received_at,
  g.last_event_time,
  g.lag_p50_ms,
  g.lag_p95_ms,
  g.lag_p99_ms,
  g.lag_max_ms,
  f.began as gold_failing_since,
  f.reason as gold_failing_reason
from places p
left join received r on {{ same_hour('p', 'r') }}
left join good_trades g on {{ same_hour('p', 'g') }}
left join bad_trades b on {{ same_hour('p', 'b') }}
left join without_feed w on {{ same_hour('p', 'w') }}
left join quarantined q on {{ same_hour('p', 'q') }}
left join archived a on {{ same_hour('p', 'a') }}
left join standstill f on {{ same_hour('p', 'f') }}
