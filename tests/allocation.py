"""How much memory NumPy's arrays take while something runs, by Python's own account."""

import tracemalloc


def peak(call):
    """Bytes that were held at most while `call` ran, above those before."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
