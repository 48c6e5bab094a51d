{{ config(meta={'region': 'tails', 'made': 'each_minute'}) }}
{#- EMAs of MACD, and Wilder's means of RSI: the last values before the tail are kept in the table. -#}
{%- set decays = {'ema_12': ema_decay(12), 'ema_26': ema_decay(26), 'avg_gain_14': wilder_decay(14), 'avg_loss_14': wilder_decay(14)} -%}
{#- The longest window. -#}
{%- set longest = 26 -%}
{%- set kept = decays.keys() | list + ['macd_signal'] -%}
{%- set faded = "1e-30 * cast(d.close as double)" -%}
{%- do touched_tails() -%}
{%- set tail = closed_bars() -%}
{%- do note_bars_before(longest, tail) -%}
{%- set before_tail = minutes_before('bucket_start') if is_incremental() %}
{%- call(part) by_parts('d.bucket_start') %}
with new_bars as (
  select * from ({{ tail }}) o where {{ part }}
),

{% if is_incremental() -%}
before as (
  {{ bars_before(part) }}
),

-- As many bars before the tail as the longest window looks back.
earlier as (
  select {{ series('p') }}, p.bucket_start, p.bars, b.bars as bars_before, p.obv, p.macd, {{ kept | join(', ') }}
  from {{ this }} p
  join before b on {{ same_series('p', 'b') }} and p.bars > b.bars - {{ longest }} and p.bars <= b.bars
  where {{ before_tail | replace('bucket_start', 'p.bucket_start') }}
),
{%- endif %}

placed as (
  select
    {{ series('n') }}, n.bucket_start, n.high, n.low, n.close, n.volume, n.notional, true as is_new,
    {{ 'coalesce(b.bars, 0)' if is_incremental() else '0' }} as bars_before,
    cast(null as decimal(38, 8)) as obv,
    cast(null as double) as macd{% for name in kept %}, cast(null as double) as {{ name }}{% endfor %}
  from new_bars n
  {% if is_incremental() -%}
  left join before b on {{ same_series('n', 'b') }}
  union all
  select
    {{ series('e') }}, e.bucket_start, o.high, o.low, o.close, o.volume, o.notional, false, e.bars_before,
    case when e.bars = e.bars_before then e.obv end,
    e.macd{% for name in kept %}, case when e.bars = e.bars_before then e.{{ name }} end{% endfor %}
  from earlier e
  join {{ ref('ohlc_1m') }} o on {{ same_series('e', 'o') }} and e.bucket_start = o.bucket_start
  where {{ before_tail | replace('bucket_start', 'o.bucket_start') }}
  {%- endif %}
),

typical as (
  select
    *,
    -- The first row of a series is its bar 1, or the first of those before the tail.
    row_number() over (partition by {{ series() }} order by bucket_start) + greatest(bars_before - {{ longest }}, 0) as place,
    cast(close as double) as price,
    (cast(high as double) + cast(low as double) + cast(close as double)) / 3 as typical_price,
    lag(close) over (partition by {{ series() }} order by bucket_start) as close_before,
    -- Decimals, as doubles of equal sums may differ by their last bit, and a flow would go the wrong way.
    high + low + close as price_sum,
    lag(high + low + close) over (partition by {{ series() }} order by bucket_start) as price_sum_before,
    avg(cast(close as double)) {{ last_bars(12) }} as mean_12,
    avg(cast(close as double)) {{ last_bars(26) }} as mean_26
  from placed
),

changes as (
  select
    *,
    place - greatest(bars_before, 1) as row_in_tail,
    typical_price * cast(volume as double) as money_flow,
    cast(case when close > close_before then close - close_before else 0 end as double) as gain,
    cast(case when close < close_before then close_before - close else 0 end as double) as loss,
    case
      when obv is not null then obv
      when not is_new then 0
      when close > close_before or close_before is null then volume
      when close < close_before then -volume
      else 0
    end as x_obv
  from typical
),

started as (
  select
    *,
    {{ chunk_of('row_in_tail') }} as chunk,
    {{ place_in_chunk('row_in_tail') }} as in_chunk,
    sum(x_obv) over (partition by {{ series() }} order by bucket_start rows unbounded preceding) as new_obv,
    avg(gain) {{ last_bars(14) }} as mean_gain,
    avg(loss) {{ last_bars(14) }} as mean_loss,
    sum(case when price_sum > price_sum_before then money_flow else 0 end) {{ last_bars(14) }} as flow_in,
    sum(case when price_sum < price_sum_before then money_flow else 0 end) {{ last_bars(14) }} as flow_out,
    sum(cast(notional as double)) {{ last_bars(20) }} / nullif(sum(cast(volume as double)) {{ last_bars(20) }}, 0) as rolling_vwap
  from changes
),

-- TA-Lib's first values: both EMAs of MACD are first known at the 26th bar, Wilder's means at the 15th.
fed as (
  select
    *,
    {% for n in [12, 26] -%}
    case
      when ema_{{ n }} is not null then ema_{{ n }}
      when place < 26 or not is_new then 0
      when place = 26 then mean_{{ n }}
      else {{ ema_alpha(n) }} * price
    end as x_ema_{{ n }},
    {% endfor -%}
    {% for name in ['gain', 'loss'] -%}
    case
      when avg_{{ name }}_14 is not null then avg_{{ name }}_14
      when place < 15 or not is_new then 0
      when place = 15 then mean_{{ name }}
      else {{ wilder_alpha(14) }} * {{ name }}
    end as x_avg_{{ name }}_14{{ ',' if not loop.last }}
    {% endfor %}
  from started
),

local as (
  select
    *,
    {% for name, decay in decays.items() %}{{ smoothed_in_chunk('x_' ~ name, decay) }} as y_{{ name }}{{ ',' if not loop.last }}
    {% endfor %}
  from fed
),

means as (
  select
    l.*,
    {% for name, decay in decays.items() %}{{ smoothed('y_' ~ name, decay) }} as new_{{ name }}{{ ',' if not loop.last }}
    {% endfor %}
  from local l
  {{ join_chunks_before('local') }}
),

-- The signal is an EMA of MACD in turn, from the mean of its first nine values on.
macds as (
  select *, case when not is_new then macd when place >= 26 then new_ema_12 - new_ema_26 end as new_macd from means
),

first_signals as (
  select {{ series() }}, avg(new_macd) as mean_macd from macds where place >= 26 and place <= 34 group by {{ series() }}
),

signals as (
  select
    m.*,
    case
      when m.macd_signal is not null then m.macd_signal
      when m.place < 34 or not m.is_new then 0
      when m.place = 34 then f.mean_macd
      else {{ ema_alpha(9) }} * m.new_macd
    end as x_signal
  from macds m
  left join first_signals f on {{ same_series('m', 'f') }}
),

signals_local as (
  select *, {{ smoothed_in_chunk('x_signal', ema_decay(9)) }} as y_signal from signals
),

signalled as (
  select
    {{ series('l') }}, l.bucket_start, l.close, l.volume, l.place, l.rolling_vwap, l.new_obv, l.money_flow, l.flow_in, l.flow_out,
    l.new_avg_gain_14, l.new_avg_loss_14, l.new_ema_12, l.new_ema_26, l.new_macd,
    {{ smoothed('y_signal', ema_decay(9)) }} as new_signal
  from signals_local l
  {{ join_chunks_before('signals_local') }}
  where l.is_new
),

dated as (
  select
    s.*,
    {{ trading_date('s.symbol', 's.bucket_start') }} as trading_date,
    {{ session_minute('s.symbol', 's.bucket_start', 's.session') }} as minute
  from signalled s
  {{ join_calendar('s.symbol', 's.bucket_start') }}
),

-- What was traded on a date up to a minute: by all bars, also those without a price. Those before the tail are one row.
traded as (
  select {{ series() }}, trading_date, bucket_start, sum(notional) as notional, sum(volume) as volume
  from (
    select
      {{ series('o') }}, {{ trading_date('o.symbol', 'o.bucket_start') }} as trading_date, o.notional, o.volume,
      {{ 'case when o.bucket_start >= t.since then o.bucket_start end' if is_incremental() else 'o.bucket_start' }} as bucket_start
    from {{ ref('ohlc_1m') }} o
    {% if is_incremental() -%}
    join bronze.touched_{{ model.name }} t
      on o.symbol = t.symbol and o.source = t.source
        and {{ trading_date('o.symbol', 'o.bucket_start') }} >= {{ trading_date('t.symbol', 't.since') }}
    {%- endif %}
    where {{ since_touched('o.bucket_start', back='1 day') }} and {{ part }}
  ) o
  group by {{ series() }}, trading_date, bucket_start
),

days as (
  select
    {{ series() }}, bucket_start,
    sum(notional) over (partition by {{ series() }}, trading_date order by bucket_start nulls first rows unbounded preceding) as notional,
    sum(volume) over (partition by {{ series() }}, trading_date order by bucket_start nulls first rows unbounded preceding) as volume
  from traded
),

minutes as (
  select {{ series() }}, minute, trading_date, bucket_start, volume from dated
  {% if is_incremental() -%}
  union all
  select {{ series('p') }}, p.minute, p.trading_date, p.bucket_start, p.volume
  from {{ this }} p
  join bronze.touched_{{ model.name }} t on p.symbol = t.symbol and p.source = t.source and p.bucket_start < t.since
  join (select distinct {{ series() }}, minute from dated) d on {{ same_series('p', 'd') }} and p.minute = d.minute
  {%- endif %}
),

usual as (
  select
    {{ series() }}, bucket_start,
    avg(cast(volume as double)) over (
      partition by {{ series() }}, minute order by trading_date, bucket_start rows between 20 preceding and 1 preceding
    ) as volume
  from minutes
)

select
  {{ series('d') }},
  d.bucket_start,
  d.trading_date,
  d.minute,
  d.close,
  d.volume,
  cast(d.place as bigint) as bars,
  cast(y.notional as double) / nullif(cast(y.volume as double), 0) as vwap_session,
  case when d.place >= 20 then d.rolling_vwap end as vwap_20,
  cast(d.new_obv as decimal(38, 8)) as obv,
  cast(d.volume as double) / nullif(u.volume, 0) as relative_volume,
  d.money_flow,
  case when d.place >= 15 then 100 * d.flow_in / nullif(d.flow_in + d.flow_out, 0) end as mfi_14,
  -- Of a price that has stood still for some 900 bars Wilder's means are zero: a tail knows nothing older.
  case when d.place >= 15 and {{ faded }} < d.new_avg_gain_14 + d.new_avg_loss_14 then 100 * d.new_avg_gain_14 / (d.new_avg_gain_14 + d.new_avg_loss_14) end as rsi_14,
  {% for name in ['avg_gain_14', 'avg_loss_14'] -%}
  case when d.place >= 15 and {{ faded }} < d.new_{{ name }} then d.new_{{ name }} when d.place >= 15 then 0 end as {{ name }},
  {% endfor -%}
  d.new_macd as macd,
  case when d.place >= 34 then d.new_signal end as macd_signal,
  case when d.place >= 34 then d.new_macd - d.new_signal end as macd_histogram,
  case when d.place >= 26 then d.new_ema_12 end as ema_12,
  case when d.place >= 26 then d.new_ema_26 end as ema_26
from dated d
join days y on {{ same_series('d', 'y') }} and d.bucket_start = y.bucket_start
left join usual u on {{ same_series('d', 'u') }} and d.bucket_start = u.bucket_start
{%- endcall %}
