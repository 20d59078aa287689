"""`python -m server.keys TENANT`: a new API key, and the entry for `foldback.yaml` that lets it in."""

import argparse
import hashlib
import secrets

PREFIX = "fb_"
"""Lets scanners of leaked secrets, and people, see what it is."""


def new_key() -> str:
    """256 random bits: too many to guess, so a plain digest is enough to keep."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m server.keys", description=__doc__)
    parser.add_argument("tenant", help="whom the key speaks for")
    parser.add_argument("--admin", action="store_true", help="for the admin port")
    options = parser.parse_args()
    key = new_key()
    print(f"key, shown once: {key}\n")
    print(f"server:\n  access:\n    {'admin_keys' if options.admin else 'api_keys'}:")
    print(f"      - tenant: {options.tenant}\n        sha256: {digest(key)}")


if __name__ == "__main__":
    main()
