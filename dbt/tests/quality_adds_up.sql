-- Each record of Silver counts in one row of data_quality, and none counts that is not there. A line tells which does not hold.
with brought as (
  select symbol, source, hour_start, sum(silver) as silver, sum(rejected) as rejected, sum(quarantined) as quarantined
  from (
    select symbol, source, date_trunc('hour', received_at) as hour_start, 1 as silver, 0 as rejected, 0 as quarantined from {{ ref('trades') }}
    union all
    select coalesce(symbol, ''), coalesce(source, {{ feed() }}), date_trunc('hour', received_at), 0, 1, 0 from {{ ref('rejected_trades') }}
    union all
    select '', {{ feed() }}, date_trunc('hour', received_at), 0, 0, 1 from {{ ref('quarantine') }}
  ) q
  where hour_start is not null
  group by symbol, source, hour_start
),

slots as (
  select
    coalesce(sum(s."rows"), 0) as known,
    coalesce(sum(case when exists (
      select 1 from {{ source('bronze', 'ledger') }} l
      where l.stream = s.stream and l.partition = s.partition and l.generation = s.generation and l."start" = s."start"
    ) then s."rows" end), 0) as taken
  from {{ source('bronze', 'slots') }} s
  where s.stream = 'trades' and s.archive_hour is not null
),

archived as (
  select coalesce(sum(archived), 0) as n from {{ ref('data_quality') }}
)

select 'a row is not what Silver holds' as broken, coalesce(d.symbol, b.symbol) as symbol, coalesce(d.hour_start, b.hour_start) as hour_start
from {{ ref('data_quality') }} d
full join brought b on d.symbol = b.symbol and d.source = b.source and d.hour_start = b.hour_start
where coalesce(d.silver, 0) <> coalesce(b.silver, 0) or coalesce(d.rejected, 0) <> coalesce(b.rejected, 0)
  or coalesce(d.quarantined, 0) <> coalesce(b.quarantined, 0) or coalesce(d.received <> b.silver + b.rejected, false)
union all
select 'archived is not what the slots say', '', null from archived, slots where archived.n < slots.taken or archived.n > slots.known
