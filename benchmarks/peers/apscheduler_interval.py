"""APScheduler's blocking scheduler."""

import datetime
import signal

from apscheduler.schedulers.blocking import BlockingScheduler
from event import INTERVAL, work

scheduler = BlockingScheduler(timezone=datetime.UTC)
signal.signal(signal.SIGTERM, lambda signum, frame: scheduler.shutdown(wait=False))
scheduler.add_job(
    work, 'interval', seconds=INTERVAL, next_run_time=datetime.datetime.now(datetime.UTC))
scheduler.start()
