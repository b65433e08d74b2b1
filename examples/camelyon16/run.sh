#!/usr/bin/env bash
# The paper's experiment on Camelyon16, from the slides to the figures.
#
#   examples/camelyon16/run.sh CAMELYON16 OUT [COORDS]
#
# CAMELYON16: the data, annotations unpacked. OUT: a new folder. COORDS: the folder of the published
# lists of patch centers; without it, patches are sampled from the annotations by the same rules.
# The environment may name another PYTHON, BACKEND (of qprd), CONFIG (settings) and MPP (to record).
set -euo pipefail

data=${1:?the folder of Camelyon16}
out=${2:?a new folder}
coords=${3:-}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python}
backend=${BACKEND:-exchange}
config=${CONFIG:-$here/paper.toml}
project=$out/project

"$python" "$here/build_project.py" "$data" "$project" --mpp "${MPP:-0.243}" --backend "$backend"
if [ -n "$coords" ]; then
  "$python" "$here/centers_to_patches.py" "$project" "$out/patches.csv" \
    --test "$out/test_patches.csv" --config "$config" --backend "$backend" \
    --tumor "$coords/train_bad.txt" "$coords/test_bad.txt" \
    --normal "$coords/train_good.txt" "$coords/test_good.txt"
  "$python" -m qprd train "$project" --backend "$backend" --config "$config" \
    --patches "$out/patches.csv"
  "$python" "$here/score_patches.py" "$project" "$out/test_patches.csv" --json "$out/patches.json"
else
  "$python" -m qprd train "$project" --backend "$backend" --config "$config"
fi
"$python" -m qprd predict "$project" --backend "$backend" --config "$config"
# Test slides without tumor have no annotations: the option says that this means no tumor.
"$python" -m qprd evaluate "$project" --backend "$backend" --split test --unannotated-normal \
  --json "$out/evaluation.json"
