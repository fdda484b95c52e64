"""Imported by nothing but the process from which workers that load data are forked: SIGTERM, which a scheduler sends to
all processes of a run, is left to the run, which still needs its workers.
"""

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
