select symbol, source, session, bucket_start from {{ ref('ohlc_1m') }} group by all having count(*) > 1
