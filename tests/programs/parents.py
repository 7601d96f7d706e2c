"""Workers that leave something behind: children of several kinds, or a thread."""

import multiprocessing
import subprocess
import sys
import threading
import time

import clihelper

LOCK = multiprocessing.get_context('fork').Lock()  # so that its exit handler is registered here

IGNORING = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('ignoring', flush=True)
time.sleep(600)
"""


class Parent(clihelper.Controller):
    def _setup(self):
        for kind in self.application_config['leaves']:
            self.logger.info('%s %s', kind, getattr(self, kind)())

    def daemonic(self):
        fork = multiprocessing.get_context('fork')
        child = fork.Process(target=time.sleep, args=(600,), daemon=True)
        child.start()
        return child.pid

    def job(self):
        self.sleeping = subprocess.Popen(['sleep', '600'])
        return self.sleeping.pid

    def stubborn(self):
        self.ignoring = subprocess.Popen([sys.executable, '-c', IGNORING], stdout=subprocess.PIPE)
        self.ignoring.stdout.readline()
        return self.ignoring.pid

    def thread(self):
        threading.Thread(target=time.sleep, args=(600,)).start()


clihelper.setup('crew')
clihelper.run(Parent)
