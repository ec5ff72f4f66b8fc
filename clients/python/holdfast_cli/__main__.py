import sys

from holdfast_cli.main import main

sys.exit(main(sys.argv[1:]))
