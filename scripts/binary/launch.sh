#!/bin/sh
# taskd in one file: this script, then two gzipped tars of the program with everything it needs.
# The first start unpacks them into a cache of the user, under the hash of their contents. Every start then
# *becomes* the program: one process, one pid, and nothing to tidy up behind it, however it is killed.
home=${HOME:-$(eval "echo ~$(id -un 2>/dev/null)")}
for parent in "${XDG_CACHE_HOME:-}" "$home/.cache" /var/tmp "${TMPDIR:-/tmp}"; do
    case $parent in /*) ;; *) continue ;; esac
    cache=$parent/taskd-$(id -u)
    program=$cache/@DIGEST@/taskd
    mkdir -p -m 700 "$cache" 2>/dev/null
    # Nobody else may have prepared the folder, nor a link to another place in its name.
    { [ -d "$cache" ] && [ -O "$cache" ] && [ ! -L "$cache" ]; } || continue
    if [ ! -x "$program" ]; then
        # Renamed when complete, so that what has the final name is whole; who loses a race drops its copy.
        part=$(mktemp -d "$cache/@DIGEST@.XXXXXX" 2>/dev/null) || continue
        # Both halves at the same time: inflating them is most of a first start.
        tail -c +@FIRST@ "$0" 2>/dev/null | head -c @FIRST_BYTES@ | tar xzf - -C "$part" 2>/dev/null & first=$!
        tail -c +@SECOND@ "$0" 2>/dev/null | tar xzf - -C "$part" 2>/dev/null
        second=$?
        wait $first && [ $second = 0 ] && mv -T "$part" "$cache/@DIGEST@" 2>/dev/null || rm -rf "$part"
    fi
    [ -x "$program" ] && exec "$program" "$@"
done
echo "taskd: cannot unpack itself: set XDG_CACHE_HOME to a directory that is writable and not mounted noexec" >&2
exit 2
