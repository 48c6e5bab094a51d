{{ config(tags=['each_run']) }}
-- What the slots brought = rows of stg_trades + repeats, for all that was ever loaded; every row was judged; and each
-- table holds as many rows as its runs say that they kept. A line tells which does not hold.
with brought as (
  select coalesce(sum(s.typed_rows), 0) as n
  from {{ source('bronze', 'ledger') }} l
  join {{ source('bronze', 'slots') }} s
    on l.arrival = s.arrival
  where l.model = 'stg_trades'
),

loads as (
  select
    coalesce(sum(case when model = 'stg_trades' then arrived end), 0) as arrived,
    coalesce(sum(case when model = 'stg_trades' then kept end), 0) as kept,
    coalesce(sum(case when model = 'rejected_trades' then arrived end), 0) as judged,
    coalesce(sum(case when model = 'rejected_trades' then kept end), 0) as rejected
  from {{ source('bronze', 'loads') }}
),

held as (
  select (select count(*) from {{ ref('stg_trades') }}) as kept, (select count(*) from {{ ref('rejected_trades') }}) as rejected
)

select 'arrived is not what the slots brought' as broken, loads.arrived as a, brought.n as b
from loads, brought where loads.arrived <> brought.n
union all
select 'silver.stg_trades does not hold what its runs kept', held.kept, loads.kept from loads, held where held.kept <> loads.kept
union all
select 'silver.rejected_trades does not hold what its runs kept', held.rejected, loads.rejected from loads, held where held.rejected <> loads.rejected
union all
select 'not all that was kept was judged', kept, judged from loads where kept <> judged
union all
select 'more was kept than arrived', kept, arrived from loads where kept > arrived
union all
select 'more was rejected than kept', rejected, kept from loads where rejected > kept
