{{ config(severity='warn') }}
select max(trading_date) as last_date from {{ ref('trading_calendar') }} where market = 'US'
having coalesce(max(trading_date) < cast({{ dbt.dateadd('day', 30, dbt.current_timestamp()) }} as date), true)
