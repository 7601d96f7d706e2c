"""Celery's prefork pool, acknowledging late."""

import os
import sys

from celery import Celery
from kombu import Queue
from tally import PREFETCH, PROCESSES, QUEUE, URL, handled

app = Celery('celery_crew', broker=URL)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    task_default_queue=QUEUE,
    task_queues=[Queue(QUEUE, durable=True)],
    worker_prefetch_multiplier=max(PREFETCH // PROCESSES, 1),
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)


@app.task(name='noop')
def noop():
    handled()


if __name__ == '__main__':
    os.environ['C_FORCE_ROOT'] = '1'
    sys.argv[0] = 'celery'
    app.worker_main([
        'worker', '-P', 'prefork', '-c', str(PROCESSES), '--without-gossip', '--without-mingle',
        '--without-heartbeat', '-l', 'CRITICAL',
    ])
