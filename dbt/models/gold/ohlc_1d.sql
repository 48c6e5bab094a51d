{{ config(meta={'published_per': 'year'}) }}
{{ coarser_bars(ref('ohlc_1h'), 'date', 1) }}
