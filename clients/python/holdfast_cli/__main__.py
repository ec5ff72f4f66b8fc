import signal
import sys

from holdfast_cli.main import main

# Whoever ends a command with SIGTERM wants what Ctrl-C gives: children stopped, and a word on how to go on.
signal.signal(signal.SIGTERM, signal.default_int_handler)
sys.exit(main(sys.argv[1:]))
