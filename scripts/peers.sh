#!/usr/bin/env bash
# Makes one environment for each peer of the benchmark, .peers/NAME; pellucid itself is in none of them.
#
#     scripts/peers.sh [NAME...]        (torch keras jax onnxruntime; all if none is named)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

declare -A packages=(
  [torch]="torch==2.13.0 numpy"
  [keras]="tensorflow-cpu==2.21.0 keras==3.15.1"
  [jax]="jax==0.10.0 jaxlib==0.10.0"
  [onnxruntime]="onnxruntime==1.31.0 onnx==1.23.2"
)

[[ $# -gt 0 ]] || set -- torch keras jax onnxruntime
for peer in "$@"; do
  if [[ -z ${packages[$peer]:-} ]]; then
    echo "unknown peer $peer; there are torch, keras, jax, onnxruntime" >&2
    exit 1
  fi
  home=.peers/$peer wanted=${packages[$peer]}
  [[ -f $home/.installed && $(<"$home/.installed") == "$wanted" ]] && continue
  echo "installing $wanted"
  rm -rf "$home"
  # Word splitting is meant: a list of packages.
  # shellcheck disable=SC2086
  if "${PYTHON:-python3}" -m venv "$home" && "$home/bin/python" -m pip install --quiet $wanted; then
    echo "$wanted" >"$home/.installed"
  else
    rm -rf "$home"
    echo "$peer could not be installed; the benchmark will say that it is not there" >&2
  fi
done
