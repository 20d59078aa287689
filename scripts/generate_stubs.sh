#!/usr/bin/env bash
# Stubs and their type hints from proto/, beside the .proto files. `--check` says whether the committed ones are fresh.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
out=proto
if [[ ${1:-} == --check ]]; then out=$(mktemp -d); trap 'rm -rf "$out"' EXIT; fi

PATH="$(dirname "$python"):$PATH" "$python" -m grpc_tools.protoc \
  -I proto -I "$("$python" -c 'import os, google; print([p for p in google.__path__ if os.path.isdir(p + "/rpc")][0] + "/..")')" \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="$out" --mypy_grpc_out="$out" \
  proto/foldback/v1/*.proto

if [[ ${1:-} == --check ]]; then
  for file in "$out"/foldback/v1/*; do
    cmp -s "$file" "proto/foldback/v1/$(basename "$file")" ||
      { echo "stale: proto/foldback/v1/$(basename "$file"); run 'make proto' and commit the result" >&2; exit 1; }
  done
fi
