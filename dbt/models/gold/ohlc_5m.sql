{{ coarser_bars(ref('ohlc_1m'), 'minute', 5) }}
