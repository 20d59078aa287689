#!/usr/bin/env bash
# What only the tests need and pip does not bring: a browser. Without it, and without root to install it, the tests of
# the web page skip and say so.
set -euo pipefail
command -v chromium >/dev/null && exit 0
if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
  echo "no chromium here: the web page's browser tests will skip (install 'chromium' to run them)" >&2
  exit 0
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
