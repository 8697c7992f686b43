#!/bin/sh
# mlx-lm 0.32.2 with mlx 0.32.4 (PyPI): "import mlx_lm" lowers the process's limit of open files,
# the hard one too, for good.
#
# One would expect: importing a library leaves the limits of the process as they are, or raises the
# soft one at the most, which can be put back.
#
# What happens: mlx_lm/utils.py calls resource.setrlimit(RLIMIT_NOFILE, (2048, 4096)) when it is
# imported ("for large models with lots of files"). Where the limits are larger, as on servers, both
# become smaller, and only root can raise the hard one again: a server that imports mlx_lm for one
# model has 2048 descriptors from then on.
#
# Output seen (x86-64 Linux, Python 3.11, hard limit 20000):
#   before: 4097 of 20000
#   after "import mlx_lm": 2048 of 4096
#
# For users: raise the soft limit again after the import, to 4096 at the most; a process that needs
# more has to import mlx_lm in a child.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check mlx-lm==0.32.2 "mlx[cpu]==0.32.4"
cd "$folder"
cat > limits.py <<'PYTHON'
import resource
import sys

soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print("before: %d of %d" % resource.getrlimit(resource.RLIMIT_NOFILE))
import mlx_lm  # noqa: E402,F401

after = resource.getrlimit(resource.RLIMIT_NOFILE)
print('after "import mlx_lm": %d of %d' % after)
assert after == (2048, 4096), "the limits are left alone now"
PYTHON
most=$(ulimit -H -n)
case $most in
    unlimited) most=20000 ;;
esac
if [ "$most" -le 4096 ]; then
    echo "this shell's hard limit is $most: nothing can be lowered here"
    exit 1
fi
venv/bin/python limits.py 4097 "$most"
