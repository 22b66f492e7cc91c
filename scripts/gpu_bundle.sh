#!/usr/bin/env bash
# Collects what scripts/gpu_check.sh needs on a machine where nothing can be built or installed: the program, the
# CUDA module and the test programs, the shared libraries they want beyond the C library, and Fashion-MNIST.
#
#   scripts/gpu_bundle.sh [--build DIR] [--jobs N] OUT
#
# Builds into build-gpu for any x86-64 processor with AVX2 (the usual build is for this machine's alone), unless
# --build names a finished build. What belongs to the CUDA toolkit and the driver is left out: it is on the other
# machine. Writes OUT/programs.tar.xz, OUT/fashion-mnist/ and OUT/revision.txt, prints their size, and fails above
# 56 MiB: with a checkout beside it, it stays below 64. Carry both and run there: scripts/gpu_check.sh --bundle OUT
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
limit_kib=$((56 * 1024))
data=${GRADFLOW_FASHION_MNIST:-/usr/share/datasets/fashion-mnist}
build='' out='' jobs=$(nproc)

die() { printf 'gpu_bundle: %s\n' "$*" >&2; exit 2; }

while (($#)); do
  case $1 in
    --build) [[ $# -ge 2 ]] || die "--build needs a folder"; build=$2; shift 2 ;;
    --jobs) [[ $# -ge 2 ]] || die "--jobs needs a number"; jobs=$2; shift 2 ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    -*) die "unknown option $1" ;;
    *) [[ -z $out ]] || die "one folder, please: $out and $1"; out=$1; shift ;;
  esac
done
[[ -n $out ]] || die "name the folder to write: scripts/gpu_bundle.sh OUT"
[[ ! -e $out || -d $out ]] || die "$out is no folder"
for file in train-images-idx3-ubyte t10k-labels-idx1-ubyte; do
  compgen -G "$data/$file*" >/dev/null || die "no $file in $data: install dataset-fashion-mnist or set GRADFLOW_FASHION_MNIST"
done

programs=(gradflow tests/test_kernels tests/test_layers tests/test_engine)
if [[ -z $build ]]; then
  build=$root/build-gpu
  cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DGRADFLOW_BUILD_TESTS=ON \
    -DGRADFLOW_CUDA=ON -DGRADFLOW_CPU_ARCH=x86-64-v3 -DGRADFLOW_UNITY=ON >/dev/null
  cmake --build "$build" -j "$jobs" --target gradflow_program test_kernels test_layers test_engine
fi
for file in "${programs[@]}" libgradflow_cuda.so; do
  [[ -f $build/$file ]] || die "$build/$file is not there: build it, or leave out --build"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/bin" "$work/lib" "$out/fashion-mnist"

# Debugging information is left behind; the kernels' line numbers are data to strip and stay.
for file in "${programs[@]}" libgradflow_cuda.so; do
  strip --strip-debug -o "$work/bin/$(basename "$file")" "$build/$file"
done

# The C library and what talks to the driver must be the other machine's own.
own='^(ld-linux.*|lib(c|m|dl|rt|pthread|resolv|cuda|cudart|cublas|cublasLt|cudnn.*|nvidia-.*))\.so'
ldd "$work"/bin/* | awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' | sort -u | while read -r name path; do
  [[ $name =~ $own ]] || cp -L "$path" "$work/lib/$name"
done
missing=$(ldd "$work"/bin/* | awk '/not found/ { print $1 }' | sort -u | grep -Ev "$own" || true)
[[ -z $missing ]] || die "not found here: $missing"

tar -C "$work" -cJf "$out/programs.tar.xz.partial" bin lib
mv "$out/programs.tar.xz.partial" "$out/programs.tar.xz"
for split in train t10k; do
  for kind in images-idx3 labels-idx1; do
    cp "$data/$split-$kind-ubyte"* "$out/fashion-mnist/"
  done
done
# Of what was built, which with --build need not be what lies here. "gradflow 0.1.0 (revision)"
"$build/gradflow" --version | sed 's/.*(\(.*\))$/\1/' >"$out/revision.txt"

du -k "$out/programs.tar.xz" "$out/fashion-mnist" | awk '{ printf "%8.1f MiB  %s\n", $1 / 1024, $2 }'
total=$(du -sk "$out" | cut -f1)
awk -v kib="$total" 'BEGIN { printf "%8.1f MiB  in all\n", kib / 1024 }'
((total <= limit_kib)) || { echo "gpu_bundle: more than $((limit_kib / 1024)) MiB" >&2; exit 1; }
