"""python -m explore_helper explore --repository=FOLDER --KEY=VALUE..."""

import sys

from imagenet_helper.errors import run_main

from .cli import main

run_main(lambda: main(sys.argv[1:]))
