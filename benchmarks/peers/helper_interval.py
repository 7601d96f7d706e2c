"""PyPI's helper: the same kind of framework."""

from event import work

import helper
from helper import controller, parser


class Worker(controller.Controller):
    def process(self):
        work()


parser.description('Works.')
helper.start(Worker)
