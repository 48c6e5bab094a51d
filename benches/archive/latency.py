def measure(bench): return None
