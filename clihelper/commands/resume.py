"""``clihelper resume``: have a running daemon consume queues again."""

from __future__ import annotations

from clihelper.commands import asking, daemons, pause

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = f"""\
usage: clihelper resume [QUEUE...] [--json] NAME | -c FILE [NAME] | --pidfile FILE

Have a daemon consume queues again: those that clihelper pause has stopped, and also those that
their breakers or handlers have, without waiting for the end of that time.

  QUEUE             a key of AMQP.queues; all queues if there is none. The last word is the NAME,
                    unless another option says which daemon it is
{daemons.OPTIONS_HELP}
  --json            print an object

{asking.STATUSES_HELP}
It is 2, too, if there is no such queue.

Example: clihelper resume invoices orders"""


def main(argv: Sequence[str]) -> int:
    """Have them consumed, and return the exit status."""
    return pause.ask('resume', argv, USAGE)
