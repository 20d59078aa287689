"""API keys in files, read anew when they change: whoever rotates a mounted secret restarts nothing."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from settings import SettingsError
from settings.access import ApiKey

log = logging.getLogger(__name__)
LOOK_S = 1.0
"""How often files are looked at. A secret takes the kubelet up to a minute anyway."""
REMEDIES = {
    "sha256": "is not the 64 hexadecimal digits of a digest; put what `python -m server.keys` prints, not the key",
    "tenant": "is no tenant's name: up to 64 letters, digits, dots, dashes and underscores",
    "calls_per_minute": "is not a whole number from 0 on",
    "max_in_flight": "is not a whole number from 0 on",
}
_keys = TypeAdapter(tuple[ApiKey, ...])


class KeyFile:
    """A YAML list of keys, each with the fields of settings.access.ApiKey. What it says of faults quotes nothing from
    the file: a key that was put there by mistake must not reach the log."""

    def __init__(self, setting: str, path: Path) -> None:
        """`setting` names the file in messages, as "server.access.api_keys_file"."""
        self._name = f"{setting}={path}"
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    def read(self) -> tuple[ApiKey, ...]:
        """At least one. Raises SettingsError: it cannot be read or used; the message names the line and the remedy."""
        self._seen = self._mark()
        try:
            text = self._path.read_text()
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "is not text"
            raise SettingsError(f"{self._name}: {why}; make it readable to the server") from None
        try:
            keys = _keys.validate_python(tuple(yaml.safe_load(text) or ()))
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            raise self._fault(mark.line + 1 if mark else 1, "is not YAML; correct it") from None
        except (TypeError, ValidationError) as error:
            raise self._fault(*_explained(error, text)) from None
        if not keys:
            raise self._fault(1, "holds no key, and that would let everybody in; list one, or unset the setting")
        return keys

    def renewed(self) -> tuple[ApiKey, ...] | None:
        """None: use those that there are, for nothing has changed, or the log says what is wrong with the change."""
        if self._mark() == self._seen:
            return None
        try:
            keys = self.read()
        except SettingsError as error:
            log.error("%s; the keys read last still hold", error)
            return None
        log.info("%s: keys read anew: %d", self._name, len(keys))
        return keys

    def _mark(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def _fault(self, line: int, why: str) -> SettingsError:
        return SettingsError(f"{self._name}: line {line}: {why}")


def _explained(error: TypeError | ValidationError, text: str) -> tuple[int, str]:
    """The line of the first fault, counted from 1, and what is wrong there."""
    listed = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(error, ValidationError) or not isinstance(listed, yaml.SequenceNode):
        return listed.start_mark.line + 1 if listed else 1, "is not a list; begin each key with '- tenant:'"
    index, *field = error.errors(include_input=False)[0]["loc"]
    item = listed.value[index]
    if not field:
        return item.start_mark.line + 1, "is not a key; give it fields, `sha256` and `tenant`"
    line = item.start_mark.line + 1
    for name, value in item.value:
        if name.value == field[0]:
            line = value.start_mark.line + 1
    if field[0] not in REMEDIES:
        return line, f"is no field of a key; there are {', '.join(REMEDIES)}"
    return line, f"{field[0]} {REMEDIES[str(field[0])]}"


async def follow(file: KeyFile, use: Callable[[tuple[ApiKey, ...]], None]) -> None:
    """Tells `use` of new keys until cancelled."""
    while True:
        await asyncio.sleep(LOOK_S)
        if keys := await asyncio.to_thread(file.renewed):
            use(keys)
