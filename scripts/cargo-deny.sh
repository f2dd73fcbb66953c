#!/usr/bin/env bash
# Compiles cargo-deny into the given folder, once. Its own target folder is thrown away, to keep the project's small.
set -euo pipefail

tools=$1
version=0.20.2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "cargo-deny: compiling $version into $tools; this takes minutes, once" >&2
CARGO_TARGET_DIR="$work" cargo install --quiet --locked --root "$tools" --version "$version" cargo-deny
