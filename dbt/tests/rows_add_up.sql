{{ config(tags=['each_run']) }}
-- What the slots brought = trades + rejected + repeats, for all that was ever loaded; and each table
-- holds as many rows as its runs say that they kept. A line tells which does not hold.
with brought as (
  select coalesce(sum(s.typed_rows), 0) as n
  from {{ source('bronze', 'ledger') }} l
  join {{ source('bronze', 'slots') }} s
    on l.stream = s.stream and l.partition = s.partition and l.generation = s.generation and l."start" = s."start"
  where l.model = 'trades'
),

loads as (
  select
    coalesce(sum(case when model = 'trades' then arrived end), 0) as arrived,
    coalesce(sum(case when model = 'rejected_trades' then arrived end), 0) as arrived_again,
    coalesce(sum(case when model = 'trades' then kept end), 0) as good,
    coalesce(sum(case when model = 'rejected_trades' then kept end), 0) as rejected
  from {{ source('bronze', 'loads') }}
),

held as (
  select (select count(*) from {{ ref('trades') }}) as good, (select count(*) from {{ ref('rejected_trades') }}) as rejected
)

select 'arrived is not what the slots brought' as broken, loads.arrived as a, brought.n as b
from loads, brought where loads.arrived <> brought.n or loads.arrived_again <> brought.n
union all
select 'silver.trades does not hold what its runs kept', held.good, loads.good from loads, held where held.good <> loads.good
union all
select 'silver.rejected_trades does not hold what its runs kept', held.rejected, loads.rejected from loads, held where held.rejected <> loads.rejected
union all
select 'more was kept than arrived', good + rejected, arrived from loads where good + rejected > arrived
