{{ config(meta={'published_per': 'month'}) }}
{{ coarser_bars(ref('ohlc_15m'), 'hour', 1) }}
