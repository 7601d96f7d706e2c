#!/bin/sh
# Inside a chroot with clihelper-example: its log is rotated while it writes as fast as it can.
set -eu

log=/var/log/clihelper-example/example.log
config=/etc/clihelper-example.yml

sed -i 's/^  wake_interval: .*/  wake_interval: 0.001/' "$config"
sed -i 's/weekly/weekly\n\trotate 100/; s/rotate 8//; /compress/d' /etc/logrotate.d/clihelper-example
/etc/init.d/clihelper-example start
for _ in $(seq 30); do
	sleep 0.2
	logrotate --force /etc/logrotate.d/clihelper-example
done
/etc/init.d/clihelper-example stop

# Oldest first.
files=$(find "${log%/*}" -name 'example.log.*' | sort -t. -k3 -n -r)
# shellcheck disable=SC2086 # several files
cat $files "$log" | awk '
	/ placed$/ { if ($6 != ++placed) { print "lost before: " $0; lost++ } }
	/ shipped: / { shipped++ }
	END { print placed + 0, "placed,", shipped + 0, "shipped,", lost + 0, "lost"
	      exit lost > 0 || placed < 1000 || placed - shipped > 1 }'
echo "ok: in $(echo "$files" | wc -l) rotations no line was lost"
