"""The refiner: owns the DuckDB file, runs dbt in this process, publishes Gold as Parquet.

Spoken to by JSON lines on standard input, answers on standard output; logs go to standard error.
"""
