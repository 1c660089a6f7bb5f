#!/bin/sh
# Installs the Debian packages named in a file that are missing, and starts none of their services: debian.sh FILE.
# With none missing it changes nothing.
set -eu
cd "$(dirname "$0")/.."
missing=
for package in $(sed 's/#.*//' "$1"); do
    dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "$1 asks for Debian's packages$missing: install them (as root: apt-get install$missing), then run this again" >&2
    exit 1
fi
echo "installing Debian's$missing, once"
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get update -qq
# shellcheck disable=SC2086  # a list of words
apt-get install -y -qq --no-install-recommends $missing >/dev/null
