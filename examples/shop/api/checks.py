"""What must hold before this version can serve, beyond the database."""


def startup(environ):
    """Raises if it does not hold. This version needs nothing more."""
