#!/bin/sh
# Inside a Debian that systemd has booted, with my-ioloop: its socket outlives the service.
set -eu

unit=my-ioloop
config=/etc/$unit.yml

fail() {
	echo "FAILED: $*" >&2
	systemctl status --no-pager --lines=20 $unit.socket $unit.service >&2 || :
	exit 1
}

property() {
	systemctl show --value --property="$1" $unit.service
}

wait_for() {
	for _ in $(seq 200); do
		! "$@" || return 0
		sleep 0.1
	done
	fail "not within 20 s: $*"
}

# clients FILE: ask until it is gone; the status is how many were refused, or got no answer
clients() {
	python3 - "$port" "$1" <<-'END'
		import os, socket, sys

		port, sign = int(sys.argv[1]), sys.argv[2]
		asked = refused = unanswered = 0
		while os.path.exists(sign):
		    asked += 1
		    try:
		        with socket.create_connection(('127.0.0.1', port), timeout=20) as client:
		            client.sendall(b'GET / HTTP/1.0\r\n\r\n')
		            answer = b''.join(iter(lambda: client.recv(4096), b''))
		            unanswered += b'hello' not in answer
		    except ConnectionRefusedError:
		        refused += 1
		    except OSError as error:
		        print(error)
		        unanswered += 1
		print(f'{asked} requests, {refused} refused, {unanswered} without an answer')
		sys.exit(min(refused + unanswered + (asked < 3), 255))
	END
}

# The network is not the test's own: a port that is free takes the place of the one of the unit.
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir -p /etc/systemd/system/$unit.socket.d
printf '[Socket]\nListenStream=\nListenStream=127.0.0.1:%s\n' "$port" >/etc/systemd/system/$unit.socket.d/port.conf
# All the starts below are more than an administrator does in ten seconds.
mkdir -p /etc/systemd/system/$unit.service.d
printf '[Unit]\nStartLimitIntervalSec=0\n' >/etc/systemd/system/$unit.service.d/starts.conf
sed -i "s/^  listen: .*/  listen: 127.0.0.1:$port/" $config
systemctl daemon-reload

systemctl start $unit.service || fail 'it does not start'
systemctl --quiet is-active $unit.socket || fail 'the service was started without its socket'
tr '\0' '\n' <"/proc/$(property MainPID)/environ" | grep -q '^LISTEN_FDS=1$' || fail 'it is passed no socket'
echo 'ok: starting the service starts the socket, and passes it'

sign=$(mktemp)
clients "$sign" &
asking=$!
for _ in 1 2 3 4 5; do
	systemctl restart $unit.service || fail 'it does not restart'
	systemctl reload $unit.service || fail 'it is not reloaded'
done
systemctl stop $unit.service 2>/dev/null
wait_for systemctl --quiet is-active $unit.service  # the next client starts it again
systemctl kill --signal=KILL $unit.service
wait_for systemctl --quiet is-active $unit.service
systemctl restart $unit.service
rm "$sign"
wait $asking || killed=$?
# Only the clients whose connections were killed with the service may be without an answer.
[ "${killed:-0}" -le 1 ] || fail 'clients were refused, or got no answer'
echo 'ok: restarts, reloads, a stop and a kill refuse no client'

sed -i 's/^Daemon:/Daemon:\n  workers: 2/; /^  # workers:/d' $config
systemctl restart $unit.service || fail 'it does not start with workers'
sign=$(mktemp)
clients "$sign" &
asking=$!
for _ in 1 2 3; do
	systemctl restart $unit.service || fail 'it does not restart with workers'
done
rm "$sign"
wait $asking || fail 'clients were refused by workers, or got no answer'
echo 'ok: nor with workers'

# Installing the package again is an upgrade for its scripts.
rm -f /usr/sbin/policy-rc.d
before=$(property MainPID)
sign=$(mktemp)
clients "$sign" &
asking=$!
dpkg --force-confold -i /debs/${unit}_*.deb >/dev/null
rm "$sign"
wait $asking || fail 'clients were refused during an upgrade, or got no answer'
[ "$(property MainPID)" != "$before" ] || fail 'an upgrade does not restart it'
echo 'ok: nor does an upgrade'

systemctl stop $unit.socket
[ "$(property ActiveState)" = inactive ] || fail 'it goes on without its socket'
systemctl disable --quiet $unit.socket
systemctl start $unit.service || fail 'it does not start without its socket'
systemctl --quiet is-active $unit.socket && fail 'the socket that was disabled is there'
sign=$(mktemp)
clients "$sign" &
asking=$!
sleep 1
rm "$sign"
wait $asking || fail 'it does not listen itself'
echo 'ok: stopped with its socket, and without it listens itself'
