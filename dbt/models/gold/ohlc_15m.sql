{{ coarser_bars(ref('ohlc_5m'), 'minute', 15) }}
