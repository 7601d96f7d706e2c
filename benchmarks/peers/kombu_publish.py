"""kombu's Producer, which waits for each confirmation."""

import kombu
from publish import BODY, QUEUE, URL, one_at_a_time

options = {'confirm_publish': True}
with kombu.Connection(URL, transport_options=options) as connection:
    producer = connection.Producer(auto_declare=False)
    one_at_a_time(lambda: producer.publish(
        BODY, routing_key=QUEUE, mandatory=True, content_type='application/octet-stream',
        content_encoding='binary'))
