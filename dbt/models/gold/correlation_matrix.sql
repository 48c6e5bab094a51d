{{ config(meta={
  'key': ['source', 'span', 'window_end', 'symbol_a', 'symbol_b'], 'region': ['source', 'span', 'window_end'],
  'made': 'each_minute', 'published_by': 'window_end'
}) }}
{#- What changes with a minute's close: the return of that minute and of the next one, so their half-hours, the dates of these, and
    the five-day windows of each date and of the four behind it. Longer windows are put together from the shorter ones: moments add up. -#}
{%- set half_hour = "interval '30 minutes'" -%}
{%- set date_of = "date_trunc('day', %s - interval '5 hours') + interval '5 hours'" -%}
{% do changed_bars() -%}
{%- if execute and is_incremental() -%}
  {%- do run_statement("create or replace table bronze.touched_" ~ model.name ~ " as
        with half_hours as (
          select distinct source, " ~ bucket('minute', 30, 'm.touched_at') ~ " as window_start from (
            select source, bucket_start as touched_at from bronze.changed_" ~ model.name ~ "
            union all select source, bucket_start + interval '1 minute' from bronze.changed_" ~ model.name ~ ") m
        )
        select source, '30m' as span, window_start + " ~ half_hour ~ " as window_end from half_hours
        union
        select source, '1d', " ~ date_of | format('window_start') ~ " + interval '1 day' from half_hours") -%}
  {#- Where four dates before the first one lie in the last days, nothing older is looked at. -#}
  {%- set near = "t.window_start >= " ~ literal("select min(window_end) - interval '17 days' from bronze.touched_" ~ model.name ~ " where span = '1d'") -%}
  {%- set short = run_query("
        select d.source from (select source, min(window_end) as first_end from bronze.touched_" ~ model.name ~ " where span = '1d' group by source) d
        left join (select distinct t.source, t.window_end from " ~ this ~ " t where t.span = '1d' and " ~ near ~ ") t
          on d.source = t.source and t.window_end < d.first_end
        group by d.source having count(t.window_end) < 4").rows -%}
  {%- set reach = "true" if short else near -%}
  {%- do run_statement("insert into bronze.touched_" ~ model.name ~ "
        with known as (
          select source, window_end, true as is_new from bronze.touched_" ~ model.name ~ " where span = '1d'
          union
          select distinct t.source, t.window_end, false from " ~ this ~ " t where t.span = '1d' and " ~ reach ~ " and not exists (
            select 1 from bronze.touched_" ~ model.name ~ " d where d.span = '1d' and d.source = t.source and d.window_end = t.window_end)
        ),
        near as (
          select source, window_end, max(case when is_new then 1 else 0 end) over (
            partition by source order by window_end rows between 4 preceding and current row) as is_touched
          from known
        )
        select source, '5d', window_end from near where is_touched = 1") -%}
{%- endif -%}

with bars as (
  select o.symbol, o.source, o.session, o.bucket_start, cast(o.close as double) as close
  from {{ ref('ohlc_1m') }} o
  join bronze.watermark_{{ model.name }} w on o.source = w.source and o.bucket_start <= w.watermark - interval '1 minute'
  where o.session in ('regular', 'continuous') and o.close > 0 and {{ since_touched('o.bucket_start', 'window_end', '1 hour') }}
),

returns as (
  select
    b.symbol, b.source, b.bucket_start, ln(b.close / a.close) as value,
    {{ bucket('minute', 30, 'b.bucket_start') }} + {{ half_hour }} as window_end
  from bars b
  join bars a on b.symbol = a.symbol and b.source = a.source and b.session = a.session and b.bucket_start = a.bucket_start + interval '1 minute'
),

-- Before they are paired, which makes fifty of each of a hundred symbols.
touched_returns as (
  select r.symbol, r.source, r.bucket_start, r.value, r.window_end
  from returns r
  {% if is_incremental() -%}
  join bronze.touched_{{ model.name }} t on t.span = '30m' and r.source = t.source and r.window_end = t.window_end
  {%- endif %}
),

half_hours as (
  select
    a.source, a.window_end, a.symbol as symbol_a, b.symbol as symbol_b, count(*) as n,
    avg(a.value) as mean_a, avg(b.value) as mean_b,
    var_pop(a.value) as variance_a, var_pop(b.value) as variance_b, covar_pop(a.value, b.value) as covariance
  from touched_returns a
  join touched_returns b on a.source = b.source and a.bucket_start = b.bucket_start and a.symbol < b.symbol
  group by a.source, a.window_end, a.symbol, b.symbol
),

half_hours_of_dates as (
  select source, window_end, {{ moments() }} from half_hours
  {% if is_incremental() -%}
  union all
  select p.source, p.window_end, {{ moments('p.') }}
  from {{ this }} p
  join bronze.touched_{{ model.name }} t
    on t.span = '1d' and p.source = t.source and p.window_start >= t.window_end - interval '1 day' and p.window_end <= t.window_end
  where p.span = '30m' and not exists (
    select 1 from bronze.touched_{{ model.name }} x where x.span = '30m' and x.source = p.source and x.window_end = p.window_end
  )
  {%- endif %}
),

-- The times of all pairs are the same few. Made anew, there is nothing but the half-hours: read twice, a copy would be held.
dates_of_half_hours as (
  select window_end, {{ date_of | format('window_end - ' ~ half_hour) }} as date_start
  from (select distinct window_end from {{ 'half_hours_of_dates' if is_incremental() else 'half_hours' }}) h
),

dates as (
  select h.source, d.date_start, h.symbol_a, h.symbol_b, {{ pooled_moments('h.') }}
  from half_hours_of_dates h
  join dates_of_half_hours d on h.window_end = d.window_end
  group by h.source, d.date_start, h.symbol_a, h.symbol_b
),

all_dates as (
  select source, date_start, {{ moments() }} from dates
  {% if is_incremental() -%}
  union all
  select source, window_start, {{ moments() }} from {{ this }} t
  where span = '1d' and {{ reach }} and not exists (
    select 1 from bronze.touched_{{ model.name }} x where x.span = '1d' and x.source = t.source and x.window_end = t.window_end
  )
  {%- endif %}
),

placed_dates as (
  select source, date_start, row_number() over (partition by source order by date_start) as place
  from (select distinct source, date_start from all_dates) d
),

-- Which dates stand in the five-day window that ends with a date.
five_dates as (
  select l.source, d.date_start, l.date_start as last_start, min(d.date_start) over (partition by l.source, l.date_start) as first_start
  from placed_dates l
  join placed_dates d on l.source = d.source and d.place > l.place - 5 and d.place <= l.place
),

five_days as (
  select f.source, f.first_start, f.last_start, d.symbol_a, d.symbol_b, {{ pooled_moments('d.') }}
  from five_dates f
  {% if is_incremental() -%}
  join bronze.touched_{{ model.name }} t on t.span = '5d' and f.source = t.source and f.last_start + interval '1 day' = t.window_end
  {% endif -%}
  join all_dates d on f.source = d.source and f.date_start = d.date_start
  group by f.source, f.first_start, f.last_start, d.symbol_a, d.symbol_b
),

windows as (
  select source, '30m' as span, window_end - {{ half_hour }} as window_start, window_end, {{ moments() }} from half_hours
  union all
  select source, '1d', date_start, date_start + interval '1 day', {{ moments() }} from dates
  union all
  select source, '5d', first_start, last_start + interval '1 day', {{ moments() }} from five_days
)

select
  source,
  span,
  window_start,
  window_end,
  symbol_a,
  symbol_b,
  cast(n as bigint) as n,
  case when n >= {{ var('correlation_min_pairs') }} then covariance / nullif(sqrt(variance_a) * sqrt(variance_b), 0) end as correlation,
  mean_a,
  mean_b,
  variance_a,
  variance_b,
  covariance
from windows
{{ by_time('window_end') }}
