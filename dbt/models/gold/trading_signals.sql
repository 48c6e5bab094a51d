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
          join bronze.watermark_" ~ model.name ~ " b on s.source = b.source and (b.before is null or (b.watermark > b.before and s.bucket_start > b.before - interval '62 minutes'))
          where s.bucket_start > " ~ watermark_before('62 minutes') ~ "
        ) t group by symbol, source") -%}
{%- endif -%}
{%- set tail = "select " ~ series('m') ~ ", m.bucket_start from " ~ ref('moving_averages') ~ " m
      join bronze.touched_" ~ model.name ~ " t on m.symbol = t.symbol and m.source = t.source and m.bucket_start >= t.since
      where " ~ since_touched('m.bucket_start') -%}
{%- do note_bars_before(lookback, tail, ref('moving_averages')) -%}
{#- The minutes that any rule looks at, named to each of three tables. -#}
{%- set looked_at = only_minutes('bucket_start', "select bucket_start from bronze.before_" ~ model.name ~ " union select bucket_start from (" ~ tail ~ ") m") if is_incremental() -%}
{%- call(part) by_parts('f.bucket_start') %}
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
  left join bronze.before_{{ model.name }} b on {{ same_series('m', 'b') }} and m.bucket_start = b.bucket_start
  {%- endif %}
  where {% for table in ['m', 'v', 'o'] %}{{ 'and ' if not loop.first }}{{ part | replace('o.symbol', table ~ '.symbol') }} {% endfor %}
    {%- if is_incremental() %}
    and (m.bucket_start >= t.since or b.bars is not null)
    {%- for table in ['m', 'v', 'o'] %} and {{ looked_at | replace('bucket_start', table ~ '.bucket_start') }}{% endfor %}
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

-- The hours in which an outcome may lie, or each signal would be held against all bars of its series.
looked_ahead as (
  select rule, version, {{ series() }}, bucket_start, {{ bucket('hour', 1) }} as hour_start from fired
  union all
  select rule, version, {{ series() }}, bucket_start, {{ bucket('hour', 1) }} + interval '1 hour' from fired
),

outcomes as (
  select
    f.rule, f.version, {{ series('f') }}, f.bucket_start,
    {%- for minutes in [5, 15, 60] %}
    max_by(b.close, case when {{ microseconds_between('f.bucket_start', 'b.bucket_start') }} <= {{ 60000000 * minutes }} then b.bucket_start end) as close_{{ minutes }}{{ ',' if not loop.last }}
    {%- endfor %}
  from looked_ahead f
  join (select {{ series() }}, bucket_start, {{ bucket('hour', 1) }} as hour_start, close from bars) b
    on {{ same_series('f', 'b') }} and f.hour_start = b.hour_start
      and b.bucket_start >= f.bucket_start and b.bucket_start <= f.bucket_start + interval '60 minutes'
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
{%- endcall %}
