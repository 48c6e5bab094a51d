{{ config(materialized='incremental', incremental_strategy='delete+insert', unique_key=['symbol', 'source', 'bucket_start'],
          on_schema_change='fail', post_hook="{{ keep_run_used() }}") }}
-- Buckets that a new trade touches are computed again from all their trades, so a late one corrects
-- exactly its bar.
with touched as (
  select distinct symbol, source, date_trunc('minute', event_time) as bucket_start
  from {{ ref('trades') }}
  {% if is_incremental() -%}
  where silver_run > {{ last_run_used() }}
  {%- endif %}
),

bucketed as (
  select
    t.symbol, t.source, x.bucket_start, t.price, t.size, t.conditions, t.price_update,
    {{ market_session('t.symbol', 't.event_time') }} as session,
    row_number() over (order by t.event_time, t.session, t.frame, t.idx) as place
  from {{ ref('trades') }} t
  join touched x on t.symbol = x.symbol and t.source = x.source and date_trunc('minute', t.event_time) = x.bucket_start
  {% if is_incremental() -%}
  where t.event_time >= (select min(bucket_start) from touched)
    and t.event_time < (select max(bucket_start) from touched) + interval 1 minute
  {%- endif %}
),

-- Eligibility depends on the set of codes alone, and there are few sets.
condition_sets as (
  select conditions, string_split(conditions, ',') as codes
  from (select distinct conditions from bucketed where conditions is not null and conditions <> '') distinct_sets
),

codes as (
  select
    s.conditions,
    coalesce(r.high_low, t.unlisted) as high_low,
    coalesce(r.open_close, t.unlisted) as open_close,
    coalesce(r.volume, t.unlisted) as volume,
    t.needs_yes
  from (select conditions, unnest(codes) as code from condition_sets) s
  join {{ ref('rule_tables') }} t on t.rule_table = '{{ var("sale_conditions") }}'
  left join {{ ref('sale_conditions') }} r on r.rule_table = t.rule_table and r.code = s.code
),

verdicts as (
  select
    conditions,
    bool_and(high_low in ('yes', 'neutral')) and (bool_or(high_low = 'yes') or not bool_or(needs_yes)) as high_low,
    bool_and(high_low in ('yes', 'neutral', 'extended')) and (bool_or(high_low = 'yes') or not bool_or(needs_yes)) as high_low_extended,
    bool_and(open_close in ('yes', 'neutral')) and (bool_or(open_close = 'yes') or not bool_or(needs_yes)) as open_close,
    bool_and(open_close in ('yes', 'neutral', 'extended')) and (bool_or(open_close = 'yes') or not bool_or(needs_yes)) as open_close_extended,
    bool_and(volume in ('yes', 'neutral')) as volume
  from codes
  group by conditions
),

judged as (
  select
    b.symbol, b.source, b.session, b.bucket_start, b.price, b.size, b.place,
    not b.price_update and case
      when v.conditions is null then not (select needs_yes from {{ ref('rule_tables') }} where rule_table = '{{ var("sale_conditions") }}')
      when b.session in ('pre', 'post') then v.high_low_extended
      else v.high_low
    end as moves_high_low,
    not b.price_update and case
      when v.conditions is null then not (select needs_yes from {{ ref('rule_tables') }} where rule_table = '{{ var("sale_conditions") }}')
      when b.session in ('pre', 'post') then v.open_close_extended
      else v.open_close
    end as moves_open_close,
    not b.price_update and coalesce(v.volume, true) as moves_volume
  from bucketed b
  left join verdicts v on b.conditions = v.conditions
)

select
  symbol,
  source,
  session,
  bucket_start,
  cast(min_by(price, case when moves_open_close then place end) as decimal(18, 8)) as open,
  cast(max(case when moves_high_low then price end) as decimal(18, 8)) as high,
  cast(min(case when moves_high_low then price end) as decimal(18, 8)) as low,
  cast(max_by(price, case when moves_open_close then place end) as decimal(18, 8)) as close,
  cast(coalesce(sum(case when moves_volume then size end), 0) as decimal(38, 8)) as volume,
  cast(coalesce(sum(case when moves_volume then cast(price as decimal(19, 8)) * cast(size as decimal(19, 8)) end), 0) as decimal(38, 16)) as notional,
  cast(count(case when moves_volume then 1 end) as bigint) as trades,
  cast(sum(case when moves_volume then cast(price as decimal(19, 8)) * cast(size as decimal(19, 8)) end) as double)
    / nullif(cast(sum(case when moves_volume then size end) as double), 0) as vwap
from judged
group by symbol, source, session, bucket_start
having bool_or(moves_high_low or moves_open_close or moves_volume)
