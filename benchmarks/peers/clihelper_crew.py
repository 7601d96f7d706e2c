"""clihelper's workers."""

from tally import handled

import clihelper


class Crew(clihelper.ConsumerController):
    def on_message(self, body, message):
        handled()


clihelper.setup('crew', 'Consumes.', '1.0')
clihelper.run(Crew)
