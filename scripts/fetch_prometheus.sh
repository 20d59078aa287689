#!/usr/bin/env bash
# Prints the folder of prometheus and promtool, which run the dashboard's queries and check the alert rules: where they
# are on PATH, else Debian's, unpacked below .foldback (no root, nothing installed).
set -euo pipefail
cd "$(dirname "$0")/.."
if command -v prometheus promtool >/dev/null; then dirname "$(command -v prometheus)" && exit; fi

folder=$PWD/.foldback/tools
if [[ ! -x $folder/prometheus || ! -x $folder/promtool ]]; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  cd "$scratch"
  apt-get --quiet=2 download prometheus >&2 || { apt-get --quiet=2 update >&2 && apt-get --quiet=2 download prometheus >&2; } ||
    { echo "no Prometheus here, and no Debian package to take it from; install it" >&2; exit 1; }
  dpkg --fsys-tarfile prometheus_*.deb | tar --extract ./usr/bin/prometheus ./usr/bin/promtool
  mkdir -p "$folder"
  mv usr/bin/prometheus usr/bin/promtool "$folder"
fi
echo "$folder"
