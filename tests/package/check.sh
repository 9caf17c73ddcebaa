#!/usr/bin/env bash
# Builds the wheel and the sdist of the last commit, installs the wheel into a clean
# environment outside the checkout, and uses it there as a newcomer would.
#
#     bash tests/package/check.sh [python]
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
python="${1:-python3}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
step() { printf '\n== %s\n' "$*"; }

step "the wheel and the sdist"
mkdir "$work/source" && git -C "$root" archive HEAD | tar -x -C "$work/source"
cd "$work/source"
"$python" -m venv "$work/build"
"$work/build/bin/pip" install --quiet --disable-pip-version-check "setuptools>=77"
build() { "$work/build/bin/python" -c "import setuptools.build_meta as b; b.build_$1('$work/dist')"; }
build sdist >"$work/build.log" 2>&1 && build wheel >>"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
tar -tzf "$work"/dist/planil_jax-*.tar.gz >"$work/sdist.txt"
for file in tests/test_api.py Makefile requirements.lock planil_jax/py.typed \
  experiments/experts/pendulum.npz; do
  grep -q "/$file\$" "$work/sdist.txt" || { echo "the sdist lacks $file"; exit 1; }
done

step "a clean environment outside the checkout"
mkdir "$work/elsewhere" && cd "$work/elsewhere"
"$python" -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
  --constraint "$root/requirements.lock" "$work"/dist/planil_jax-*.whl
export PATH="$work/elsewhere/env/bin:$PATH" JAX_PLATFORMS=cpu
python -c 'import planil_jax, pathlib; assert "elsewhere" in planil_jax.__file__
assert pathlib.Path(planil_jax.__file__).with_name("py.typed").exists()'

step "planil collect | train | evaluate"
planil > said.txt && head -3 said.txt
planil collect --env=point_mass --episodes=4 --actions --out=demos.npz
planil inspect demos.npz > said.txt && head -3 said.txt
planil train --method=bc --env=point_mass --demos=demos.npz --logdir=runs/bc --seeds=2 \
  --total_steps=400 --set loop.num_envs=2 --set loop.steps=50 --set loop.rounds=1
planil evaluate --run=runs/bc --episodes=4

step "an extra that is absent is named"
planil report --run=runs/bc 2>error.txt && { echo "report needs matplotlib"; exit 1; }
grep -q 'planil_jax\[report\]' error.txt || { cat error.txt; exit 1; }

step "planil report, and the first example"
env/bin/pip install --quiet --disable-pip-version-check \
  --constraint "$root/requirements.lock" "planil_jax[report] @ file://$(ls "$work"/dist/planil_jax-*.whl)"
planil report --run=runs/bc
test -s runs/bc/report.html
python "$root/tests/package/first_example.py"
test -s nav.html

step "a stranger's method in a package of its own"
cp -r "$root/tests/stranger" "$work/stranger"
env/bin/pip install --quiet --disable-pip-version-check --no-deps "$work/stranger"
planil methods > said.txt && grep -q '^ *tug ' said.txt
planil train --method=tug --env=point_mass --demos=demos.npz --logdir=runs/tug --seeds=2 \
  --total_steps=400 --set loop.num_envs=2 --set loop.steps=50 --set loop.rounds=1
planil evaluate --run=runs/tug --episodes=4
planil report --run=runs/tug
test -s runs/tug/report.html
echo "package: 1 passed, 0 failed"
