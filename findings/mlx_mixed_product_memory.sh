#!/bin/sh
# mlx 0.32.4 with mlx-cpu (PyPI), on a CPU: the product of float32 activations and a bfloat16 matrix
# first makes a whole float32 copy of the matrix.
#
# One would expect: a row of activations times a 16-bit matrix of 34 MB needs memory of the result's
# size, a few KB, as a product reads each weight once.
#
# What happens: the types are promoted first, and the whole matrix is converted before the product,
# so one row needs twice the matrix's own size on top of it, for every such product. Where two of
# them are in one lazy graph, both copies can be alive at once. A memory budget that counts weights
# as stored is exceeded by the largest matrix. With 16-bit activations there is no float32 copy.
#
# Output seen (x86-64, Python 3.11, mlx 0.32.4, mlx-cpu 0.32.4):
#   a row in float32   times a matrix of 34 MB: 67.1 MB more at the peak
#   a row in bfloat16  times a matrix of 34 MB: 0.0 MB more at the peak
#
# For users: keep activations in the weights' type, or count the largest matrix again in float32.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check "mlx[cpu]==0.32.4"
cd "$folder"
venv/bin/python - <<'PYTHON'
import mlx.core as mx

mx.set_default_device(mx.cpu)
weights = mx.zeros((4096, 4096), mx.bfloat16)
mx.eval(weights)
grown = {}
for kind in (mx.float32, mx.bfloat16):
    row = mx.ones((1, 4096), kind)
    mx.eval(row)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(row @ weights.T)
    grown[kind] = mx.get_peak_memory() - before
    print(f"a row in {str(kind).removeprefix('mlx.core.'):9} times a matrix of "
          f"{weights.nbytes / 1e6:.0f} MB: {grown[kind] / 1e6:.1f} MB more at the peak")
assert grown[mx.float32] > 1.9 * weights.nbytes, "no whole copy is made: the finding is out of date"
PYTHON
