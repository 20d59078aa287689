"""Who is calling."""

from contextvars import ContextVar

DEFAULT_TENANT = "default"
TENANT = ContextVar("tenant", default=DEFAULT_TENANT)
"""Set around each call, in its own task."""


def current_tenant() -> str:
    """The tenant that the present call is made for; without API keys everyone is of the default tenant."""
    return TENANT.get()
