#!/usr/bin/env bash
# Installs the Debian packages that librdkafka's build needs, where they are missing.
set -euo pipefail

wanted=(build-essential pkg-config libssl-dev zlib1g-dev)

command -v dpkg-query >/dev/null || exit 0 # Not Debian: whoever builds here knows how to get a C compiler, OpenSSL and zlib.
missing=()
for package in "${wanted[@]}"; do
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
        echo "packages: please run: sudo apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo -n)
fi
echo "packages: installing ${missing[*]}" >&2
"${as_root[@]}" apt-get update --quiet --quiet >&2
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --quiet --no-install-recommends "${missing[@]}" >&2
