"""Makes the folders of the shared helpers known."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1] / "dbt"
sys.path[:0] = [str(HERE), str(HERE.parent / "warehouse"), str(PROJECT)]
