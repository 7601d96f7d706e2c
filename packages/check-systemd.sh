#!/bin/sh
# Inside a Debian that systemd has booted, with clihelper-example: its unit, really run.
set -eu

unit=clihelper-example
config=/etc/$unit.yml
pidfile=/run/$unit/example.pid

fail() {
	echo "FAILED: $*" >&2
	systemctl status --no-pager --lines=20 $unit >&2 || :
	exit 1
}

is() {
	[ "$(systemctl show --value --property="$1" $unit)" = "$2" ] ||
		fail "$1 is $(systemctl show --value --property="$1" $unit), not $2"
}

wait_for() {
	for _ in $(seq 200); do
		! "$@" || return 0
		sleep 0.1
	done
	fail "not within 20 s: $*"
}

restarted() {
	[ "$(systemctl show --value --property=NRestarts $unit)" -gt 0 ] && systemctl --quiet is-active $unit
}

logged() {
	journalctl --quiet --unit=$unit --priority="$1" --grep="$2" >/dev/null
}

systemctl start $unit || fail 'it does not start'
is StatusText running
pid=$(systemctl show --value --property=MainPID $unit)
clihelper status --pidfile $pidfile
[ "$(cat $pidfile)" -eq "$pid" ] || fail 'the pidfile has another number'
grep -q '^CapEff:	0*$' "/proc/$pid/status" || fail 'it has capabilities'
grep -q '^Seccomp:	2$' "/proc/$pid/status" || fail 'its system calls are not filtered'
[ "$(stat -c '%U %a' /var/log/$unit)" = "_$unit 750" ] || fail 'the folder of its log'
wait_for logged info 'order 1 shipped'
echo "ok: it is ready, as its own user, in its sandbox; the journal knows levels"

systemctl reload $unit || fail 'it is not reloaded'
wait_for logged info 'SIGHUP'
is MainPID "$pid"
cp -p $config /root/good
echo 'Nonsense: [' >>$config
! systemctl reload $unit 2>/dev/null || fail 'a wrong configuration is taken'
is ActiveState active
is MainPID "$pid"
echo 'ok: it is reloaded, and a wrong configuration is refused'

! systemctl restart $unit 2>/dev/null || fail 'it starts with a wrong configuration'
is ExecMainStatus 78
is ActiveState failed
is NRestarts 0
cp -p /root/good $config
echo 'ok: with a wrong configuration it is not started over and over'

systemctl start $unit
systemctl kill --signal=KILL $unit
wait_for restarted
echo 'ok: killed, it is started again'

# A log server that is away when the service starts.
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
sed -i "s/^  handlers:/&\n    server: {class: logging.handlers.SysLogHandler, address: [127.0.0.1, $port], socktype: 1}/; \
	s/handlers: \[console, file\]/handlers: [console, file, server]/" $config
! systemctl restart $unit 2>/dev/null || fail 'it starts without its log server'
is ExecMainStatus 75
python3 -c "import socket, time; s = socket.create_server(('127.0.0.1', $port)); time.sleep(60)" &
server=$!
wait_for restarted
kill $server
cp -p /root/good $config
systemctl restart $unit
echo 'ok: without its log server it is started again until that is there'

# A secret that only root can read.
printf 'memory://\n' >/etc/$unit.secret
chmod 600 /etc/$unit.secret
mkdir -p /etc/systemd/system/$unit.service.d
printf '[Service]\nLoadCredential=secret:/etc/%s.secret\n' $unit >/etc/systemd/system/$unit.service.d/secret.conf
sed -i "s|^  url: .*|  url: !file /run/credentials/$unit.service/secret|" $config
systemctl daemon-reload
systemctl restart $unit || fail 'it does not start with a credential'
cp -p /root/good $config
echo 'ok: a credential is read by !file'

logrotate --force /etc/logrotate.d/$unit
wait_for test -e /var/log/$unit/example.log
echo 'ok: its log is rotated'

# Hung, it is ended by the watchdog.
printf '[Service]\nWatchdogSec=2\n' >/etc/systemd/system/$unit.service.d/watchdog.conf
systemctl daemon-reload
systemctl reset-failed $unit  # all the starts above are few for an administrator
systemctl restart $unit
sleep 5
is NRestarts 0
kill -STOP "$(systemctl show --value --property=MainPID $unit)"
wait_for restarted
echo 'ok: it feeds its watchdog, and when hung it is started again'

/etc/init.d/$unit stop
is ActiveState inactive
is Result success
[ ! -e $pidfile ] || fail 'its pidfile is left'
echo 'ok: it is stopped, by its init script too'
