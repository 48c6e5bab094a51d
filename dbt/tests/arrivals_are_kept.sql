{{ config(tags=['each_run']) }}
-- Every identity in the objects of the last load is in Silver.
-- depends_on: {{ ref('stg_trades') }}
select a.session, a.frame, a.idx
from {{ typed_rows('bronze.pending_stg_trades', 'trades') if execute else no_rows('trades') }} a
left join {{ ref('stg_trades') }} t on a.session = t.session and a.frame = t.frame and a.idx = t.idx
where t.session is null
