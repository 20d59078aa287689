"""Who is calling."""

from server.interceptor import Context

DEFAULT_TENANT = "default"


def tenant_of(context: Context) -> str:
    """The tenant that the call is made for; without API keys everyone is of the default tenant."""
    return DEFAULT_TENANT
