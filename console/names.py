"""Names of versions, as people read and type them."""

from collections.abc import Iterable

from console.errors import CommandError


def short_version(version: str) -> str:
    """p000012-3fa9c1d2 as p12: enough to tell versions apart by eye."""
    number = version.partition("-")[0].removeprefix("p")
    return f"p{int(number)}" if number.isdecimal() else version or "–"


def full_version(typed: str, versions: Iterable[str]) -> str:
    """The version that `typed` means, whole or short. Raises CommandError: there is none, or more than one."""
    known = list(versions)
    if typed in known:
        return typed
    meant = [version for version in known if short_version(version) == typed]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise CommandError(f"{typed} may be {' or '.join(meant)}: type the whole name", 2)
    raise CommandError(f"no version {typed}: 'foldback policies' lists those there are")
