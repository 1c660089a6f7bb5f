#!/bin/sh
# taskd in one file: this script, then a gzipped tar of the program with everything it needs.
# The first start unpacks it into a cache of the user, under the hash of its contents. Every start then
# *becomes* the program: one process, one pid, and nothing to tidy up behind it, however it is killed.
home=${HOME:-$(eval "echo ~$(id -un)")}
for parent in "${XDG_CACHE_HOME:-}" "$home/.cache" /var/tmp "${TMPDIR:-/tmp}"; do
    cache=$parent/taskd-$(id -u)
    program=$cache/@DIGEST@/taskd
    case $parent in /*) ;; *) continue ;; esac
    mkdir -p -m 700 "$cache" 2>/dev/null
    # Nobody else may have prepared the folder, nor a link to another place in its name.
    { [ -d "$cache" ] && [ -O "$cache" ] && [ ! -L "$cache" ]; } || continue
    if [ ! -x "$program" ]; then
        part=$cache/@DIGEST@.$$
        # Renamed when complete, so that what has the final name is whole; who loses a race drops its copy.
        (umask 077 && mkdir "$part" && tail -n +@LINES@ "$0" | tar xzf - -C "$part") 2>/dev/null &&
            mv -T "$part" "$cache/@DIGEST@" 2>/dev/null || rm -rf "$part"
    fi
    [ -x "$program" ] && exec "$program" "$@"
done
echo "taskd: cannot unpack itself: set XDG_CACHE_HOME to a directory that is writable and not mounted noexec" >&2
exit 2
