#!/bin/sh
# Inside a chroot with clihelper-example, and a RabbitMQ at the URL that is given: it consumes.
set -eu

url=$1
log=/var/log/clihelper-example/example.log
config=/etc/clihelper-example.yml

sed -i "s|^  url: .*|  url: $url|" "$config"
/etc/init.d/clihelper-example start
python3 -c "
import kombu
with kombu.Connection('$url') as connection:
    for number in range(1000, 2000):
        connection.Producer().publish({'order_id': number, 'item': 'coffee'},
                                      exchange='shop', routing_key='order.new')"
for _ in $(seq 100); do
	shipped=$(grep -c 'shipped: coffee' "$log") || true
	[ "$shipped" -lt 1000 ] || break
	sleep 0.1
done
/etc/init.d/clihelper-example stop
[ "$shipped" -eq 1000 ]
# Its own, as another user, to a broker that refuses it.
sed -i 's|^  url: .*|  url: amqp://guest:wrong@'"${url#*@}|" "$config"
status=0
/etc/init.d/clihelper-example start 2>/tmp/said || status=$?
cat /tmp/said
[ "$status" -eq 1 ]
grep -q 'refuse' /tmp/said
echo "ok: 1000 orders of others were shipped, and a broker that refuses is told"
