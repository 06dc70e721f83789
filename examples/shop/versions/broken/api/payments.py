"""Where customers pay. New in this version."""


class SettingMissing(Exception):
    pass


def gateway(environ):
    url = environ.get("PAYMENT_GATEWAY_URL")
    if not url:
        raise SettingMissing("PAYMENT_GATEWAY_URL is not set: orders cannot be paid without it")
    return url
