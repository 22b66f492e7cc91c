#!/usr/bin/env bash
# The compiler as a witness for the CUDA kernels; needs nvcc, no GPU. Compiles each kernel file once and asks:
#   * no spills, no stack (local memory), at most 128 registers a thread, so that two blocks fit
#   * 16-byte loads and stores in every kernel that claims them
#   * no flush-to-zero arithmetic, no tanh.approx, no fused multiply-add the source did not write
#     (ex2.approx.ftz and rcp.approx.ftz belong to a normal expf and tanhf, which scale around them)
#   * no name mangled: a profiler shows what the source says
# usage: check_ptx.sh NVCC SOURCE_DIR [ARCHITECTURE] [FILE...]
set -euo pipefail

nvcc=$1
root=$2
architecture=${3:-90}
shift $(($# < 3 ? $# : 3))
files=("$@")
[ ${#files[@]} -gt 0 ] || files=("$root"/kernels/cuda/*.cu)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

compile() {
  local name ptxas
  name=$work/$(basename "$1" .cu)
  "$nvcc" -std=c++20 -O3 -fmad=false -lineinfo -arch="compute_$architecture" -I"$root" -I"$root/kernels/include" \
    -ptx "$1" -o "$name.ptx"
  ptxas=$(dirname "$nvcc")/ptxas
  [ -x "$ptxas" ] || ptxas=ptxas
  "$ptxas" -v -arch="sm_$architecture" "$name.ptx" -o "$name.cubin" 2>"$name.info"
}
export -f compile
export nvcc root architecture work
# shellcheck disable=SC2016  # the inner shell expands it
printf '%s\0' "${files[@]}" | xargs -0 -n1 -P"$(nproc)" bash -euc 'compile "$0"' || fail "a file does not compile"

for file in "${files[@]}"; do
  name=$(basename "$file" .cu)
  ptx=$work/$name.ptx

  # "Compiling entry function 'NAME' ...", "N bytes stack frame, N bytes spill stores, N bytes spill loads",
  # "Used N registers, ..." follow each other for each kernel.
  awk -v file="$name" '
    /Compiling entry function/ { split($0, part, "\047"); kernel = part[2]; count++
      if (kernel ~ /^_Z/) print file ": " kernel " is a mangled name" }
    /bytes stack frame/ { if ($1 + $5 + $9 != 0) print file ": " kernel ": " $0 }
    /Used [0-9]+ registers/ { match($0, /Used [0-9]+/); used = substr($0, RSTART + 5, RLENGTH - 5)
      if (used + 0 > 128) print file ": " kernel " uses " used " registers" }
    END { if (count == 0) print file ": no kernel seen" }' "$work/$name.info" >"$work/complaints"
  while read -r complaint; do fail "$complaint"; done <"$work/complaints"

  if bad=$(grep -oE '\b(add|sub|mul|fma|div|sqrt|cvt|min|max)[a-z0-9.]*\.ftz[a-z0-9.]*|tanh\.approx[a-z0-9.]*' "$ptx"); then
    fail "$name: $(sort -u <<<"$bad" | tr '\n' ' ')"
  fi

  # Split by entry; the kernels that stream over arrays must move 16 bytes a time.
  awk -v file="$name" '
    function judge() {
      if (kernel !~ /(_forward|_backward|_forward_stats|_backward_stats|_update|_update_stats|^fill|^memory_[a-z]+|_stats|histogram)_(f32|bf16)$/) return
      if (kernel ~ /^batch_norm/) return
      if (kernel !~ /^fill/ && !loads) print file ": " kernel " has no 16-byte load"
      reads_only = kernel ~ /histogram|^memory_read|^difference|^[a-z]+_stats_(f32|bf16)$/
      if (!reads_only && !stores) print file ": " kernel " has no 16-byte store"
    }
    /\.entry / { if (kernel != "") judge(); match($0, /\.entry [A-Za-z0-9_]+/)
      kernel = substr($0, RSTART + 7, RLENGTH - 7); loads = stores = 0 }
    /ld(\.global|\.nc)*\.v4\.(f32|b32|u32)/ { loads++ }
    /st(\.global)?\.v4\.(f32|b32|u32)/ { stores++ }
    END { judge() }' "$ptx" >"$work/complaints"
  while read -r complaint; do fail "$complaint"; done <"$work/complaints"
  echo "$name: $(grep -c 'Compiling entry' "$work/$name.info") kernels," \
    "$(grep -oE 'Used [0-9]+' "$work/$name.info" | sort -k2 -n | tail -1 | cut -d' ' -f2) registers at most"
done

[ "$failures" -eq 0 ] || { echo "$failures complaints"; exit 1; }
echo "no complaints"
