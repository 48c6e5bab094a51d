{{ config(tags=['each_run']) }}
-- Every identity in the objects of the last load is in Silver. Of a load that failed, no object was taken.
-- depends_on: {{ ref('stg_trades') }}
{%- set taken = "(select p.* from bronze.pending_stg_trades p where exists (select 1 from bronze.ledger l where l.model = 'stg_trades' and l.arrival = p.arrival))" %}
select a.session, a.frame, a.idx
from {{ typed_rows(taken, 'trades') if execute else no_rows('trades') }} a
left join {{ ref('stg_trades') }} t on a.session = t.session and a.frame = t.frame and a.idx = t.idx
where t.session is null
