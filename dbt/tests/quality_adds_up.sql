-- Each record of Silver counts in one row of data_quality, and none counts that is not there. A line tells which does not hold.
with counted as (
  select symbol, source, hour_start, sum(received) as received, sum(silver) as silver, sum(rejected) as rejected, sum(quarantined) as quarantined
  from (
    select {{ symbol_of('t') }} as symbol, {{ source_of('t') }} as source, {{ hour_of('t') }} as hour_start, 1 as received, 0 as silver, 0 as rejected, 0 as quarantined
    from {{ ref('stg_trades') }} t
    union all
    select t.symbol, t.source, {{ hour_of('t') }}, 0, 1, 0, 0 from {{ ref('trades') }} t
    union all
    select {{ symbol_of('r') }}, {{ source_of('r') }}, {{ hour_of('r') }}, 0, 0, 1, 0 from {{ ref('rejected_trades') }} r
    union all
    select '', {{ feed() }}, {{ hour_of('q') }}, 0, 0, 0, 1 from {{ ref('quarantine') }} q
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

select 'a row is not what Silver holds' as broken, coalesce(d.symbol, c.symbol) as symbol, coalesce(d.hour_start, c.hour_start) as hour_start
from {{ ref('data_quality') }} d
full join counted c on d.symbol = c.symbol and d.source = c.source and d.hour_start = c.hour_start
where coalesce(d.received, 0) <> coalesce(c.received, 0) or coalesce(d.silver, 0) <> coalesce(c.silver, 0)
  or coalesce(d.rejected, 0) <> coalesce(c.rejected, 0) or coalesce(d.quarantined, 0) <> coalesce(c.quarantined, 0)
union all
select 'received is not silver and rejected', symbol, hour_start from {{ ref('data_quality') }} where received <> silver + rejected
union all
select 'archived is not what the slots say', '', null from archived, slots where archived.n < slots.taken or archived.n > slots.known
