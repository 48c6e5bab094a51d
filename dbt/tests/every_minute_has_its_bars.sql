-- Gold holds no minute that Silver has no trade of, and lacks none in which a trade without sale
-- conditions has a size: such a trade always moves the volume.
select symbol, source, bucket_start from {{ ref('ohlc_1m') }}
except
select symbol, source, bucket_start from {{ ref('trades') }}
union all
(
  select symbol, source, bucket_start from {{ ref('trades') }}
  where coalesce(conditions, '') = '' and not price_update
  except
  select symbol, source, bucket_start from {{ ref('ohlc_1m') }}
)
