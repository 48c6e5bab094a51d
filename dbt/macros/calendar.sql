{# When a market trades is a table of instants in UTC, the seed trading_calendar: SQL needs no time zones, and knows
   holidays, half-days and clock changes. All symbols without an exchange before a colon are of the market US. One
   with it (BINANCE:BTCUSDT) trades round the clock, and no row of the calendar is its own.

   The time by which the day of a symbol is cut: five hours behind UTC for the US the whole year, for its sessions
   lie inside such a day in summer and winter (dbt/tests/calendar_is_sound.sql holds the seed to it), else UTC. #}
{% macro market_time(symbol, ts) -%}
  case when {{ symbol }} like '%:%' then {{ ts }} else {{ dbt.dateadd('hour', -5, ts) }} end
{%- endmacro %}

{# The trading date of a moment, also of one at which the market is closed. DuckDB's own way of it with a time that has
   a zone takes twenty times as long. #}
{% macro trading_date(symbol, ts) %}{{ return(adapter.dispatch('trading_date', 'tickmint')(symbol, ts)) }}{% endmacro %}
{% macro default__trading_date(symbol, ts) -%}
  {{ return("cast(make_timestamp(epoch_us(" ~ ts ~ ") - case when " ~ symbol ~ " like '%:%' then 0 else 18000000000 end) as date)") }}
{%- endmacro %}
{% macro snowflake__trading_date(symbol, ts) -%}
  {{ return("cast(" ~ market_time(symbol, ts) ~ " as date)") }}
{%- endmacro %}

{# Joins the row of the calendar, named `calendar`. There is none on a day without trading, and none for a symbol
   that trades round the clock. #}
{% macro join_calendar(symbol, ts) -%}
  left join {{ ref('trading_calendar') }} calendar
    on calendar.market = case when {{ symbol }} not like '%:%' then 'US' end and calendar.trading_date = {{ trading_date(symbol, ts) }}
{%- endmacro %}

{# The market session of a minute. Wants join_calendar. #}
{% macro market_session(symbol, minute) -%}
  case
    when {{ symbol }} like '%:%' then 'continuous'
    when {{ minute }} >= calendar.pre_open and {{ minute }} < calendar.regular_open then 'pre'
    when {{ minute }} >= calendar.regular_open and {{ minute }} < calendar.regular_close then 'regular'
    when {{ minute }} >= calendar.regular_close and {{ minute }} < calendar.post_close then 'post'
    else 'closed'
  end
{%- endmacro %}

{# Which minute of its session a minute is: counted from the regular open in pre (negative), regular and post, and
   from the begin of the trading date in closed and continuous. Wants join_calendar. #}
{% macro session_minute(symbol, minute, session) -%}
  cast(case
    when {{ session }} in ('pre', 'regular', 'post') then {{ microseconds_between('calendar.regular_open', minute) }} / 60000000
    else extract(hour from {{ market_time(symbol, minute) }}) * 60 + extract(minute from {{ market_time(symbol, minute) }})
  end as integer)
{%- endmacro %}
