{{ config(tags=['each_run']) }}
-- Every identity in the objects of the last load is in Silver: in trades or among the rejected.
-- depends_on: {{ ref('trades') }} {{ ref('rejected_trades') }}
select a.session, a.frame, a.idx
from {{ typed_rows('bronze.pending_trades', 'trades') if execute else 'bronze.empty_trades' }} a
left join {{ ref('trades') }} t on a.session = t.session and a.frame = t.frame and a.idx = t.idx
left join {{ ref('rejected_trades') }} r on a.session = r.session and a.frame = r.frame and a.idx = r.idx
where (t.session is null) = (r.session is null)
