"""Prices by the minute, over connections to the wholesaler that are kept for the next visitor."""

import threading

# As many as the wholesaler allows.
CONNECTIONS_MAX = 12

_free = threading.Semaphore(CONNECTIONS_MAX)


def apply(products):
    """Takes a connection to the wholesaler, and forgets to give it back."""
    _free.acquire()
    return products
