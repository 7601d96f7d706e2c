"""A loop whose import lasts until the test lets it go on."""

import reports

from clihelper.loops.interval import IntervalLoop as IntervalLoop

reports.at('import')
