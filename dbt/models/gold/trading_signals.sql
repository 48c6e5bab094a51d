{{ config(meta={
  'key': ['symbol', 'source', 'session', 'bucket_start', 'rule', 'version'], 'region': 'tails', 'made': 'each_minute'
}) }}
{#- A signal's outcome reaches an hour ahead: a bar that changes or closes touches the signals of the hour before it, and those
    whose time has come, whether their symbol has traded since or not. -#}
{%- set rules = signal_rules() -%}
{%- set lookback = (rules | map(attribute='bars') | select | list + [1]) | max -%}
{% do [changed_bars(), ref('volume_indicators'), ref('moving_averages')] -%}
{%- if execute and is_incremental() -%}
  {%- do run_statement("create or replace table bronze.touched_" ~ model.name ~ " as
        select symbol, source, min(since) as since from (
          select symbol, source, bucket_start - interval '60 minutes' as since from bronze.changed_" ~ model.name ~ "
          union all
          select s.symbol, s.source, s.bucket_start from " ~ this ~ " s
          join bronze.watermark_" ~ model.name ~ " b on s.source = b.source and (b.before is null or s.bucket_start > b.before - interval '62 minutes')
          where s.bucket_start > " ~ watermark_before('62 minutes') ~ "
        ) t group by symbol, source") -%}
  {%- set going_on = "(select symbol, source, session from " ~ ref('moving_averages') ~ " m where " ~ since_touched('m.bucket_start') ~ ")" -%}
  {%- do run_statement("create or replace table bronze.before_" ~ model.name ~ " as " ~ last_before_tail(going_on, ref('moving_averages'))) -%}
{%- endif -%}

{% if is_incremental() -%}
{#- The first bar that any rule looks at, as a literal: three tables are joined. -#}
{%- set first = literal("select min(since) from (
      select since from bronze.touched_" ~ model.name ~ "
      union all
      select p.bucket_start from " ~ ref('moving_averages') ~ " p join bronze.before_" ~ model.name ~ " b
        on " ~ same_series('p', 'b') ~ " and p.bars > b.bars - " ~ lookback ~ " and p.bars <= b.bars
    ) s") -%}
{%- endif -%}
with bars as (
  select
    {{ series('m') }}, m.bucket_start, m.bars as place, m.close as price,
    cast(m.close as double) as close, cast(o.high as double) as high, cast(o.low as double) as low, cast(o.volume as double) as volume,
    m.sma_5, m.sma_20, m.sma_50, m.ema_5, m.ema_20, m.ema_50, m.wma_5, m.wma_20, m.wma_50, m.bb_upper, m.bb_middle, m.bb_lower,
    v.macd, v.macd_signal, v.vwap_session, v.vwap_20, v.relative_volume,
    {{ 'm.bucket_start >= t.since' if is_incremental() else 'true' }} as is_new
  from {{ ref('moving_averages') }} m
  join {{ ref('volume_indicators') }} v on {{ same_series('m', 'v') }} and m.bucket_start = v.bucket_start
  join {{ ref('ohlc_1m') }} o on {{ same_series('m', 'o') }} and m.bucket_start = o.bucket_start
  {% if is_incremental() -%}
  join bronze.touched_{{ model.name }} t on m.symbol = t.symbol and m.source = t.source
  left join bronze.before_{{ model.name }} b on {{ same_series('m', 'b') }}
  where m.bars > coalesce(b.bars, 0) - {{ lookback }}
    and m.bucket_start >= {{ first }} and v.bucket_start >= {{ first }} and o.bucket_start >= {{ first }}
  {%- endif %}
),

looked_back as (
  select
    *
    {%- for rule in rules %}
    {{ looks_back(rule, loop.index) }}
    {%- endfor %}
  from bars
),

judged as (
  {%- for rule in rules %}
  {{ judged_by(rule, loop.index) }}
  {{ 'union all' if not loop.last }}
  {%- endfor %}
),

fired as (
  select * from judged where direction is not null
),

outcomes as (
  select
    f.rule, f.version, {{ series('f') }}, f.bucket_start,
    {%- for minutes in [5, 15, 60] %}
    max_by(b.close, case when b.bucket_start <= f.bucket_start + interval '{{ minutes }} minutes' then b.bucket_start end) as close_{{ minutes }}{{ ',' if not loop.last }}
    {%- endfor %}
  from fired f
  join bars b on {{ same_series('f', 'b') }} and b.bucket_start >= f.bucket_start and b.bucket_start <= f.bucket_start + interval '60 minutes'
  group by f.rule, f.version, {{ series('f') }}, f.bucket_start
)

select
  f.rule,
  cast(f.version as integer) as version,
  {{ series('f') }},
  f.bucket_start,
  f.direction,
  f.price,
  f.inputs,
  f.value,
  f.level,
  f.value_before,
  f.level_before,
  {%- for minutes in [5, 15, 60] %}
  case when w.watermark >= f.bucket_start + interval '{{ minutes + 1 }} minutes' then o.close_{{ minutes }} / cast(f.price as double) - 1 end as return_{{ minutes }}m{{ ',' if not loop.last }}
  {%- endfor %}
from fired f
join outcomes o on {{ same_series('f', 'o') }} and f.bucket_start = o.bucket_start and f.rule = o.rule and f.version = o.version
join {{ watermark_now() }} w on f.source = w.source
{{ by_time('f.bucket_start') }}
