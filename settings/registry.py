"""`registry:` where policy versions live."""

from pydantic import Field

from settings.section import Section


class RegistrySettings(Section):
    url: str = ""
    """An fsspec URL (file://, s3://, gs:// …). Empty: `registry` below `data_dir`."""
    keep: int = Field(default=5, ge=2)
    """Retired and rolled-back versions that are kept, and rejected ones where fewer of those are there; the active one,
    its parent and the base always are."""
    poll_interval_s: float = Field(default=0.5, gt=0)
    """How often a replica looks for a new transition."""
