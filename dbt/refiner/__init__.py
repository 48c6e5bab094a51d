"""The refiner: owns the DuckDB file, runs dbt in this process, publishes Gold as Parquet.

`python -m refiner` is spoken to by JSON lines on standard input and answers on standard output; logs go
to standard error. It may be killed at any point: rows and ledgers commit together, Gold is published by
rename, and what was not finished is done by the next run.
"""
