#!/usr/bin/env bash
# Runs a command in a memory cgroup of its own, without swap, and says what it took.
#
#   cgroup_budget.sh LIMIT_BYTES COMMAND [ARGUMENT...]
#
# The last line on stderr is `cgroup: limit N, most used N, killed yes|no`. Ends as the command does: 137 when it was
# killed. 77, with the reason, where no such group can be made: not root, or no memory controller.
set -u

[ $# -ge 2 ] || { echo "usage: cgroup_budget.sh LIMIT_BYTES COMMAND [ARGUMENT...]" >&2; exit 2; }
limit=$1
shift

skip() {
    echo "cgroup: $1" >&2
    exit 77
}

[ -r /proc/mounts ] || skip "this system has no /proc/mounts"
[ "$(id -u)" = 0 ] || skip "making a memory cgroup needs root"

# Version 1 where its memory controller is mounted, else version 2.
version=1
mount=$(awk '$3 == "cgroup" && ("," $4 ",") ~ /,memory,/ { print $2; exit }' /proc/mounts)
if [ -z "$mount" ]; then
    version=2
    mount=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
    [ -n "$mount" ] || skip "no cgroup file system is mounted"
    grep -qw memory "$mount/cgroup.controllers" 2> /dev/null || skip "the memory controller is not available"
    if ! grep -qw memory "$mount/cgroup.subtree_control"; then
        { echo +memory > "$mount/cgroup.subtree_control"; } 2> /dev/null || skip "the memory controller cannot be enabled"
    fi
fi

group="$mount/layerline-budget-$$"
mkdir "$group" 2> /dev/null || skip "cannot make a group in $mount"
trap 'rmdir "$group" 2> /dev/null' EXIT

set_value() {
    { echo "$2" > "$group/$1"; } 2> /dev/null
}
if [ $version = 1 ]; then
    set_value memory.swappiness 0
    set_value memory.limit_in_bytes "$limit" || skip "cannot set the limit"
    # Memory and swap together; absent where the kernel does not count swap.
    [ ! -e "$group/memory.memsw.limit_in_bytes" ] || set_value memory.memsw.limit_in_bytes "$limit"
else
    [ ! -e "$group/memory.swap.max" ] || set_value memory.swap.max 0
    set_value memory.max "$limit" || skip "cannot set the limit"
fi

# The child moves itself into the group before it becomes the command, so that every page of the command counts.
( echo "$BASHPID" > "$group/cgroup.procs" && exec "$@" )
status=$?

if [ $version = 1 ]; then
    most=$(cat "$group/memory.max_usage_in_bytes")
    kills=$(awk '$1 == "oom_kill" { print $2 }' "$group/memory.oom_control")
else
    most=$(cat "$group/memory.peak" 2> /dev/null || echo unknown)
    kills=$(awk '$1 == "oom_kill" { print $2 }' "$group/memory.events")
fi
killed=no
if [ $status = 137 ] || [ "${kills:-0}" != 0 ]; then
    killed=yes
    status=137
fi
echo "cgroup: limit $limit, most used $most, killed $killed" >&2
exit $status
