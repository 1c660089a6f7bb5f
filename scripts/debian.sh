#!/bin/sh
# Installs the Debian packages named in requirements/debian.txt that are missing; with none missing it changes nothing.
set -eu
cd "$(dirname "$0")/.."
missing=
for package in $(sed 's/#.*//' requirements/debian.txt); do
    dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "the tests need Debian's packages$missing: install them (as root: apt-get install$missing), then run this again" >&2
    exit 1
fi
echo "installing Debian's$missing, once"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086  # a list of words
apt-get install -y -qq --no-install-recommends $missing >/dev/null
