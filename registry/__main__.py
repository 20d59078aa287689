"""`python -m registry check`: whether the registry that the settings name is readable and whole, as JSON."""

import dataclasses
import json
import sys

import settings as settings_package
from registry.check import check


def main() -> int:
    if sys.argv[1:] != ["check"]:
        print("usage: python -m registry check", file=sys.stderr)
        return 2
    try:
        url = settings_package.load().registry_url
    except settings_package.SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        found = check(url)
    except Exception as error:  # whatever a filesystem raises: it names what it could not do
        print(f"{url}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(dataclasses.asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
