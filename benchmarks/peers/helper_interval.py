"""PyPI's helper: the same kind of framework."""

import helper
from event import work
from helper import controller, parser


class Worker(controller.Controller):
    def process(self):
        work()


parser.description('Works.')
helper.start(Worker)
