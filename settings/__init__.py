"""One typed `foldback.yaml`: a section a package, every field documented."""

from settings.load import Settings, SettingsError, load

__all__ = ["Settings", "SettingsError", "load"]
