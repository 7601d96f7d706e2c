#!/bin/sh
# In a mount namespace of its own: make a folder the root, and run a command in it.
#
#   boot.sh ROOT [--bind SOURCE TARGET]... COMMAND...
#
# Not by chroot(2), in which neither user namespaces nor further mount namespaces can be made.
# What is bound is a folder or a file from outside; TARGET is its path within.
set -eu

root=$1
shift
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
# The kernel's settings are everybody's.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
# The unified hierarchy, which systemd 258 and later need; it may be beside the older ones.
if [ -e /sys/fs/cgroup/cgroup.controllers ] || [ -e /sys/fs/cgroup/unified ]; then
	mount -t cgroup2 cgroup "$root/sys/fs/cgroup"
else
	mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
	mkdir "$root/sys/fs/cgroup/systemd"
	mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
fi
# A mount of its own, as systemd is sure that it is.
mount --bind "$root/dev" "$root/dev"
mkdir -p "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
mount --bind "$root/dev/pts/ptmx" "$root/dev/ptmx"
while [ "$1" = --bind ]; do
	if [ -d "$2" ]; then
		mkdir -p "$root$3"
	else
		mkdir -p "$(dirname "$root$3")"
		[ -e "$root$3" ] || : >"$root$3"
	fi
	mount --bind "$2" "$root$3"
	shift 3
done
mkdir -p "$root/mnt/host"
cd "$root"
pivot_root . mnt/host
cd /
umount -l /mnt/host
# As systemd would have it where it is in no container; credentials are mounted so.
mount --make-rshared /
exec "$@"
