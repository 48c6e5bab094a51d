{# The price band. The reference of a minute is the median of the medians of the last minutes before it (see the
   model minute_prices): of the set of all trades, so that no order of arrival changes a verdict. A new trade can
   therefore change verdicts in its own minute and in the next few of its symbol, and nowhere else; those are judged
   anew, whenever they are. They go through a table: what a macro finds out does not reach the hooks. #}
{% macro judge_minutes() %}
  {%- if execute -%}
    {%- do mend_books() -%}
    {%- do run_statement("create or replace table bronze.pending_" ~ model.name ~ " as " ~ minutes_to_judge()) -%}
  {%- endif -%}
{% endmacro %}

{# Minutes with their reference and their extreme prices: if built anew, those with a price out of band; else all in
   which a verdict may have changed. Only the hours about new trades are looked at, and `hours` is at least how far
   back a reference reaches. #}
{% macro minutes_to_judge() -%}
  {%- set minutes, hours = var('price_band')['minutes'], var('price_band')['hours'] -%}
  {%- set new = "bucket_start is not null and " ~ ("silver_run > " ~ last_run_used() if is_incremental() else "false") -%}
  with touched as (
    select distinct symbol, source, bucket_start from {{ ref('stg_trades') }} where {{ new }}
  ),

  hours_about as (
    {%- for n in range(-hours, hours + 1) %}
    select symbol, source, {{ bucket('hour', 1) }} + interval '{{ n }} hours' as hour_start from touched
    {%- if not loop.last %} union{% endif %}
    {%- endfor %}
  ),

  placed as (
    select
      p.symbol, p.source, p.bucket_start, p.price, p.low, p.high,
      row_number() over (partition by p.symbol, p.source order by p.bucket_start) as place
    from {{ ref('minute_prices') }} p
    {% if is_incremental() -%}
    join hours_about h on p.symbol = h.symbol and p.source = h.source and p.hour_start = h.hour_start
    {#- As literals, by which the scan skips what is older. #}
    where p.bucket_start >= {{ literal("select min(bucket_start) from " ~ ref('stg_trades') ~ " where " ~ new) }} - interval '{{ hours + 1 }} hours'
      and p.bucket_start <= {{ literal("select max(bucket_start) from " ~ ref('stg_trades') ~ " where " ~ new) }} + interval '{{ hours + 1 }} hours'
    {%- endif %}
  ),

  {% if is_incremental() -%}
  new_places as (
    select m.symbol, m.source, m.bucket_start, m.place
    from touched t
    join placed m on t.symbol = m.symbol and t.source = m.source and t.bucket_start = m.bucket_start
  ),

  -- Spelled out: joined with the steps, DuckDB would hold each step against every minute of the symbol.
  reached as (
    {%- for n in range(minutes + 1) %}
    select symbol, source, bucket_start, place + {{ n }} as place from new_places
    {%- if not loop.last %} union all{% endif %}
    {%- endfor %}
  ),

  to_judge as (
    select distinct a.symbol, a.source, a.bucket_start, a.low, a.high, a.place
    from reached m
    join placed a on m.symbol = a.symbol and m.source = a.source and m.place = a.place
    where a.bucket_start <= m.bucket_start + interval '{{ hours }} hours'
  ),
  {%- else -%}
  to_judge as (
    select symbol, source, bucket_start, low, high, place from placed
  ),
  {%- endif %}

  steps as (
    {%- for n in range(1, minutes + 1) %} select {{ n }} as n {%- if not loop.last %} union all{% endif %}{% endfor %}
  ),

  referred as (
    select
      j.symbol, j.source, j.bucket_start, j.low, j.high,
      percentile_disc(0.5) within group (order by e.price) as reference
    from to_judge j
    cross join steps s
    left join placed e
      on j.symbol = e.symbol and j.source = e.source and j.place - s.n = e.place
      and e.bucket_start >= j.bucket_start - interval '{{ hours }} hours'
    group by j.symbol, j.source, j.bucket_start, j.low, j.high
  )

  select symbol, source, bucket_start, low, high, reference from referred
  {% if not is_incremental() -%}
  where {{ out_of_band('high', 'reference') }} or {{ out_of_band('low', 'reference') }}
  {%- endif %}
{%- endmacro %}

{# A record without a symbol or a time is of no bar, whatever is said of it. #}
{% macro could_have_a_bar() %}bucket_start is not null and symbol is not null{% endmacro %}

{# The hooks of rejected_trades. A verdict that no longer holds goes, and its minute is noted, for Gold to make its bars
   anew. If the model is built anew, it forgets its books, and every minute that had or has a rejected trade is noted. #}
{% macro forget_verdicts() -%}
  {%- if is_incremental() -%}
    {%- set gone -%}
      from {{ this }} where rule = 'price_out_of_band' and exists (
        select 1 from bronze.pending_{{ this.identifier }} p
        where p.symbol = {{ this.identifier }}.symbol and p.source = {{ this.identifier }}.source
          and p.bucket_start = {{ this.identifier }}.bucket_start
          and (p.reference is null or not {{ out_of_band(this.identifier ~ '.price', 'p.reference') }}))
    {%- endset -%}
    {{ together([
      "insert into bronze.verdicts_changed select distinct " ~ current_run() ~ ", symbol, source, bucket_start " ~ gone,
      "insert into bronze.loads select '" ~ this.identifier ~ "', " ~ current_run() ~ ", 0, -count(*) " ~ gone ~ " having count(*) > 0",
      "delete " ~ gone
    ]) }}
  {%- elif load_relation(this) -%}
    {{ together([
      "insert into bronze.verdicts_changed
        select distinct " ~ current_run() ~ ", symbol, source, bucket_start from " ~ this ~ " where " ~ could_have_a_bar(),
      "delete from bronze.loads where model = '" ~ this.identifier ~ "'",
      "delete from bronze.runs_used where model = '" ~ this.identifier ~ "'"
    ]) }}
  {%- endif -%}
{%- endmacro %}

{% macro keep_verdicts() -%}
  {%- set anew = not is_incremental() -%}
  {%- set judged = "" if anew else " where silver_run > " ~ last_run_used() -%}
  {{ together([
    "insert into bronze.verdicts_changed
      select distinct " ~ current_run() ~ ", symbol, source, bucket_start from " ~ this ~ "
      where silver_run = " ~ current_run() ~ " and " ~ could_have_a_bar() ~ ("" if anew else " and rule = 'price_out_of_band'"),
    "insert into bronze.loads
      select '" ~ this.identifier ~ "', " ~ current_run() ~ ",
        (select count(*) from " ~ ref('stg_trades') ~ judged ~ "),
        (select count(*) from " ~ this ~ " where silver_run = " ~ current_run() ~ ")"
  ] + used_runs()) }}
{%- endmacro %}
