"""dramatiq's processes, of a thread each, which is the fastest for what does nothing."""

import sys

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from tally import PROCESSES, QUEUE, URL, handled

dramatiq.set_broker(RabbitmqBroker(url=URL, middleware=[]))


@dramatiq.actor(queue_name=QUEUE, actor_name='noop')
def noop():
    handled()


if __name__ == '__main__':
    from dramatiq.cli import main, make_argument_parser

    words = ['dramatiq_crew', '--processes', str(PROCESSES), '--threads', '1']
    sys.argv[1:] = words
    main(make_argument_parser().parse_args(words))
