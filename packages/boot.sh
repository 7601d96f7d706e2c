#!/bin/sh
# In a mount namespace of its own: make a folder the root, and run a command in it.
#
#   boot.sh ROOT COMMAND...
#
# Not by chroot(2), in which neither user namespaces nor further mount namespaces can be made.
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
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
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
mkdir -p "$root/mnt/host"
cd "$root"
pivot_root . mnt/host
cd /
umount -l /mnt/host
# As systemd would have it where it is in no container; credentials are mounted so.
mount --make-rshared /
exec "$@"
