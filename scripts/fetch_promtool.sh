#!/usr/bin/env bash
# Prints the path of promtool, which checks the alert rules: the one on PATH, else Debian's, unpacked below .foldback
# (no root, nothing installed).
set -euo pipefail
cd "$(dirname "$0")/.."
command -v promtool && exit

tool=$PWD/.foldback/tools/promtool
if [[ ! -x $tool ]]; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  cd "$scratch"
  apt-get --quiet=2 download prometheus >&2 || { apt-get --quiet=2 update >&2 && apt-get --quiet=2 download prometheus >&2; } ||
    { echo "no promtool here, and no Debian package to take it from; install Prometheus" >&2; exit 1; }
  dpkg --fsys-tarfile prometheus_*.deb | tar --extract ./usr/bin/promtool
  mkdir -p "$(dirname "$tool")"
  mv usr/bin/promtool "$tool"
fi
echo "$tool"
