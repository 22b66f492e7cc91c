#!/usr/bin/env bash
# Installs what gradflow needs, from Debian packages only.
#
#   scripts/setup.sh [build] [test]     default: build
#   scripts/setup.sh --list [group...]  prints the package names and changes nothing
#
# Quick and without a network when nothing is missing. Where packages cannot be installed (another
# system, neither root nor sudo) it says what is needed, and succeeds if the tools and headers are
# there anyway. Exit status: 0 all there, 1 something is missing or could not be installed, 2 bad usage.
set -euo pipefail

build_packages=(
  g++ make cmake ninja-build ccache git pkg-config
  libdnnl-dev            # oneDNN: matrix products of the host backend
  libfmt-dev             # text formatting
  libcli11-dev           # command line
  nlohmann-json3-dev     # report.json, checkpoints' headers
  zlib1g-dev             # gzipped data files
  libboost-context-dev   # fibers for running CUDA kernels on the host
  libjs-chart.js         # the report's charts, put into the program
  dataset-fashion-mnist  # what `gradflow demo` trains on
)
test_packages=(
  libgtest-dev
  chromium fonts-dejavu-core  # opens the report as a reader would
  python3                     # drives it, and the command line
  python3-numpy               # recomputes whole networks
)

# What the packages above bring, for systems where they cannot be asked for by name.
build_commands=(g++ make cmake ninja git)
build_headers=(dnnl.hpp fmt/core.h CLI/CLI.hpp nlohmann/json.hpp zlib.h
  boost/context/fiber.hpp)
test_commands=(python3)
test_headers=(gtest/gtest.h)

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

list_only=no
groups=()
for argument in "$@"; do
  case $argument in
    --list) list_only=yes ;;
    build | test) groups+=("$argument") ;;
    *) printf 'setup: unknown argument "%s"; usage: scripts/setup.sh [--list] [build] [test]\n' "$argument" >&2; exit 2 ;;
  esac
done
((${#groups[@]})) || groups=(build)

packages=() commands=() headers=()
for group in "${groups[@]}"; do
  case $group in
    build)
      packages+=("${build_packages[@]}") commands+=("${build_commands[@]}") headers+=("${build_headers[@]}") ;;
    test)
      packages+=("${test_packages[@]}") commands+=("${test_commands[@]}") headers+=("${test_headers[@]}") ;;
  esac
done

if [[ $list_only == yes ]]; then
  printf '%s\n' "${packages[@]}"
  exit 0
fi

# Prints what is not there, by trying it. Slower than asking dpkg, but right on every system.
absent_tools() {
  local name
  [[ -d ${GRADFLOW_FASHION_MNIST:-/usr/share/datasets/fashion-mnist} ]] || printf 'Fashion-MNIST (GRADFLOW_FASHION_MNIST=FOLDER) '
  if [[ " ${groups[*]} " == *" test "* ]]; then
    command -v chromium chromium-browser google-chrome >/dev/null || printf 'chromium '
    /usr/bin/python3 -c 'import numpy' 2>/dev/null || python3 -c 'import numpy' 2>/dev/null || printf 'numpy '
  fi
  for name in "${commands[@]}"; do
    command -v "$name" >/dev/null || printf '%s ' "$name"
  done
  command -v g++ >/dev/null || return 0
  for name in "${headers[@]}"; do
    printf '#include <%s>\n' "$name" | g++ -std=c++20 -M -x c++ - >/dev/null 2>&1 || printf '<%s> ' "$name"
  done
}

# Ends the script: nothing can be installed for the reason given, which is no harm if all is there.
go_on_without_installing() {
  say "$1"
  say "gradflow needs these (Debian 12 package names): ${packages[*]}"
  local absent
  absent=$(absent_tools)
  [[ -z $absent ]] || die "not found here: ${absent% }"
  say "the tools and headers are there; going on"
  exit 0
}

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  go_on_without_installing "this is not a Debian system, so nothing is installed"
fi

# One question to dpkg; "ii" is wanted and installed, "hi" held and installed.
missing=()
find_missing() {
  local installed package
  missing=()
  # shellcheck disable=SC2016  # ${...} is dpkg's own
  installed=$'\n'$(dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' "${packages[@]}" 2>/dev/null || true)$'\n'
  for package in "${packages[@]}"; do
    [[ $installed == *$'\n'[ih]"i $package"$'\n'* ]] || missing+=("$package")
  done
}

find_missing
((${#missing[@]})) || exit 0

as_root=()
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    go_on_without_installing "missing packages (${missing[*]}), and neither root nor sudo to install them"
  fi
  # Without a terminal nobody could answer sudo's question for a password.
  if [[ ! -t 0 ]] && ! sudo -n true 2>/dev/null; then
    go_on_without_installing "missing packages (${missing[*]}), and sudo asks for a password"
  fi
  as_root=(sudo)
fi

say "installing ${missing[*]}"
apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@"
}
# A source of somebody else's that cannot be reached is no reason to stop; the next command tells.
apt update || say "apt-get update reported a problem; trying with the package lists there are"
if ! apt install -y --no-install-recommends "${missing[@]}" >&2; then
  go_on_without_installing "apt-get could not install ${missing[*]}"
fi
find_missing
((${#missing[@]} == 0)) || die "still not installed: ${missing[*]}"
