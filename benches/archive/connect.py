from pathlib import Path
import os
from servers import Skipped
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tickmint"
def iceberg(bench, topic): raise Skipped("not yet")
def floor(bench, topic): raise Skipped("not yet")
