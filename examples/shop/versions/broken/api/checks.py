"""What must hold before this version can serve, beyond the database."""

import payments


def startup(environ):
    """Raises if it does not hold."""
    payments.gateway(environ)
