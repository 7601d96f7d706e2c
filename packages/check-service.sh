#!/bin/sh
# Inside a minimal chroot without systemd: a service from its installation to its purge.
#
#   check-service.sh NAME APPNAME TESTS LINE PACKAGE...
#
# NAME is of the service and its package, APPNAME what the program calls itself, TESTS its
# debian/tests/service, and LINE what its log has when it is at work. The PACKAGEs are what to
# install, NAME's own last.
set -eu

name=$1 appname=$2 tests=$3 line=$4
shift 4
for own do :; done

log=/var/log/$name/$appname.log
pidfile=/run/$name/$appname.pid
config=/etc/$name.yml
work=$(mktemp -d)

say() {
	echo "ok: $name: $*"
}

fail() {
	echo "FAILED: $name: $*" >&2
	exit 1
}

service() {
	"/etc/init.d/$name" "$@"
}

expect() {
	wanted=$1
	shift
	status=0
	"$@" >"$work/output" 2>&1 || status=$?
	[ "$status" -eq "$wanted" ] || { cat "$work/output" >&2; fail "$*: status $status, not $wanted"; }
}

wait_for() {
	for _ in $(seq 100); do
		! "$@" || return 0
		sleep 0.1
	done
	fail "not within 10 s: $*"
}

# All there is but what apt and dpkg keep for themselves, and what is compiled or cached.
listing() {
	find / -xdev \( -path /proc -o -path /dev -o -path /tmp -o -path /run/lock -o -path /var/lib/apt \
		-o -path /var/lib/dpkg -o -path /var/log/apt -o -path /var/cache -o -path /var/lib/logrotate \
		-o -name __pycache__ \) \
		-prune -o -print |
		grep -v -e '^/var/log/\(dpkg\|alternatives\|bootstrap\).log$' -e '^/etc/\(passwd\|group\|g\?shadow\)-$' \
			-e '^/etc/.*\.lock$' | sort
}

install() {
	apt-get -qq -y -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold \
		-o Dpkg::Options::=--force-confdef --no-install-recommends install "$@" >/dev/null
}

# newer VERSION: the service's own package, with one line more in its configuration
newer() {
	dpkg-deb -R "$own" "$work/$1"
	sed -i "s/^Version: .*/Version: $1/" "$work/$1/DEBIAN/control"
	echo "# of $1" >>"$work/$1$config"
	dpkg-deb -b "$work/$1" "$work/$1.deb" >/dev/null
}

# What it depends on is not the service's own.
install logrotate systemd-standalone-sysusers
for package do
	[ "$package" = "$own" ] || install "$package"
done
apt-get -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends satisfy "$(dpkg-deb -f "$own" Depends)" >/dev/null
listing >"$work/before"

install "$own"
! dpkg-query -s systemd >/dev/null 2>&1 || fail 'systemd is installed'
[ ! -e "$pidfile" ] || fail 'it was started in spite of policy-rc.d'
say 'is installed, where there is no systemd'

expect 3 service status
"$tests"
say 'starts as its own user, starts again, reloads, rotates, restarts, stops, stops again'

service start
wait_for grep -q "$line" "$log"
[ "$(stat -c '%U:%G %a' "/var/log/$name" "/var/lib/$name" "/run/$name" | sort -u)" = "_$name:_$name 750" ] ||
	fail 'its folders'
say 'does its work'

# A fault in the configuration.
cp -p "$config" "$work/good"
echo 'Nonsense without a colon' >>"$config"
expect 6 service reload
grep -q "$config:[0-9]*:[0-9]*: " "$work/output" || fail 'reload does not say where the fault is'
expect 6 service restart
expect 0 service status
service stop
expect 6 service start
grep -q "$config:[0-9]*:[0-9]*: " "$work/output" || fail 'start does not say where the fault is'
cp -p "$work/good" "$config"
say 'says what is wrong with its configuration, and is left alone by a wrong one'

# Killed, and started again.
service start
kill -KILL "$(cat "$pidfile")"
wait_for sh -c "! clihelper status --pidfile $pidfile >/dev/null"
expect 1 service status
service start
expect 0 service status
say 'that died is told from one that was stopped, and starts again'

# Upgrades: a configuration that is as it came is replaced, one that was changed is kept.
newer 99.1
service start
install "$work/99.1.deb"
grep -q '^# of 99.1$' "$config" || fail 'the new configuration was not installed'
sed -i 's/^# stop_timeout:.*//; s/^  # stop_timeout: 60/  stop_timeout: 50/' "$config"
grep -q '^  stop_timeout: 50' "$config"
newer 99.2
install "$work/99.2.deb"
grep -q '^  stop_timeout: 50' "$config" || fail 'the changed configuration was lost'
grep -q '^# of 99.2$' "$config.dpkg-dist" || fail 'the new configuration is nowhere'
service restart
expect 0 service status
say 'is upgraded, and a changed configuration is kept'

# Removed and purged.
service stop
apt-get -qq -y -o Dpkg::Use-Pty=0 remove "$name" >/dev/null
if [ ! -e "$config" ] || [ ! -e "$log" ]; then
	fail 'removing took more than the program'
fi
apt-get -qq -y -o Dpkg::Use-Pty=0 purge "$name" >/dev/null
listing >"$work/after"
diff "$work/before" "$work/after" || fail 'purging left something, or took too much'
if getent passwd "_$name" || getent group "_$name"; then
	fail 'its user is left'
fi
rm -rf "$work"
say 'is purged without a trace'
